package graphsync

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-graphsync"
	"github.com/ipfs/go-graphsync/donotsendfirstblocks"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/transport/graphsync/extension"
	"github.com/cartage-dev/cartage/shared"
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
	chid := datatransfer.ChannelID{Initiator: t.self, Responder: p, ID: msg.TransferID()}
	if msg.IsRequest() {
		chid = datatransfer.ChannelID{Initiator: p, Responder: t.self, ID: msg.TransferID()}
	}
	t.begin(chid)
	resp, err := t.process(chid, request, msg)
	if errors.Is(err, datatransfer.ErrResume) {
		err = nil
	}
	paused := errors.Is(err, datatransfer.ErrPause)
	if err != nil && !paused {
		t.end(chid)
	}
	if resp != nil {
		exts, xerr := extension.ToExtensionData(resp, incomingExtensions)
		if xerr != nil {
			t.end(chid)
			ha.TerminateWithError(xerr)
			return
		}
		for _, e := range exts {
			ha.SendExtensionData(e)
		}
	}
	if err != nil && !paused {
		ha.TerminateWithError(err)
		return
	}
	if h, ok := t.handler().(interface{ OnDataAsked(datatransfer.ChannelID) }); ok {
		h.OnDataAsked(chid)
	}
	b, terr := t.accept(chid, request.ID())
	if terr != nil {
		ha.TerminateWithError(terr)
		return
	}
	if b.hadOld {
		t.background(func(ctx context.Context) { t.log(chid, t.cancelRequest(ctx, b.old)) })
	}
	if paused && !b.resume || t.silent(chid, msg) {
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

// begin notes that a request of chid is being decided on, so that a resume by the application meets it; end takes what
// was asked for in the meantime, and forgets a channel that was not accepted.
func (t *Transport) begin(chid datatransfer.ChannelID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.channels[chid]
	if c == nil {
		c = &channel{id: chid}
		t.channels[chid] = c
	}
	c.opening, c.resume = true, false
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
func (t *Transport) accept(chid datatransfer.ChannelID, id graphsync.RequestID) (b begun, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.channels[chid]; c != nil {
		b.queued, b.resume = c.queued, c.resume
		c.queued, c.opening, c.resume = nil, false, false
	}
	b.old, b.hadOld, err = t.bind(chid, id, nil)
	return b, err
}

func (t *Transport) process(chid datatransfer.ChannelID, request graphsync.RequestData, msg datatransfer.Message) (datatransfer.Message, error) {
	switch m := msg.(type) {
	case datatransfer.Request:
		if err := t.checkAsked(chid, request, m); err != nil {
			return nil, err
		}
		resp, err := t.requested(chid, request, m)
		if resp == nil {
			return nil, err
		}
		return resp, err
	case datatransfer.Response:
		var err error
		if m.IsNew() || m.IsRestart() {
			err = t.checkChannel(chid, request)
		} else {
			err = t.checkResumed(chid, request)
		}
		if err != nil {
			return nil, err
		}
		if m.IsNew() {
			t.handler().OnTransferQueued(chid)
		}
		return nil, t.handler().OnResponseReceived(chid, m)
	}
	return nil, fmt.Errorf("message of unknown kind %T", msg)
}

// requested lets the handler decide on a request.
func (t *Transport) requested(chid datatransfer.ChannelID, request graphsync.RequestData, m datatransfer.Request) (datatransfer.Response, error) {
	has := int64(0)
	if ext, ok := request.Extension(graphsync.ExtensionsDoNotSendFirstBlocks); ok {
		has, _ = donotsendfirstblocks.DecodeDoNotSendFirstBlocks(ext)
	}
	if !m.IsNew() {
		t.tellPosition(chid, has)
	}
	resp, err := t.handler().OnRequestReceived(chid, m)
	if m.IsNew() && (err == nil || errors.Is(err, datatransfer.ErrPause)) {
		t.tellPosition(chid, has)
		t.handler().OnTransferQueued(chid)
	}
	return resp, err
}

// tellPosition passes on how many blocks a requester says that it has.
func (t *Transport) tellPosition(chid datatransfer.ChannelID, has int64) {
	if h, ok := t.handler().(interface {
		OnRestartPosition(datatransfer.ChannelID, int64)
	}); ok {
		h.OnRestartPosition(chid, has)
	}
}

// checkResumed lets a requester go on after its own pause: a request comes again, with another message in the place of the
// one that opened the channel. That message names no root and no selector, so those of the channel count. A sender that was
// started again meanwhile takes the channel up from its store.
func (t *Transport) checkResumed(chid datatransfer.ChannelID, request graphsync.RequestData) error {
	t.mu.Lock()
	c := t.channels[chid]
	known := c != nil && c.sending
	t.mu.Unlock()
	if err := t.checkChannel(chid, request); err != nil || known {
		return err
	}
	if h, ok := t.handler().(interface {
		TakeUp(datatransfer.ChannelID) error
	}); ok {
		return h.TakeUp(chid)
	}
	return errors.New("a graphsync request opens, restarts or resumes a channel: updates go to the running request")
}

// checkChannel compares what graphsync is asked for with the channel that it names.
func (t *Transport) checkChannel(chid datatransfer.ChannelID, request graphsync.RequestData) error {
	c, ok := t.handler().(ChannelChecker)
	if !ok {
		return nil
	}
	return c.CheckRequest(chid, cidlink.Link{Cid: request.Root()}, request.Selector())
}

// checkAsked compares what graphsync is asked for with what its message is about.
func (t *Transport) checkAsked(chid datatransfer.ChannelID, request graphsync.RequestData, m datatransfer.Request) error {
	if m.IsNew() || m.IsRestart() {
		return checkRequest(request, m)
	}
	if !m.IsUpdate() {
		return errors.New("only an update comes with the request of a recipient that goes on")
	}
	return t.checkResumed(chid, request)
}

// checkRequest compares what graphsync is asked for with what the voucher is about.
func checkRequest(request graphsync.RequestData, m datatransfer.Request) error {
	if !m.IsPull() {
		return errors.New("a push request cannot arrive as a graphsync request")
	}
	if !m.BaseCid().Equals(request.Root()) {
		return fmt.Errorf("graphsync root %s is not the base CID %s of the request", request.Root(), m.BaseCid())
	}
	sel, err := m.Selector()
	if err != nil {
		return err
	}
	if !shared.SameNode(sel, request.Selector()) {
		return errors.New("graphsync selector is not the selector of the request")
	}
	return nil
}
