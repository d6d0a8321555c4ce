// Package router lets a manager use two transports as one: a fast one for peers that speak it, and one that everybody speaks. It
// chooses when a channel is opened or restarted, and remembers which one carries it.
package router

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/ipld/go-ipld-prime"
	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/port"
	"github.com/cartage-dev/cartage/shared"
)

// Fast is the transport that is preferred.
type Fast interface {
	port.Transport
	// Opening tells whether a request of a channel is being decided on.
	Opening(dt.ChannelID) bool
	// NotSpoken tells whether an error of OpenChannel says that the peer does not speak the transport.
	NotSpoken(err error) bool
}

var _ port.Transport = (*Transport)(nil)

// failedFor is how long a peer that did not take the fast transport is served over the other one.
const failedFor = 10 * time.Minute

// Transport is a datatransfer.PauseableTransport over two others. It is safe for concurrent use.
type Transport struct {
	prefers func(peer.ID) bool
	fast    Fast
	slow    port.Transport

	mu     sync.Mutex
	onFast map[dt.ChannelID]bool
	failed map[peer.ID]time.Time
}

// New makes a router; Join gives it its transports. prefers tells whether a peer may speak the fast one.
func New(prefers func(peer.ID) bool) *Transport {
	return &Transport{prefers: prefers, onFast: map[dt.ChannelID]bool{}, failed: map[peer.ID]time.Time{}}
}

// Join sets the transports. They tell FastBound and SlowBound when they carry a channel.
func (t *Transport) Join(fast Fast, slow port.Transport) { t.fast, t.slow = fast, slow }

// FastBound notes that a channel is carried by the fast transport.
func (t *Transport) FastBound(chid dt.ChannelID) { t.bound(chid, true, t.slow) }

// SlowBound notes that a channel is carried by the other one.
func (t *Transport) SlowBound(chid dt.ChannelID) { t.bound(chid, false, t.fast) }

// bound ends what the other transport still does for a channel.
func (t *Transport) bound(chid dt.ChannelID, fast bool, other port.Transport) {
	t.mu.Lock()
	was, known := t.onFast[chid]
	t.onFast[chid] = fast
	t.mu.Unlock()
	if known && was != fast {
		ctx, cancel := shared.Lifetime() // it returns at once
		defer cancel()
		_ = other.CloseChannel(ctx, chid)
	}
}

// OnFast tells whether a channel is carried by the fast transport, and whether one of the two carries it at all.
func (t *Transport) OnFast(chid dt.ChannelID) (fast, carried bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fast, carried = t.onFast[chid]
	return fast, carried
}

func (t *Transport) of(chid dt.ChannelID) port.Transport {
	if t.fast.Opening(chid) { // looked at first: when a question was accepted, its channel is noted before it is not opening any more
		return t.fast
	}
	if fast, _ := t.OnFast(chid); fast {
		return t.fast
	}
	return t.slow
}

// OpenChannel implements datatransfer.Transport. A peer that does not speak the fast transport is served over the other one for a while. One that
// cannot be reached at the moment, as while it starts again, says nothing about what it speaks: a channel that goes on is tried again by whoever
// restarts it.
func (t *Transport) OpenChannel(ctx context.Context, sender peer.ID, chid dt.ChannelID, root ipld.Link, selector ipld.Node, state dt.ChannelState, msg dt.Message) error {
	if t.takesFast(sender) {
		err := t.fast.OpenChannel(ctx, sender, chid, root, selector, state, msg)
		if err == nil || ctx.Err() != nil || state != nil && !t.fast.NotSpoken(err) {
			return err
		}
		if t.fast.NotSpoken(err) {
			t.noteNotSpoken(sender)
		}
	}
	return t.slow.OpenChannel(ctx, sender, chid, root, selector, state, msg)
}

// noteNotSpoken remembers that a peer does not speak the fast transport.
func (t *Transport) noteNotSpoken(p peer.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.failed, func(_ peer.ID, until time.Time) bool { return time.Now().After(until) })
	t.failed[p] = time.Now().Add(failedFor)
}

func (t *Transport) takesFast(p peer.ID) bool {
	t.mu.Lock()
	until, bad := t.failed[p]
	if bad && time.Now().After(until) {
		delete(t.failed, p)
		bad = false
	}
	t.mu.Unlock()
	return !bad && t.prefers(p)
}

// CloseChannel implements datatransfer.Transport.
func (t *Transport) CloseChannel(ctx context.Context, chid dt.ChannelID) error {
	return t.of(chid).CloseChannel(ctx, chid)
}

// Halt ends what is sent on a channel without a word to the other side.
func (t *Transport) Halt(ctx context.Context, chid dt.ChannelID) error {
	return t.of(chid).Halt(ctx, chid)
}

// PauseChannel implements datatransfer.PauseableTransport.
func (t *Transport) PauseChannel(ctx context.Context, chid dt.ChannelID) error {
	return t.of(chid).PauseChannel(ctx, chid)
}

// ResumeChannel implements datatransfer.PauseableTransport.
func (t *Transport) ResumeChannel(ctx context.Context, msg dt.Message, chid dt.ChannelID) error {
	return t.of(chid).ResumeChannel(ctx, msg, chid)
}

// SendControl implements port.Transport.
func (t *Transport) SendControl(chid dt.ChannelID, m dt.Message) bool {
	fast, _ := t.OnFast(chid)
	return fast && t.fast.SendControl(chid, m)
}

// SetEventHandler implements datatransfer.Transport.
func (t *Transport) SetEventHandler(h dt.EventsHandler) error {
	return errors.Join(t.slow.SetEventHandler(h), t.fast.SetEventHandler(h))
}

// CleanupChannel implements datatransfer.Transport.
func (t *Transport) CleanupChannel(chid dt.ChannelID) {
	t.fast.CleanupChannel(chid)
	t.slow.CleanupChannel(chid)
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.onFast, chid)
}

// Shutdown implements datatransfer.Transport.
func (t *Transport) Shutdown(ctx context.Context) error {
	return errors.Join(t.fast.Shutdown(ctx), t.slow.Shutdown(ctx))
}

// UseStore sets the store of a channel, whichever transport carries it.
func (t *Transport) UseStore(chid dt.ChannelID, ls ipld.LinkSystem) error {
	return errors.Join(t.fast.UseStore(chid, ls), t.slow.UseStore(chid, ls))
}

// StoreOf implements port.ChannelStores.
func (t *Transport) StoreOf(chid dt.ChannelID) (ipld.LinkSystem, bool) {
	return t.of(chid).StoreOf(chid)
}

// MaxLinks bounds how many links a channel may follow.
func (t *Transport) MaxLinks(chid dt.ChannelID, n uint64) {
	t.fast.MaxLinks(chid, n)
	t.slow.MaxLinks(chid, n)
}

// PeerAway ends what is going on with a peer whose connection is gone.
func (t *Transport) PeerAway(p peer.ID) {
	t.fast.PeerAway(p)
	t.slow.PeerAway(p)
}

// Traits implements port.Transport: what both transports can do.
func (t *Transport) Traits() port.Traits {
	fast, slow := t.fast.Traits(), t.slow.Traits()
	return port.Traits{Pauses: fast.Pauses && slow.Pauses, OpensPaused: fast.OpensPaused && slow.OpensPaused}
}
