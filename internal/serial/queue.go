// Package serial runs work one after the other, in the order in which it came, on at most one goroutine, which is there only while there is
// work. What has such a queue needs no lock for what only its work touches.
package serial

import (
	"context"
	"sync"

	"github.com/cartage-dev/cartage/internal/lifecycle"
)

// Queue hands items to one function. It is safe for concurrent use; the function may put further items.
type Queue[T any] struct {
	group *lifecycle.Group
	serve func(T)

	mu      sync.Mutex
	items   []T
	running bool
	idle    chan struct{} // closed when the last item was served; nil while nobody waits for that
}

// New returns a queue whose goroutine is one of group; serve is called for each item.
func New[T any](group *lifecycle.Group, serve func(T)) *Queue[T] {
	return &Queue[T]{group: group, serve: serve}
}

// Put adds an item. It reports false, and forgets the item, once the group is closed.
func (q *Queue[T]) Put(item T) bool {
	return q.PutWith(func(waiting []T) []T { return append(waiting, item) })
}

// PutWith lets change add to what waits, or put it in the place of what is out of date. change must not keep or block.
func (q *Queue[T]) PutWith(change func(waiting []T) []T) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items = change(q.items)
	if q.running || len(q.items) == 0 {
		return true
	}
	if q.running = q.group.Go(q.run); !q.running {
		q.items = nil
	}
	return q.running
}

// Flush waits until nothing is left to serve, or ctx ends.
func (q *Queue[T]) Flush(ctx context.Context) error {
	q.mu.Lock()
	if !q.running {
		q.mu.Unlock()
		return nil
	}
	if q.idle == nil {
		q.idle = make(chan struct{})
	}
	idle := q.idle
	q.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (q *Queue[T]) run() {
	for {
		q.mu.Lock()
		if len(q.items) == 0 {
			q.items, q.running = nil, false
			if q.idle != nil {
				close(q.idle)
				q.idle = nil
			}
			q.mu.Unlock()
			return
		}
		item := q.items[0]
		var none T
		q.items[0], q.items = none, q.items[1:] // nothing holds what was served
		q.mu.Unlock()
		q.serve(item)
	}
}
