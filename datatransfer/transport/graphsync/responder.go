package graphsync

import (
	"context"
	"errors"

	"github.com/ipfs/go-graphsync"
	"github.com/ipfs/go-graphsync/donotsendfirstblocks"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/transport/asked"
	"github.com/cartage-dev/cartage/datatransfer/transport/graphsync/extension"
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
	chid := asked.Channel(t.self, p, msg)
	resp, b, err := t.decide(chid, request, msg)
	if resp != nil {
		exts, xerr := extension.ToExtensionData(resp, incomingExtensions)
		if xerr != nil {
			err = xerr
		}
		for _, e := range exts {
			ha.SendExtensionData(e)
		}
	}
	paused := errors.Is(err, datatransfer.ErrPause)
	if err != nil && !paused {
		ha.TerminateWithError(err)
		return
	}
	if b.hadOld {
		t.background(func(ctx context.Context) { t.log(chid, t.cancelRequest(ctx, b.old)) })
	}
	if paused && !b.resume || asked.Silent(t.handler(), chid, msg) {
		ha.PauseResponse()
	}
	for _, m := range b.queued {
		if exts, err := extension.ToExtensionData(m, t.supported); err == nil {
			ha.SendExtensionData(exts[0])
		}
	}
	ha.AugmentContext(t.handler().OnContextAugment(chid))
	t.furnish(chid, ha)
	ha.ValidateRequest()
}

// decide lets the handler decide on a request and makes it the current one of its channel if it is accepted. A channel whose earlier
// request completed meanwhile was cleaned up: what it is served from is chosen anew.
func (t *Transport) decide(chid datatransfer.ChannelID, request graphsync.RequestData, msg datatransfer.Message) (resp datatransfer.Message, b begun, err error) {
	for again := true; ; again = false {
		c := t.begin(chid)
		resp, err = t.process(chid, request, msg)
		if errors.Is(err, datatransfer.ErrResume) {
			err = nil
		}
		if err != nil && !errors.Is(err, datatransfer.ErrPause) {
			t.end(chid)
			return resp, b, err
		}
		asked.Tell(t.handler(), chid)
		t.bound(chid)
		var refused error
		if b, refused = t.accept(c, request.ID()); errors.Is(refused, errCleaned) && again {
			continue
		}
		if refused != nil {
			err = refused
		}
		return resp, b, err
	}
}

var errCleaned = errors.New("the channel ended meanwhile")

// begin notes that a request of chid is being decided on, so that a resume by the application meets it; end takes what
// was asked for in the meantime, and forgets a channel that was not accepted.
func (t *Transport) begin(chid datatransfer.ChannelID) *channel {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.channels[chid]
	if c == nil {
		c = &channel{id: chid}
		t.channels[chid] = c
	}
	c.opening, c.resume = true, false
	return c
}

func (t *Transport) end(chid datatransfer.ChannelID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.channels[chid]
	if c == nil {
		return
	}
	c.queued, c.opening, c.resume = nil, false, false
	if !c.live && !c.away {
		delete(t.channels, chid)
	}
}

// begun is what came of a request that was accepted.
type begun struct {
	queued []datatransfer.Message
	resume bool
	old    graphsync.RequestID
	hadOld bool
}

// accept makes a request the current one of its channel, in one step with taking what was asked for while it was decided on.
func (t *Transport) accept(c *channel, id graphsync.RequestID) (b begun, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.channels[c.id] != c {
		return b, errCleaned
	}
	b.queued, b.resume = c.queued, c.resume
	c.queued, c.opening, c.resume = nil, false, false
	b.old, b.hadOld, err = t.bind(c.id, id, nil)
	return b, err
}

// process lets the handler decide on a request of graphsync.
func (t *Transport) process(chid datatransfer.ChannelID, request graphsync.RequestData, msg datatransfer.Message) (datatransfer.Message, error) {
	f := asked.For{Root: request.Root(), Selector: request.Selector(), Message: msg}
	if ext, ok := request.Extension(graphsync.ExtensionsDoNotSendFirstBlocks); ok {
		f.Has, _ = donotsendfirstblocks.DecodeDoNotSendFirstBlocks(ext)
	}
	t.mu.Lock()
	c := t.channels[chid]
	f.Sending = c != nil && c.sending
	t.mu.Unlock()
	return asked.Decide(t.handler(), chid, f)
}
