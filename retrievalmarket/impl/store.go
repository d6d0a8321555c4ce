// Package retrievalimpl is the retrieval client and the retrieval provider.
package retrievalimpl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/ipfs/go-datastore"
	cbg "github.com/whyrusleeping/cbor-gen"

	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/serial"
	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/internal/wire"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

// deals is the store of the records of one side.
type deals[T any, P interface {
	*T
	cbg.CBORMarshaler
	cbg.CBORUnmarshaler
	rm.Tupled
}] struct {
	ds datastore.Batching
	// legacy marks a record that was made with the old protocol.
	legacy func(P)
}

func (s deals[T, P]) key(id string) datastore.Key {
	return datastore.NewKey("/" + dealVersion + "/" + id)
}

// put stores a record; with durable it returns after the record is on stable storage.
func (s deals[T, P]) put(ctx context.Context, id string, rec T, durable bool) error {
	if err := s.write(ctx, s.ds, id, rec); err != nil || !durable {
		return err
	}
	return s.sync(ctx)
}

// write puts a record into a store or a batch.
func (s deals[T, P]) write(ctx context.Context, to datastore.Write, id string, rec T) error {
	data, err := wire.Encode(P(&rec))
	if err != nil {
		return err
	}
	return to.Put(ctx, s.key(id), data)
}

func (s deals[T, P]) sync(ctx context.Context) error { return s.ds.Sync(ctx, datastore.NewKey("/")) }

func (s deals[T, P]) get(ctx context.Context, id string) (T, error) {
	var rec T
	data, err := s.ds.Get(ctx, s.key(id))
	if errors.Is(err, datastore.ErrNotFound) {
		return rec, fmt.Errorf("deal %s: %w", id, rm.ErrNotFound)
	}
	if err != nil {
		return rec, err
	}
	return rec, wire.Decode(data, P(&rec))
}

func (s deals[T, P]) each(ctx context.Context, f func(T) error) error {
	return store.Each(ctx, s.ds, "/"+dealVersion, func(key string, value []byte) error {
		var rec T
		if err := wire.Decode(value, P(&rec)); err != nil {
			return fmt.Errorf("deal record %s: %w", key, err)
		}
		return f(rec)
	})
}

// subscribers tells listeners in the order of events. A listener runs on one dispatcher for the whole side and may
// subscribe and unsubscribe inside its callback (6.3).
type subscribers[E, S any] struct {
	progress func(E) bool // events of which newer ones say the same
	group    lifecycle.Group
	queue    *serial.Queue[note[E, S]]

	mu   sync.Mutex
	subs []*subscription[E, S] // in the order of their subscription; never changed in place
}

func newSubscribers[E, S any](progress func(E) bool) *subscribers[E, S] {
	p := &subscribers[E, S]{progress: progress}
	p.queue = serial.New(&p.group, p.tellAll)
	return p
}

type subscription[E, S any] struct{ f func(E, S) }

type note[E, S any] struct {
	event E
	state S
}

// maxQueue is how much may wait for a slow listener before old progress is left out (6.3).
const maxQueue = 4096

func (p *subscribers[E, S]) subscribe(f func(E, S)) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	sub := &subscription[E, S]{f}
	p.subs = append(slices.Clip(p.subs), sub)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.subs = slices.DeleteFunc(slices.Clone(p.subs), func(s *subscription[E, S]) bool { return s == sub })
	}
}

func (p *subscribers[E, S]) publish(e E, s S) {
	if len(p.listeners()) == 0 {
		return
	}
	p.queue.PutWith(func(waiting []note[E, S]) []note[E, S] {
		if len(waiting) >= maxQueue {
			if i := slices.IndexFunc(waiting, func(n note[E, S]) bool { return p.progress(n.event) }); i >= 0 {
				waiting = slices.Delete(waiting, i, i+1)
			}
		}
		return append(waiting, note[E, S]{e, s})
	})
}

func (p *subscribers[E, S]) listeners() []*subscription[E, S] {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.subs
}

// tellAll tells those who listen when it is the turn of an event.
func (p *subscribers[E, S]) tellAll(n note[E, S]) {
	for _, s := range p.listeners() {
		func() {
			defer func() { _ = recover() }() // a listener that panics must not end the dispatcher
			s.f(n.event, n.state)
		}()
	}
}

// flush waits until all was told, or ctx ends.
func (p *subscribers[E, S]) flush(ctx context.Context) error { return p.queue.Flush(ctx) }
