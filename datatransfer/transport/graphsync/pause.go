package graphsync

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/ipfs/go-graphsync"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/transport/graphsync/extension"
	"github.com/cartage-dev/cartage/internal/lifecycle"
)

// PauseChannel implements datatransfer.PauseableTransport. A sender pauses its response after the block that it is at; a requester ends its
// request and asks for the rest when it resumes. The pause of graphsync is not used: it may stay in its signal until after the response has paused
// for another reason and gone on, and would then be a pause that nobody ends.
func (t *Transport) PauseChannel(ctx context.Context, chid datatransfer.ChannelID) error {
	if t.hold(chid) || t.later(chid, wantsPause, nil) {
		return nil
	}
	_, _, _, err := t.wish(chid, true)
	return err
}

// wish starts a new wish for the running state of a channel and ends older ones.
func (t *Transport) wish(chid datatransfer.ChannelID, hold bool) (id graphsync.RequestID, run uint64, away bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.channels[chid]
	if c == nil {
		return id, 0, false, datatransfer.ErrChannelNotFound
	}
	c.run++
	c.holding = hold
	return c.current, c.run, c.away, nil
}

// ResumeChannel implements datatransfer.PauseableTransport. A pause that has not taken effect yet makes graphsync
// refuse to resume; the wish is kept and tried until the state is reached or the channel ends. msg travels with
// the resumption, if there is one.
func (t *Transport) ResumeChannel(ctx context.Context, msg datatransfer.Message, chid datatransfer.ChannelID) error {
	var exts []graphsync.ExtensionData
	if msg != nil {
		var err error
		if exts, err = extension.ToExtensionData(msg, t.supported); err != nil {
			return err
		}
	}
	if t.later(chid, wantsResume, msg) {
		return nil
	}
	id, run, away, err := t.wish(chid, false)
	if err != nil {
		return err
	}
	if t.requesting(chid) {
		if msg == nil {
			return errNotHeld
		}
		return t.askForRest(chid, msg)
	}
	if away {
		t.undelivered(chid, msg, errAway)
		return nil
	}
	return t.unpause(chid, id, run, exts, besideOf(msg), func(err error) { t.undelivered(chid, msg, err) })
}

// besideOf is a message as the list of those that can be said beside a block.
func besideOf(msg datatransfer.Message) []datatransfer.Message {
	if msg == nil {
		return nil
	}
	return []datatransfer.Message{msg}
}

// unpause lets a response go on, now or as soon as its pause has taken effect; failed hears of an end that comes then. If there is no pause to
// come, what travels with it leaves beside the next block: no later pause may be ended by it. beside are the messages that exts are made of.
func (t *Transport) unpause(chid datatransfer.ChannelID, id graphsync.RequestID, run uint64, exts []graphsync.ExtensionData, beside []datatransfer.Message, failed func(error)) error {
	done, err := t.tryUnpause(chid, id, exts, beside)
	if done {
		return err
	}
	t.group.Go(func() {
		ctx := t.ctx // until the state is reached or the channel ends
		for wait := 200 * time.Microsecond; ctx.Err() == nil; wait = min(2*wait, 50*time.Millisecond) {
			if !lifecycle.Sleep(ctx, wait) || !t.wishes(chid, id, run) {
				return
			}
			if done, err := t.tryUnpause(chid, id, exts, beside); done {
				failed(err)
				return
			}
		}
	})
	return nil
}

// takesUpdate notes that an update of a channel is taken until the function that it returns is called.
func (t *Transport) takesUpdate(chid datatransfer.ChannelID) (taken func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.channels[chid]
	if c == nil {
		return func() {}
	}
	c.updating++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		c.updating--
	}
}

