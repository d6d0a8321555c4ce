package serial

import (
	"sync"

	"github.com/cartage-dev/cartage/internal/lifecycle"
)

// Keyed is a queue for each key, which is there only while there is work for it. It is safe for concurrent use.
type Keyed[K comparable, T any] struct {
	group *lifecycle.Group
	serve func(K, T)
	limit int // of items that wait for one key

	mu     sync.Mutex
	queues map[K][]T
}

// NewKeyed returns queues of at most limit items each, whose goroutines are of group; serve is called for each item.
func NewKeyed[K comparable, T any](group *lifecycle.Group, limit int, serve func(K, T)) *Keyed[K, T] {
	return &Keyed[K, T]{group: group, limit: limit, serve: serve, queues: map[K][]T{}}
}

// Put adds an item to the queue of a key. It reports false, and forgets the item, when that is full or the group is closed.
func (q *Keyed[K, T]) Put(key K, item T) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	waiting, running := q.queues[key]
	if len(waiting) >= q.limit {
		return false
	}
	if !running && !q.group.Go(func() { q.run(key) }) {
		return false
	}
	q.queues[key] = append(waiting, item)
	return true
}

func (q *Keyed[K, T]) run(key K) {
	for {
		q.mu.Lock()
		waiting := q.queues[key]
		if len(waiting) == 0 {
			delete(q.queues, key)
			q.mu.Unlock()
			return
		}
		item := waiting[0]
		var none T
		waiting[0], q.queues[key] = none, waiting[1:] // nothing holds what was served
		q.mu.Unlock()
		q.serve(key, item)
	}
}
