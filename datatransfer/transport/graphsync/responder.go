package graphsync

import (
	"context"
	"errors"

	"github.com/ipfs/go-graphsync"
	"github.com/ipfs/go-graphsync/donotsendfirstblocks"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/transport/asked"
	"github.com/cartage-dev/cartage/datatransfer/transport/graphsync/extension"
	"github.com/cartage-dev/cartage/internal/port"
)

// incomingRequest runs on graphsync's response loop. Nothing of an unknown channel is kept unless it is accepted.
func (t *Transport) incomingRequest(p peer.ID, request graphsync.RequestData, ha graphsync.IncomingRequestHookActions) {
	msg, err := extension.GetTransferData(request, t.supported)
	if err != nil {
		ha.TerminateWithError(err)
		return
	}
	if msg == nil {
		return
	}
	if t.decideLater(p, request, msg, ha) {
		return
	}
	chid := asked.Channel(t.self, p, msg)
	c, b, resp, err := t.decide(chid, request, msg)
	if err == nil || errors.Is(err, datatransfer.ErrPause) {
		b.queued, b.last = t.takeWishes(c, decided)
	}
	exts, xerr := answers(resp, b.queued, t.supported)
	if xerr != nil {
		err = xerr
	}
	for _, e := range exts {
		ha.SendExtensionData(e)
	}
	paused := errors.Is(err, datatransfer.ErrPause)
	if err != nil && !paused {
		ha.TerminateWithError(err)
		if len(b.queued) > 0 || b.last != noWish {
			t.background(func(context.Context) { t.revert(chid, b) })
		}
		return
	}
	if b.hadOld {
		t.background(func(ctx context.Context) { t.log(chid, t.cancelRequest(ctx, b.old)) })
	}
	waits, say := t.startsPaused(chid, request, msg, b.last.over(paused))
	waits = t.endAsking(chid, request.ID(), waits)
	if waits {
		ha.PauseResponse()
	}
	if more, err := answers(nil, say, t.supported); err == nil {
		for _, e := range more {
			ha.SendExtensionData(e)
		}
	}
	ha.AugmentContext(t.handler().OnContextAugment(chid))
	t.furnish(chid, ha)
	ha.ValidateRequest()
}

// startsPaused tells whether a response waits before its first block, and what is to be said then. Where the handler does not decide before
// each block, an accepted request says so, or its channel is silent.
func (t *Transport) startsPaused(chid datatransfer.ChannelID, request graphsync.RequestData, msg datatransfer.Message, told bool) (waits bool, say []datatransfer.Message) {
	may, say := t.release(chid, t.asks(chid, request, msg).Has+1)
	if may == port.ReleaseAsTold {
		return told || asked.Silent(t.handler(), chid, msg), say
	}
	return may == port.ReleaseLater, say
}

// release asks the handler about the next block of a response. Its size is not known before graphsync has sent it: where that decides, the largest
// one has to fit.
func (t *Transport) release(chid datatransfer.ChannelID, next int64) (port.Release, []datatransfer.Message) {
	may, say := t.handler().MaySend(chid, next, 0)
	if may != port.ReleaseBySize {
		return may, say
	}
	may, more := t.handler().MaySend(chid, next, carstore.MaxBlock)
	return may, append(say, more...)
}

// decide lets the handler decide on a request and makes it the current one of its channel if it is accepted; what the application
// wishes from then on waits for takeWishes. A channel whose earlier request completed meanwhile was cleaned up: what it is served from is
// chosen anew.
func (t *Transport) decide(chid datatransfer.ChannelID, request graphsync.RequestData, msg datatransfer.Message) (c *channel, b begun, resp datatransfer.Message, err error) {
	for again := true; ; again = false {
		c = t.begin(chid)
		resp, err = t.process(chid, request, msg)
		if errors.Is(err, datatransfer.ErrResume) {
			err = nil
		}
		if err != nil && !errors.Is(err, datatransfer.ErrPause) {
			return c, t.end(chid), resp, err
		}
		t.handler().OnDataAsked(chid)
		t.bound(chid)
		var refused error
		if b, refused = t.accept(c, request.ID()); errors.Is(refused, errCleaned) && again {
			continue
		}
		if refused != nil {
			return c, t.end(chid), resp, refused
		}
		return c, b, resp, err
	}
}

var (
	errCleaned  = errors.New("the channel ended meanwhile")
	errShutDown = errors.New("transport is shut down")
)

// begin notes that a request of chid is being decided on, so that a wish of the application meets it; end takes what was wished for in the
// meantime, and forgets a channel that was not accepted.
func (t *Transport) begin(chid datatransfer.ChannelID) *channel {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.channels[chid]
	if c == nil {
		c = &channel{id: chid}
		t.channels[chid] = c
	}
	c.opening, c.last = true, noWish
	return c
}

func (t *Transport) end(chid datatransfer.ChannelID) (b begun) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.channels[chid]
	if c == nil {
		return b
	}
	b.queued, b.last = c.queued, c.last
	c.queued, c.opening, c.last = nil, false, noWish
	if !c.live && !c.away {
		delete(t.channels, chid)
	}
	return b
}

// begun is what came of a request that was accepted.
type begun struct {
	queued []datatransfer.Message
	last   wish
	old    graphsync.RequestID
	hadOld bool
}

// accept makes a request the current one of its channel.
func (t *Transport) accept(c *channel, id graphsync.RequestID) (b begun, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return b, errShutDown
	}
	if t.channels[c.id] != c {
		return b, errCleaned
	}
	b.old, b.hadOld, err = t.bind(c.id, id, nil)
	return b, err
}

// takeWishes takes what the application wished for while a request was decided on. With done, what comes now goes to graphsync at once.
func (t *Transport) takeWishes(c *channel, done func(queued int, last wish) bool) (queued []datatransfer.Message, last wish) {
	t.mu.Lock()
	defer t.mu.Unlock()
	queued, last = c.queued, c.last
	c.queued, c.last = nil, noWish
	if done(len(queued), last) {
		c.opening = false
	}
	return queued, last
}

// decided is the end of takeWishes whatever was wished for.
func decided(int, wish) bool { return true }

// process lets the handler decide on a request of graphsync.
func (t *Transport) process(chid datatransfer.ChannelID, request graphsync.RequestData, msg datatransfer.Message) (datatransfer.Message, error) {
	return asked.Decide(t.handler(), chid, t.asks(chid, request, msg))
}

// asks is what a request of graphsync asks for.
func (t *Transport) asks(chid datatransfer.ChannelID, request graphsync.RequestData, msg datatransfer.Message) asked.For {
	f := asked.For{Root: request.Root(), Selector: request.Selector(), Message: msg}
	if ext, ok := request.Extension(graphsync.ExtensionsDoNotSendFirstBlocks); ok {
		f.Has, _ = donotsendfirstblocks.DecodeDoNotSendFirstBlocks(ext)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.channels[chid]
	f.Sending = c != nil && c.sending
	return f
}
