// Package faults breaks the seams on purpose: a Switch counts every write of a node, through records and
// files alike, and from the n-th on everything fails as if the process had been killed there. Crash points thus
// enumerate themselves: run with n = 1, 2, 3 ... until a run needs no crash.
package faults

import (
	"context"
	"errors"
	"io/fs"
	"sync"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"

	"github.com/cartage-dev/cartage/blob"
)

// ErrCrashed is what every operation answers after the crash.
var ErrCrashed = errors.New("crashed by fault injection")

// Switch counts writes and crashes at one of them. The zero Switch never crashes.
type Switch struct {
	// At is the write that crashes, counted from 1; 0 means never.
	At int
	// AtCrash is called once, before the write that crashes returns: what ends at once with a process. It must not write.
	AtCrash func()
	// OnCrash is called once, on a goroutine of its own.
	OnCrash func()

	mu      sync.Mutex
	n       int
	crashed bool
}

// Step counts one write and fails it from the crash on.
func (s *Switch) Step() error {
	s.mu.Lock()
	if s.crashed {
		s.mu.Unlock()
		return ErrCrashed
	}
	s.n++
	s.crashed = s.At > 0 && s.n >= s.At
	crashed := s.crashed
	s.mu.Unlock()
	if !crashed {
		return nil
	}
	if s.AtCrash != nil {
		s.AtCrash()
	}
	if s.OnCrash != nil {
		go s.OnCrash()
	}
	return ErrCrashed
}

// CrashAfter lets the n-th write from now on crash, counted from 1.
func (s *Switch) CrashAfter(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.At = s.n + n
}

// Crash makes the crash happen now, between two writes, if it has not happened. OnCrash and AtCrash are not called.
func (s *Switch) Crash() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.crashed = true
}

// Crashed tells whether the crash happened.
func (s *Switch) Crashed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.crashed
}

// Count is the number of writes seen.
func (s *Switch) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

// Store wraps a record store.
type Store struct {
	datastore.Batching
	Switch *Switch
}

// Put counts as one write.
func (s Store) Put(ctx context.Context, k datastore.Key, v []byte) error {
	if err := s.Switch.Step(); err != nil {
		return err
	}
	return s.Batching.Put(ctx, k, v)
}

// Delete counts as one write.
func (s Store) Delete(ctx context.Context, k datastore.Key) error {
	if err := s.Switch.Step(); err != nil {
		return err
	}
	return s.Batching.Delete(ctx, k)
}

// Sync counts as one write.
func (s Store) Sync(ctx context.Context, k datastore.Key) error {
	if err := s.Switch.Step(); err != nil {
		return err
	}
	return s.Batching.Sync(ctx, k)
}

// Query fails after the crash.
func (s Store) Query(ctx context.Context, q query.Query) (query.Results, error) {
	if s.Switch.Crashed() {
		return nil, ErrCrashed
	}
	return s.Batching.Query(ctx, q)
}

// Close leaves the wrapped store open: the test owns it and reopens over it.
func (s Store) Close() error { return nil }

// Batch counts at its Commit.
func (s Store) Batch(ctx context.Context) (datastore.Batch, error) {
	b, err := s.Batching.Batch(ctx)
	return batch{b, s.Switch}, err
}

type batch struct {
	datastore.Batch
	sw *Switch
}

func (b batch) Commit(ctx context.Context) error {
	if err := b.sw.Step(); err != nil {
		return err
	}
	return b.Batch.Commit(ctx)
}

// FS wraps a file system.
type FS struct {
	blob.FS
	Switch *Switch
}

type file struct {
	blob.File
	sw *Switch
}

func (f file) WriteAt(p []byte, off int64) (int, error) {
	if err := f.sw.Step(); err != nil {
		// A process dies in the middle of a write too: half of it may be there.
		n, _ := f.File.WriteAt(p[:len(p)/2], off)
		return n, err
	}
	return f.File.WriteAt(p, off)
}

func (f file) Truncate(n int64) error {
	if err := f.sw.Step(); err != nil {
		return err
	}
	return f.File.Truncate(n)
}

func (f file) Sync() error {
	if err := f.sw.Step(); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f FS) wrap(open func() (blob.File, error)) (blob.File, error) {
	if err := f.Switch.Step(); err != nil {
		return nil, err
	}
	in, err := open()
	if err != nil {
		return nil, err
	}
	return file{in, f.Switch}, nil
}

// Create counts as one write.
func (f FS) Create(name string, mode fs.FileMode) (blob.File, error) {
	return f.wrap(func() (blob.File, error) { return f.FS.Create(name, mode) })
}

// OpenRW counts as one write.
func (f FS) OpenRW(name string) (blob.File, error) {
	return f.wrap(func() (blob.File, error) { return f.FS.OpenRW(name) })
}

// Rename counts as one write.
func (f FS) Rename(from, to string) error {
	if err := f.Switch.Step(); err != nil {
		return err
	}
	return f.FS.Rename(from, to)
}

// Link counts as one write.
func (f FS) Link(from, to string) error {
	if err := f.Switch.Step(); err != nil {
		return err
	}
	return f.FS.Link(from, to)
}

// RemoveAll counts as one write.
func (f FS) RemoveAll(name string) error {
	if err := f.Switch.Step(); err != nil {
		return err
	}
	return f.FS.RemoveAll(name)
}

// Remove counts as one write.
func (f FS) Remove(name string) error {
	if err := f.Switch.Step(); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

// SyncTree counts as one write.
func (f FS) SyncTree(dir string) error {
	if err := f.Switch.Step(); err != nil {
		return err
	}
	return f.FS.SyncTree(dir)
}

// Symlink counts as one write.
func (f FS) Symlink(target, name string) error {
	if err := f.Switch.Step(); err != nil {
		return err
	}
	return f.FS.Symlink(target, name)
}

// SetAttributes counts as one write.
func (f FS) SetAttributes(name string, a blob.Attributes) error {
	if err := f.Switch.Step(); err != nil {
		return err
	}
	return f.FS.SetAttributes(name, a)
}
