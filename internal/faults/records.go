package faults

import (
	"context"
	"maps"
	"sync"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
)

// Records is a record store in memory that knows what a power loss takes. Like the store of the product it keeps the order of its writes: a
// Sync makes all before it durable, a batch is there whole or not at all, and of what was not synced a loss leaves the first few.
// It is safe for concurrent use and outlives the nodes over it.
type Records struct {
	mu      sync.Mutex
	now     map[datastore.Key][]byte
	durable map[datastore.Key][]byte
	pending [][]change // since the last Sync, in their order
}

// change is a value of a key, nil where it is deleted.
type change struct {
	key   datastore.Key
	value []byte
}

var _ datastore.Batching = (*Records)(nil)

// NewRecords returns an empty store.
func NewRecords() *Records {
	return &Records{now: map[datastore.Key][]byte{}, durable: map[datastore.Key][]byte{}}
}

func apply(to map[datastore.Key][]byte, list []change) {
	for _, c := range list {
		if c.value == nil {
			delete(to, c.key)
		} else {
			to[c.key] = c.value
		}
	}
}

func (r *Records) write(list []change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	apply(r.now, list)
	r.pending = append(r.pending, list)
}

// PowerLoss takes what was not synced. keep is told how many writes that were, and answers how many of them survive, the first ones; nil keeps
// none.
func (r *Records) PowerLoss(keep func(writes int) int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	if keep != nil {
		n = min(max(0, keep(len(r.pending))), len(r.pending))
	}
	for _, list := range r.pending[:n] {
		apply(r.durable, list)
	}
	r.now, r.pending = maps.Clone(r.durable), nil
}

func copied(v []byte) []byte { return append(make([]byte, 0, len(v)), v...) }

// Put implements datastore.Write.
func (r *Records) Put(_ context.Context, k datastore.Key, v []byte) error {
	r.write([]change{{k, copied(v)}})
	return nil
}

// Delete implements datastore.Write.
func (r *Records) Delete(_ context.Context, k datastore.Key) error {
	r.write([]change{{k, nil}})
	return nil
}

// Sync implements datastore.Datastore.
func (r *Records) Sync(context.Context, datastore.Key) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, list := range r.pending {
		apply(r.durable, list)
	}
	r.pending = nil
	return nil
}

// Get implements datastore.Read.
func (r *Records) Get(_ context.Context, k datastore.Key) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v, ok := r.now[k]; ok {
		return copied(v), nil
	}
	return nil, datastore.ErrNotFound
}

// Has implements datastore.Read.
func (r *Records) Has(_ context.Context, k datastore.Key) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.now[k]
	return ok, nil
}

// GetSize implements datastore.Read.
func (r *Records) GetSize(ctx context.Context, k datastore.Key) (int, error) {
	v, err := r.Get(ctx, k)
	return len(v), err
}

// Query implements datastore.Read.
func (r *Records) Query(_ context.Context, q query.Query) (query.Results, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	entries := make([]query.Entry, 0, len(r.now))
	for k, v := range r.now {
		entries = append(entries, query.Entry{Key: k.String(), Size: len(v), Value: copied(v)})
	}
	return query.NaiveQueryApply(q, query.ResultsWithEntries(q, entries)), nil
}

// Close implements datastore.Datastore: the records stay.
func (r *Records) Close() error { return nil }

// Batch implements datastore.Batching.
func (r *Records) Batch(context.Context) (datastore.Batch, error) { return &recordBatch{r: r}, nil }

type recordBatch struct {
	r    *Records
	list []change
}

// Put implements datastore.Write.
func (b *recordBatch) Put(_ context.Context, k datastore.Key, v []byte) error {
	b.list = append(b.list, change{k, copied(v)})
	return nil
}

// Delete implements datastore.Write.
func (b *recordBatch) Delete(_ context.Context, k datastore.Key) error {
	b.list = append(b.list, change{k, nil})
	return nil
}

// Commit implements datastore.Batch.
func (b *recordBatch) Commit(context.Context) error {
	b.r.write(b.list)
	b.list = nil
	return nil
}
