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
	mu       sync.Mutex
	subs     []*subscription[E, S] // in the order of their subscription; never changed in place
	queue    []note[E, S]
	busy     bool
	wg       sync.WaitGroup
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
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.subs) == 0 {
		return
	}
	if len(p.queue) >= maxQueue && p.progress != nil {
		if i := slices.IndexFunc(p.queue, func(n note[E, S]) bool { return p.progress(n.event) }); i >= 0 {
			p.queue = slices.Delete(p.queue, i, i+1)
		}
	}
	p.queue = append(p.queue, note[E, S]{e, s})
	if !p.busy {
		p.busy = true
		p.wg.Add(1)
		go p.run()
	}
}

func (p *subscribers[E, S]) run() {
	defer p.wg.Done()
	for {
		p.mu.Lock()
		if len(p.queue) == 0 {
			p.busy = false
			p.mu.Unlock()
			return
		}
		n := p.queue[0]
		p.queue = p.queue[1:]
		subs := p.subs
		p.mu.Unlock()
		for _, s := range subs {
			func() {
				defer func() { _ = recover() }() // a listener that panics must not end the dispatcher
				s.f(n.event, n.state)
			}()
		}
	}
}
