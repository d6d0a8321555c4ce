package graphsync

import (
	"context"
	"errors"
	"time"

	"github.com/ipfs/go-graphsync"

	"github.com/cartage-dev/cartage/datatransfer"
)

func (t *Transport) cancelRequest(ctx context.Context, id graphsync.RequestID) error {
	err := t.gs.Cancel(ctx, id)
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
	t.mu.Unlock()
	if !live {
		return nil
	}
	t.background(func(ctx context.Context) { t.log(chid, t.cancelRequest(ctx, id)) })
	return nil
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
	store, hasStore := t.stores[chid]
	delete(t.channels, chid)
	delete(t.stores, chid)
	var id graphsync.RequestID
	live := false
	if c != nil {
		id, live = c.current, c.live
		c.run++
		delete(t.requests, c.current)
		if c.live {
			c.live = false
			close(c.done)
		}
	}
	t.mu.Unlock()
	if live {
		t.background(func(ctx context.Context) { t.log(chid, t.cancelRequest(ctx, id)) })
	}
	if hasStore {
		_ = t.gs.UnregisterPersistenceOption(store)
	}
}

// Shutdown implements datatransfer.Transport: hooks are unregistered, running requests are cancelled, and all
// goroutines have ended, unless ctx ends first.
func (t *Transport) Shutdown(ctx context.Context) error {
	t.mu.Lock()
	t.closed = true
	var ids []graphsync.RequestID
	for _, c := range t.channels {
		if c.live {
			ids = append(ids, c.current)
		}
	}
	stores := t.stores
	t.channels, t.requests, t.stores = map[datatransfer.ChannelID]*channel{}, map[graphsync.RequestID]*channel{}, map[datatransfer.ChannelID]string{}
	t.mu.Unlock()
	for _, u := range t.unregister {
		u()
	}
	for _, id := range ids {
		cctx, cancel := context.WithTimeout(ctx, time.Second)
		_ = t.cancelRequest(cctx, id)
		cancel()
	}
	for _, s := range stores {
		_ = t.gs.UnregisterPersistenceOption(s)
	}
	t.cancel()
	return t.group.Close(ctx)
}
