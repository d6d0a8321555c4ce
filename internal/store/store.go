// Package store is the only place that opens a database. Everything the product remembers goes through it:
// records as a datastore.Batching (deals, channels, voucher books, asks), and raw ordered keys (the dagstore's
// index, the ledger). The engine is Pebble (docs/adr/0002).
package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	pebbleds "github.com/ipfs/go-ds-pebble"

	"github.com/cartage-dev/cartage/internal/reason"
)

// ErrLocked means that another process has the folder open.
var ErrLocked error = reason.HomeBusy.Errorf("store is in use by another process")

// Open opens or creates a record store in dir. Writes are not synced by themselves: a fact that must survive a
// power loss is written with Commit.
func Open(dir string) (datastore.Batching, error) {
	o, unlock, err := lockedOptions(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	ds, err := pebbleds.NewDatastore(dir, pebbleds.WithPebbleOpts(o), pebbleds.WithPebbleWriteOptions(pebble.NoSync))
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	return &records{ds, newRoom(dir)}, nil
}

// lockedOptions takes the lock of a folder first: an open that fails on it would leave the engine's goroutines behind.
// unlock gives up this function's share of the lock; the opened store keeps its own until it is closed.
func lockedOptions(dir string) (o *pebble.Options, unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	o = options()
	if o.Lock, err = pebble.LockDirectory(dir, vfs.Default); err != nil {
		if errors.Is(err, syscall.EAGAIN) || strings.Contains(err.Error(), "lock held") {
			err = ErrLocked
		}
		return nil, nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	return o, func() { _ = o.Lock.Close() }, nil
}

func options() *pebble.Options {
	return &pebble.Options{
		Logger:             silent{},
		MemTableSize:       4 << 20,
		MaxOpenFiles:       256,
		FormatMajorVersion: pebble.FormatNewest,
	}
}

// Commit writes a batch atomically and returns when it is on stable storage. Commits of several goroutines
// share one disk flush.
func Commit(ctx context.Context, ds datastore.Batching, b datastore.Batch) error {
	if err := b.Commit(ctx); err != nil {
		return err
	}
	return ds.Sync(ctx, datastore.NewKey("/"))
}

// Each calls f with every record below a prefix, until f returns an error.
func Each(ctx context.Context, ds datastore.Read, prefix string, f func(key string, value []byte) error) error {
	res, err := ds.Query(ctx, query.Query{Prefix: prefix})
	if err != nil {
		return err
	}
	defer res.Close()
	for e := range res.Next() {
		if e.Error != nil {
			return e.Error
		}
		if err := f(e.Key, e.Value); err != nil {
			return err
		}
	}
	return nil
}

type silent struct{}

func (silent) Infof(string, ...any)                   {}
func (silent) Errorf(string, ...any)                  {}
func (silent) Fatalf(format string, args ...any)      { panic(fmt.Sprintf(format, args...)) }
func (silent) Eventf(context.Context, string, ...any) {}
func (silent) IsTracingEnabled(context.Context) bool  { return false }
func memory(o *pebble.Options)                        { o.FS = vfs.NewMem() }
func isNotFound(err error) bool                       { return errors.Is(err, pebble.ErrNotFound) }
