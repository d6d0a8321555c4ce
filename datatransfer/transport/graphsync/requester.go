package graphsync

import (
	"context"
	"errors"

	"github.com/ipfs/go-graphsync"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/port"
)

// A requester does not use the pause of graphsync: there the same request comes back under the same id, and a sender that
// has not finished with the first one mixes the two up, leaves out blocks that were on their way, or ends the wrong one. And a
// request of ours that is cancelled while it is about to pause is never freed.
// Instead the request is cancelled, which is what the other side sees of a pause in either case, and a new one asks for
// the rest.

// Traits implements port.Transport.
func (t *Transport) Traits() port.Traits { return port.Traits{Pauses: true, OpensPaused: true} }

// SendControl implements port.Transport: an update of graphsync costs no less than a message of its own.
func (t *Transport) SendControl(datatransfer.ChannelID, datatransfer.Message) bool { return false }

// pausedAnswer tells whether a push is accepted paused: the answer travels with the request, which then has to end.
func pausedAnswer(msg datatransfer.Message) bool {
	r, ok := msg.(datatransfer.Response)
	return ok && (r.IsNew() || r.IsRestart()) && r.IsPaused()
}

// hold ends the request of a requester until it is resumed, and reports whether this side is one.
func (t *Transport) hold(chid datatransfer.ChannelID) bool {
	t.mu.Lock()
	c := t.channels[chid]
	if !c.asks() {
		t.mu.Unlock()
		return false
	}
	c.run++
	if c.live && !c.heard {
		// The first answer to a push travels with this request: it has to arrive first.
		c.holdNext = true
		t.mu.Unlock()
		return true
	}
	cancel := t.stopLocked(c)
	t.mu.Unlock()
	cancel()
	return true
}

// errHeld ends a request at a block.
var errHeld = errors.New("paused by the recipient")

// holdHere is hold inside the hook of a block, where the hook ends the request.
func (t *Transport) holdHere(chid datatransfer.ChannelID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.channels[chid]; c != nil {
		c.run++
		_ = t.stopLocked(c)
	}
}

// stop ends the request of a requester now.
func (t *Transport) stop(chid datatransfer.ChannelID) {
	t.mu.Lock()
	c := t.channels[chid]
	if c == nil {
		t.mu.Unlock()
		return
	}
	cancel := t.stopLocked(c)
	t.mu.Unlock()
	cancel()
}

// stopLocked notes that the request of a channel ends, and returns what ends it; mu is held.
func (t *Transport) stopLocked(c *channel) (cancel func()) {
	c.held, c.holdNext = true, false
	if !c.live {
		return func() {}
	}
	id, chid := c.current, c.id
	c.stopping = id
	return func() { t.background(func(ctx context.Context) { t.log(chid, t.cancelRequest(ctx, id)) }) }
}

// reached notes that the other side has got the current request, and does what waited for that.
func (t *Transport) reached(chid datatransfer.ChannelID) {
	t.mu.Lock()
	c := t.channels[chid]
	if c == nil || c.sending {
		t.mu.Unlock()
		return
	}
	c.heard = true
	cancel := func() {}
	if c.holdNext {
		cancel = t.stopLocked(c)
	}
	t.mu.Unlock()
	cancel()
}

// shake notes that messages of a peer may be lost: what comes next may not follow what came before.
func (t *Transport) shake(ids []datatransfer.ChannelID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		if c := t.channels[id]; c != nil && !c.sending {
			c.shaken = true
		}
	}
}

func (t *Transport) isShaken(chid datatransfer.ChannelID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.channels[chid]
	return c != nil && c.shaken
}

// abandon ends a request that the events handler does not want.
func (t *Transport) abandon(chid datatransfer.ChannelID, id graphsync.RequestID) {
	_, _, _ = t.finish(id)
	t.mu.Lock()
	if c := t.channels[chid]; c != nil && c.current == id {
		delete(t.channels, chid)
	}
	t.mu.Unlock()
	t.background(func(ctx context.Context) { t.log(chid, t.cancelRequest(ctx, id)) })
}

// lost ends the requests to a peer from which messages were lost; a restart asks for the rest.
func (t *Transport) lost(p peer.ID) {
	t.mu.Lock()
	gone := t.liveWith(p, func(c *channel) bool { return !c.sending })
	t.mu.Unlock()
	for _, c := range gone {
		t.stop(c.id)
	}
}

func (t *Transport) isStopping(chid datatransfer.ChannelID, id graphsync.RequestID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.channels[chid]
	return c != nil && c.stopping == id
}

func (t *Transport) requesting(chid datatransfer.ChannelID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.channels[chid].asks()
}

// asks tells whether this side is the requester of a channel that has asked for something.
func (c *channel) asks() bool { return c != nil && !c.sending && c.ask.root != nil }

var errNotHeld = errors.New("the request is not paused")

// askForRest resumes a requester; msg travels with the new request. If there is no pause of this side to end, the message
// has to go another way.
func (t *Transport) askForRest(chid datatransfer.ChannelID, msg datatransfer.Message) error {
	t.mu.Lock()
	c := t.channels[chid]
	if c != nil {
		c.holdNext = false
	}
	if c == nil || !c.held {
		t.mu.Unlock()
		return errNotHeld
	}
	c.held = false
	run, live, done := c.run, c.live, c.done
	t.mu.Unlock()
	if !live {
		return t.askRest(chid, run, msg)
	}
	t.group.Go(func() { // a store may take its time with the block that is being written
		select {
		case <-done:
			t.undelivered(chid, msg, t.askRest(chid, run, msg))
		case <-t.ctx.Done():
		}
	})
	return nil
}

func (t *Transport) askRest(chid datatransfer.ChannelID, run uint64, msg datatransfer.Message) error {
	t.mu.Lock()
	c := t.channels[chid]
	if c == nil || c.run != run {
		t.mu.Unlock()
		return nil // another wish came since
	}
	a := c.ask
	a.msg, a.skip, a.again, a.retried = msg, c.position, true, false
	t.mu.Unlock()
	return t.request(chid, a)
}

// askAgain asks once more for everything that is not here, if blocks are missing, or are not those that follow, after a request that skipped
// some: sender and recipient may count differently.
func (t *Transport) askAgain(chid datatransfer.ChannelID) bool {
	t.mu.Lock()
	c := t.channels[chid]
	if c == nil || !c.ask.again || c.ask.retried {
		t.mu.Unlock()
		return false
	}
	a := c.ask
	a.skip, a.retried = 0, true
	t.mu.Unlock()
	return t.request(chid, a) == nil
}
