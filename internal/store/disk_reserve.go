package store

import (
	"fmt"
	"sync"
	"time"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/internal/reason"
)

// ErrNoRoom means that the disk is nearly full: nothing is written, everything can be read, and writing goes on by itself when there is
// room again.
var ErrNoRoom error = reason.DiskFull.Errorf("store is read-only: the disk is nearly full")

// reserve is what stays free: the engine cannot go on after a write that failed, so it is not asked for one that could.
const (
	reserve   = 64 << 20
	roomEvery = time.Second
	// startReserve is what opening a store may take, for tables of what is in its log. An engine that finds no room then leaves its goroutines and
	// its lock behind.
	startReserve = 16 << 20
)

// diskReserve looks after the free space of a folder. It is safe for concurrent use.
type diskReserve struct {
	dir  string
	free func(dir string) (bytes uint64, ok bool)
	keep uint64 // what has to be free

	mu   sync.Mutex
	next time.Time
	err  error
}

func newDiskReserve(dir string) *diskReserve { return roomAbove(dir, reserve) }

func roomAbove(dir string, keep uint64) *diskReserve {
	return &diskReserve{dir: dir, keep: keep, free: func(dir string) (uint64, bool) {
		n, _, ok := blob.Free(dir)
		return n, ok
	}}
}

// Reserve is how many bytes stay free: with less the stores take no writes.
const Reserve = reserve

// Room returns ErrNoRoom when too little is free in the file system of a folder for its stores to take writes.
func Room(dir string) error {
	r := newDiskReserve(dir)
	return r.checkReserve()
}

// checkReserve returns ErrNoRoom when nothing may be written. It asks the file system once a second at most.
func (r *diskReserve) checkReserve() error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if now.Before(r.next) {
		return r.err
	}
	r.next, r.err = now.Add(roomEvery), nil
	if n, ok := r.free(r.dir); ok && n < r.keep {
		r.err = fmt.Errorf("%w: %d bytes are free in %s, %d are needed", ErrNoRoom, n, r.dir, r.keep)
	}
	return r.err
}
