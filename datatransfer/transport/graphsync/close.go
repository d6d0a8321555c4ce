package graphsync

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-graphsync"

	"github.com/cartage-dev/cartage/datatransfer"
)

// cancelRequest waits no longer than ctx: graphsync itself waits for the end of a read of the store, if one is going on.
func (t *Transport) cancelRequest(ctx context.Context, id graphsync.RequestID) error {
	done := make(chan error, 1)
	go func() { done <- t.gs.Cancel(ctx, id) }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if errors.As(err, new(graphsync.RequestNotFoundErr)) {
		return nil
	}
	return err
}

// CloseChannel implements datatransfer.Transport; without a live request it returns at once.
func (t *Transport) CloseChannel(ctx context.Context, chid datatransfer.ChannelID) error {
	t.mu.Lock()
	c := t.channels[chid]
	if c == nil {
		t.mu.Unlock()
		return datatransfer.ErrChannelNotFound
	}
	id, live := c.current, c.live && !c.away
	c.run++
	if live {
		t.retire(c)
	}
	t.mu.Unlock()
	if !live {
		return nil
	}
	t.background(func(ctx context.Context) { t.log(chid, t.cancelRequest(ctx, id)) })
	return nil
}

// Halt ends the request of a channel, and waits until graphsync has heard of it: what the store answers from then on is not told to
// the other side.
func (t *Transport) Halt(ctx context.Context, chid datatransfer.ChannelID) error {
	t.mu.Lock()
	c := t.channels[chid]
	var id graphsync.RequestID
	live := c != nil && c.live && !c.away
	if live {
		id = c.current
		c.run++
		t.retire(c)
	}
	delete(t.channels, chid) // a request that is being decided on now is decided on again
	t.mu.Unlock()
	if !live {
		return nil
	}
	return t.cancelRequest(ctx, id)
}

// background runs f on a goroutine that Shutdown waits for.
func (t *Transport) background(f func(ctx context.Context)) {
	t.group.Go(func() {
		ctx, cancel := context.WithTimeout(t.ctx, time.Minute)
		defer cancel()
		f(ctx)
	})
}

// CleanupChannel implements datatransfer.Transport: a running request is cancelled, everything is freed.
func (t *Transport) CleanupChannel(chid datatransfer.ChannelID) {
	t.mu.Lock()
	c := t.channels[chid]
	s := t.stores[chid]
	delete(t.channels, chid)
	delete(t.stores, chid)
	delete(t.links, chid)
	var id graphsync.RequestID
	live := false
	if c != nil {
		id, live = c.current, c.live
		c.run++
		t.retire(c)
	}
	t.mu.Unlock()
	if live {
		t.background(func(ctx context.Context) { t.log(chid, t.cancelRequest(ctx, id)) })
	}
	if s != nil {
		_ = t.gs.UnregisterPersistenceOption(s.name)
	}
}

// cancelAll cancels requests side by side.
func (t *Transport) cancelAll(ctx context.Context, ids []graphsync.RequestID) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for _, id := range ids {
		wg.Go(func() { _ = t.cancelRequest(ctx, id) })
	}
	wg.Wait()
}

// Shutdown implements datatransfer.Transport: hooks are unregistered, running requests are cancelled, and all
// goroutines have ended, unless ctx ends first.
func (t *Transport) Shutdown(ctx context.Context) error {
	t.mu.Lock()
	t.closed = true
	var ids []graphsync.RequestID
	if t.deciding != nil {
		ids = slices.Collect(maps.Keys(t.deciding.byRequest))
	}
	for _, c := range t.channels {
		if c.live {
			ids = append(ids, c.current)
		}
	}
	stores := t.stores
	t.channels, t.requests, t.stores = map[datatransfer.ChannelID]*channel{}, map[graphsync.RequestID]*channel{}, map[datatransfer.ChannelID]*store{}
	t.backlogs = map[graphsync.RequestID]*backlog{}
	t.mu.Unlock()
	for _, u := range t.unregister {
		u()
	}
	t.cancelAll(ctx, ids)
	for _, s := range stores {
		_ = t.gs.UnregisterPersistenceOption(s.name)
	}
	t.cancel()
	return t.group.Close(ctx)
}
