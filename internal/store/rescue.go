package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"

	"github.com/cartage-dev/cartage/internal/reason"
)

// Hole is a range of keys that cannot be read: a block of a table that has some of them is damaged. A record of the range that another table
// has is left out too, for the damaged one may have a newer one, or its deletion.
type Hole struct {
	From, To string // the first key of it, and the first behind it; equal where all can be read nevertheless
	File     string
	cause    error
}

// String says what is missing and why.
func (h Hole) String() string {
	if h.From >= h.To {
		return h.File + " is damaged where no record is"
	}
	return fmt.Sprintf("%s is damaged: nothing from %q to %q is read", h.File, h.From, h.To)
}

// Rescued is a store that is damaged, as far as it can be read. What is written to it stays in memory. It is safe for concurrent use.
type Rescued struct {
	*records
	Holes []Hole
	// Lost is what was acknowledged and is not there any more, nil if nothing is known to be missing.
	Lost error
}

var _ datastore.Batching = (*Rescued)(nil)

// OpenRescue opens a damaged store to read what is safe to be read: what a damaged table may have changed is left out of lists, and is an error
// where it is asked for by its key. The folder stays as it is. A store whose list of tables is gone cannot be opened so.
func OpenRescue(ctx context.Context, dir string) (*Rescued, error) {
	e, err := openDir(dir, openOptions{shadow: true, accept: true})
	if err != nil {
		return nil, err
	}
	holes, _, err := e.damagedTables(ctx)
	if err != nil {
		return nil, errors.Join(err, e.closeDatabase())
	}
	return &Rescued{newRecords(e, nil), holes, e.lost}, nil
}

// hole is the one that a key is in.
func (r *Rescued) hole(k datastore.Key) error {
	for _, h := range r.Holes {
		if key := k.String(); key >= h.From && key < h.To {
			return r.namedError(h.cause)
		}
	}
	return nil
}

// Get implements datastore.Read.
func (r *Rescued) Get(ctx context.Context, k datastore.Key) ([]byte, error) {
	if err := r.hole(k); err != nil {
		return nil, err
	}
	return r.records.Get(ctx, k)
}

// Has implements datastore.Read.
func (r *Rescued) Has(ctx context.Context, k datastore.Key) (bool, error) {
	if err := r.hole(k); err != nil {
		return false, err
	}
	return r.records.Has(ctx, k)
}

// GetSize implements datastore.Read.
func (r *Rescued) GetSize(ctx context.Context, k datastore.Key) (int, error) {
	if err := r.hole(k); err != nil {
		return -1, err
	}
	return r.records.GetSize(ctx, k)
}

// Query implements datastore.Read.
func (r *Rescued) Query(_ context.Context, q query.Query) (query.Results, error) {
	prefix := datastore.NewKey(q.Prefix).String()
	if prefix != "/" {
		prefix += "/"
	}
	var entries []query.Entry
	from, end := prefix, string(prefixEnd([]byte(prefix)))
	for _, h := range r.Holes { // in the order of their beginnings
		if h.From >= h.To || h.To <= from || end != "" && h.From >= end {
			continue
		}
		if err := r.between(from, h.From, &entries); err != nil {
			return nil, err
		}
		from = h.To
	}
	if err := r.between(from, end, &entries); err != nil {
		return nil, err
	}
	rest := q
	rest.Prefix = ""
	return query.NaiveQueryApply(rest, query.ResultsWithEntries(q, entries)), nil
}

// between adds the records from one key to another, "" for the end.
func (r *Rescued) between(from, to string, out *[]query.Entry) error {
	if to != "" && from >= to {
		return nil
	}
	bounds := &pebble.IterOptions{LowerBound: []byte(from)}
	if to != "" {
		bounds.UpperBound = []byte(to)
	}
	return r.eachRecord(bounds, func(key, value []byte) bool {
		*out = append(*out, query.Entry{Key: string(key), Value: bytes.Clone(value), Size: len(value)})
		return string(key)+"\x00" != to // to look for one behind the last would read what is damaged
	})
}

// narrow finds where between two keys, both included, reading fails: it reads from both ends.
func (e *engine) narrow(first, last []byte) (from, to string) {
	from, to = string(first), string(last)+"\x00"
	bounds := &pebble.IterOptions{LowerBound: first, UpperBound: []byte(to)}
	if err := e.eachRecord(bounds, func(key, _ []byte) bool {
		from = string(key) + "\x00"
		return true
	}); err == nil {
		return to, to
	}
	_ = e.eachBack(bounds, func(key []byte) { to = string(key) })
	return from, max(from, to)
}

// eachBack calls f for the keys of the bounds from the last to the first, until one cannot be read.
func (e *engine) eachBack(bounds *pebble.IterOptions, f func(key []byte)) (err error) {
	defer e.recovered(&err)
	it, err := e.db.NewIter(bounds)
	if err != nil {
		return e.namedError(err)
	}
	defer func() { err = errors.Join(err, e.namedError(it.Close())) }()
	for ok := it.Last(); ok; ok = it.Prev() {
		if _, err := it.ValueAndErr(); err != nil {
			return e.namedError(err)
		}
		f(it.Key())
	}
	return nil
}

// damagedTables reads every table and compares each block with its sum.
func (e *engine) damagedTables(ctx context.Context) (bad []Hole, tables int, err error) {
	defer e.recovered(&err)
	levels, err := e.db.SSTables()
	if err != nil {
		return nil, 0, e.namedError(err)
	}
	for _, level := range levels {
		for _, t := range level {
			if err := ctx.Err(); err != nil {
				return nil, tables, err
			}
			tables++
			name := fmt.Sprintf("%06d.sst", uint64(t.BackingSSTNum))
			cause := e.readTable(ctx, name)
			if errors.Is(cause, fs.ErrNotExist) && !e.lists(uint64(t.BackingSSTNum)) {
				continue // it was merged into others meanwhile
			}
			if cause != nil {
				file := e.fs.PathJoin(e.dir, name)
				h := Hole{File: file, cause: reason.StoreFailed.Errorf("%s is damaged: %w", file, cause).WithHint(rescueHint)}
				h.From, h.To = e.narrow(t.Smallest.UserKey, t.Largest.UserKey)
				bad = append(bad, h)
			}
		}
	}
	slices.SortFunc(bad, func(a, b Hole) int { return strings.Compare(a.From, b.From) })
	return bad, tables, nil
}

// lists reports whether a table is still one of the store's.
func (e *engine) lists(number uint64) bool {
	levels, err := e.db.SSTables()
	for _, level := range levels {
		for _, t := range level {
			if uint64(t.BackingSSTNum) == number {
				return true
			}
		}
	}
	return err != nil
}

// readTable compares the blocks of a table with their sums.
func (e *engine) readTable(ctx context.Context, name string) (err error) {
	defer func() {
		if p := recover(); p != nil { // the library trusts what it has read of a table
			err = panicError(p)
		}
	}()
	f, err := e.fs.Open(e.fs.PathJoin(e.dir, name))
	if err != nil {
		return err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r, err := sstable.NewReader(ctx, readable, e.tables)
	if err != nil {
		return errors.Join(err, readable.Close())
	}
	return errors.Join(r.ValidateBlockChecksums(), r.Close())
}
