// Package storedcounter counts upwards and remembers how far it came.
package storedcounter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/ipfs/go-datastore"
)

// StoredCounter hands out numbers that were never handed out before. It is safe for concurrent use.
type StoredCounter struct {
	ds  datastore.Datastore
	key datastore.Key
	mu  sync.Mutex
}

// New returns the counter under a key. The first number is 0.
func New(ds datastore.Datastore, key datastore.Key) *StoredCounter {
	return &StoredCounter{ds: ds, key: key}
}

// Next returns the next number after it was stored. A record that is not a number is an error: starting again from 0 would
// hand out numbers twice.
func (c *StoredCounter) Next(ctx context.Context) (uint64, error) { return c.NextFrom(ctx, 0) }

// NextFrom is Next for a number that is at least floor: with the clock as the floor, a counter that was lost hands out nothing twice.
func (c *StoredCounter) NextFrom(ctx context.Context, floor uint64) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := floor
	data, err := c.ds.Get(ctx, c.key)
	switch {
	case errors.Is(err, datastore.ErrNotFound):
	case err != nil:
		return 0, err
	default:
		last, n := binary.Uvarint(data)
		if n != len(data) || last == math.MaxUint64 {
			return 0, fmt.Errorf("counter %s holds %x, which is not a number", c.key, data)
		}
		next = max(floor, last+1)
	}
	if err := c.ds.Put(ctx, c.key, binary.AppendUvarint(nil, next)); err != nil {
		return 0, err
	}
	return next, c.ds.Sync(ctx, c.key)
}
