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

	"github.com/cartage-dev/cartage/internal/reason"
)

// ErrLocked means that another process has the folder open.
var ErrLocked error = reason.HomeBusy.Errorf("store is in use by another process")

// Open opens or creates a record store in dir. Writes are not synced by themselves: a fact that must survive a
// power loss is written with Commit. What was committed so is there, or the error is reason.StateRolledBack.
func Open(dir string) (datastore.Batching, error) {
	e, err := openDir(dir, openOptions{})
	if err != nil {
		return nil, err
	}
	return newRecords(e, newDiskReserve(dir)), nil
}

// Accept takes a store as it is, whatever was acknowledged, and proves only that from now on: after a backup was put back, or when what is
// missing is known and cannot be had.
func Accept(dir string) error {
	e, err := openDir(dir, openOptions{accept: true})
	if err != nil {
		return err
	}
	return e.closeDatabase()
}

// openDir opens an engine in a folder of the host. It takes the lock first: an open that fails on it would leave the engine's goroutines
// behind. The opened store keeps its own share of the lock until it is closed.
func openDir(dir string, how openOptions) (*engine, error) {
	if !how.shadow && !how.readOnly {
		if err := roomAbove(dir, startReserve).checkReserve(); err != nil {
			return nil, fmt.Errorf("open store %s: %w", dir, err)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	how.fs, how.lock, how.proved = vfs.Default, lock, true
	if how.shadow {
		how.fs = newShadow(vfs.Default)
	}
	return openEngine(dir, how)
}

func lockDir(dir string) (*pebble.Lock, error) {
	lock, err := pebble.LockDirectory(dir, vfs.Default)
	if errors.Is(err, syscall.EAGAIN) || err != nil && strings.Contains(err.Error(), "lock held") {
		err = ErrLocked
	}
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	return lock, nil
}

// LockDir keeps every process out of the folder of a store, which may be damaged, until unlock is called. A folder that is not there is made.
func LockDir(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	return func() { _ = lock.Close() }, nil
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