// tryUnpause reports whether a response went on, or will not have to: nobody paused it. While an update of its request is taken it asks nothing: that
// may be on the one loop of graphsync that would have to answer, which would wait for itself and serve no peer any more.
func (t *Transport) tryUnpause(chid datatransfer.ChannelID, id graphsync.RequestID, exts []graphsync.ExtensionData, beside []datatransfer.Message) (done bool, err error) {
	t.mu.Lock()
	c := t.channels[chid]
	coming := c == nil || c.current != id || c.asking || c.pauses > c.releases
	updating := c != nil && c.updating > 0
	var kept []datatransfer.Message
	if c != nil && !updating {
		kept = c.takeBeside(id)
	}
	t.mu.Unlock()
	if updating {
		return false, nil
	}
	if more, xerr := answers(nil, kept, t.supported); xerr == nil {
		err = t.gs.Unpause(t.ctx, id, slices.Concat(more, exts)...)
	} else {
		err = xerr
	}
	if err != nil {
		t.onChannel(chid, func(c *channel) { c.keepBeside(id, kept) })
	}
	if notPausedYet(err) && coming {
		return false, nil
	}
	if notPausedYet(err) {
		leaves := len(exts) == 0
		if len(beside) > 0 {
			t.onChannel(chid, func(c *channel) { leaves = c.keepBeside(id, beside) })
		}
		if leaves {
			return true, nil
		}
		return true, t.gs.SendUpdate(t.ctx, id, exts...)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.channels[chid]; err == nil && c != nil && c.current == id {
		c.releases++
	}
	return true, err
}

// keepBeside keeps messages for the next block of a response that runs. graphsync would take them at once as an update, but an update has a status:
// in one message of the network with the end of the response it stands in the place of the end, of which neither side hears then.
func (c *channel) keepBeside(id graphsync.RequestID, messages []datatransfer.Message) bool {
	if !c.live || c.current != id || len(c.beside)+len(messages) > maxQueued {
		return false
	}
	c.beside = append(c.beside, messages...)
	return true
}

// takeBeside takes the messages that wait for the next block of a response.
func (c *channel) takeBeside(id graphsync.RequestID) (out []datatransfer.Message) {
	if c.current == id {
		out, c.beside = c.beside, nil
	}
	return out
}

// isPaused reports whether the response is paused, or is about to be.
func (c *channel) isPaused() bool { return c.pauses > c.releases }

// maxQueued is how many messages of a channel wait for its requester.
const maxQueued = 64

// errAway means that the requester is not there at the moment.
var errAway = errors.New("the requester is away")

// errEnded means that a response had no block left that a message could leave beside.
var errEnded = errors.New("the response has ended")

// later keeps a wish for a request that is still being decided on.
func (t *Transport) later(chid datatransfer.ChannelID, w wish, msg datatransfer.Message) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.channels[chid]
	if c == nil || !c.opening {
		return false
	}
	if msg != nil && len(c.queued) < maxQueued {
		c.queued = append(c.queued, msg)
	}
	c.last = w
	c.run++
	return true
}

// PeerAway ends the requests and responses with a peer whose connection is gone: messages may be lost, so that what comes
// over the next connection does not follow what came before. The requester has to ask again, and what is meant for it must
// not go into the old request.
func (t *Transport) PeerAway(p peer.ID) {
	t.lost(p)
	t.mu.Lock()
	var gone []graphsync.RequestID
	for _, c := range t.liveWith(p, func(c *channel) bool { return c.sending }) {
		gone = append(gone, c.current)
		c.away = true
		t.retire(c)
	}
	t.mu.Unlock()
	for _, id := range gone {
		t.background(func(ctx context.Context) { _ = t.cancelRequest(ctx, id) })
	}
}

// undelivered hands a message back that did not leave with a resumption. One that the handler does not deliver another way travels with the answer to the
// next request, which decides anew whether data flows.
func (t *Transport) undelivered(chid datatransfer.ChannelID, msg datatransfer.Message, err error) {
	if err == nil {
		return
	}
	t.log(chid, err)
	if msg == nil || t.handler().Undelivered(chid, msg) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.channels[chid]; c != nil && len(c.queued) < maxQueued {
		c.queued = append(c.queued, msg)
	}
}

func (t *Transport) wishes(chid datatransfer.ChannelID, id graphsync.RequestID, run uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.channels[chid]
	return c != nil && c.live && c.current == id && c.run == run
}

func notPausedYet(err error) bool {
	return err != nil && !errors.As(err, new(graphsync.RequestNotFoundErr)) && strings.Contains(err.Error(), "not paused")
}
