package store

import (
	"context"
	"errors"

	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-datastore"
)

// verified is a store whose files can be read through.
type verified interface {
	failureOf() error
	readThrough(ctx context.Context) (Sum, error)
}

var _ verified = (*records)(nil)

// Sum is what Verify read.
type Sum struct{ Records, Tables int }

// Failed is the fault that a store met since it was opened, nil if it met none. One that is not of this package has none to tell.
func Failed(ds datastore.Read) error {
	if v, ok := ds.(verified); ok {
		return v.failureOf()
	}
	return nil
}

// Verify reads everything that a store has, also what a newer record has replaced, and compares it with its sums. The error names the first
// file that is damaged.
func Verify(ctx context.Context, ds datastore.Read) (Sum, error) {
	if v, ok := ds.(verified); ok {
		return v.readThrough(ctx)
	}
	return Sum{}, nil
}

// readThrough reads the records that there are, and then each table.
func (e *engine) readThrough(ctx context.Context) (s Sum, err error) {
	if err := e.failureOf(); err != nil {
		return s, err
	}
	err = e.eachRecord(&pebble.IterOptions{}, func([]byte, []byte) bool {
		s.Records++
		return ctx.Err() == nil
	})
	if err = errors.Join(err, ctx.Err()); err != nil {
		return s, err
	}
	bad, tables, err := e.damagedTables(ctx)
	s.Tables = tables
	if err == nil && len(bad) > 0 {
		err = e.namedError(bad[0].cause)
	}
	return s, err
}
