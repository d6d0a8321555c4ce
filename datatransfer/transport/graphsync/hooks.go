package graphsync

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-graphsync"
	"github.com/ipfs/go-graphsync/donotsendfirstblocks"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/transport/graphsync/extension"
	"github.com/cartage-dev/cartage/shared"
)

func (t *Transport) registerHooks() {
	gs := t.gs
	t.unregister = []graphsync.UnregisterHookFunc{
		gs.RegisterIncomingRequestHook(t.incomingRequest),
		gs.RegisterOutgoingRequestHook(t.outgoingRequest),
		gs.RegisterIncomingResponseHook(t.incomingResponse),
		gs.RegisterIncomingBlockHook(t.incomingBlock),
		gs.RegisterOutgoingBlockHook(t.outgoingBlock),
		gs.RegisterBlockSentListener(t.blockSent),
		gs.RegisterRequestUpdatedHook(t.requestUpdated),
		gs.RegisterCompletedResponseListener(t.responseCompleted),
		gs.RegisterRequestorCancelledListener(t.requesterCancelled),
		gs.RegisterNetworkErrorListener(t.sendError),
		gs.RegisterReceiverNetworkErrorListener(t.receiveError),
	}
}

func (t *Transport) outgoingRequest(p peer.ID, request graphsync.RequestData, ha graphsync.OutgoingRequestHookActions) {
	chid, ok := t.of(request.ID())
	if !ok {
		return
	}
	if err := t.handler().OnChannelOpened(chid); err != nil {
		t.log(chid, err)
		t.abandon(chid, request.ID())
		return
	}
	if name, ok := t.storeOf(chid); ok {
		ha.UsePersistenceOption(name)
	}
	if n := t.maxLinks(chid); n > 0 {
		ha.MaxLinks(n)
	}
}

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
	if name, ok := t.storeOf(chid); ok {
		ha.UsePersistenceOption(name)
	}
	if n := t.maxLinks(chid); n > 0 {
		ha.MaxLinks(n)
	}
	ha.ValidateRequest()
}

func (t *Transport) process(chid datatransfer.ChannelID, request graphsync.RequestData, msg datatransfer.Message) (datatransfer.Message, error) {
	switch m := msg.(type) {
	case datatransfer.Request:
		err := checkRequest(request, m)
		if !m.IsNew() && !m.IsRestart() {
			err = t.checkResumed(chid, request)
			if err == nil && !m.IsUpdate() {
				err = errors.New("only an update comes with the request of a recipient that goes on")
			}
		}
		if err != nil {
			return nil, err
		}
		t.tellPosition(chid, request, m)
		resp, err := t.handler().OnRequestReceived(chid, m)
		if m.IsNew() && (err == nil || errors.Is(err, datatransfer.ErrPause)) {
			t.tellPosition(chid, request, m)
			t.handler().OnTransferQueued(chid)
		}
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

// tellPosition passes on how many blocks a requester that restarts has.
func (t *Transport) tellPosition(chid datatransfer.ChannelID, request graphsync.RequestData, m datatransfer.Request) {
	h, ok := t.handler().(interface {
		OnRestartPosition(datatransfer.ChannelID, int64)
	})
	if !ok {
		return
	}
	n := int64(0)
	if ext, has := request.Extension(graphsync.ExtensionsDoNotSendFirstBlocks); has {
		n, _ = donotsendfirstblocks.DecodeDoNotSendFirstBlocks(ext)
	}
	h.OnRestartPosition(chid, n)
}

// checkResumed lets a requester go on after its own pause: a request comes again, with another message in the place of the
// one that opened the channel. That message names no root and no selector, so those of the channel count.
func (t *Transport) checkResumed(chid datatransfer.ChannelID, request graphsync.RequestData) error {
	t.mu.Lock()
	c := t.channels[chid]
	known := c != nil && c.sending
	t.mu.Unlock()
	if !known {
		return errors.New("a graphsync request opens, restarts or resumes a channel: updates go to the running request")
	}
	return t.checkChannel(chid, request)
}

// checkChannel compares what graphsync is asked for with the channel that it names.
func (t *Transport) checkChannel(chid datatransfer.ChannelID, request graphsync.RequestData) error {
	c, ok := t.handler().(ChannelChecker)
	if !ok {
		return nil
	}
	return c.CheckRequest(chid, cidlink.Link{Cid: request.Root()}, request.Selector())
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

func (t *Transport) incomingResponse(p peer.ID, response graphsync.ResponseData, ha graphsync.IncomingResponseHookActions) {
	chid, ok := t.of(response.RequestID())
	if !ok {
		return
	}
	if !t.from(p, chid) {
		return
	}
	t.reached(chid)
	for _, msg := range t.messages(response) {
		var answer datatransfer.Message
		var err error
		switch m := msg.(type) {
		case datatransfer.Response:
			err = t.handler().OnResponseReceived(chid, m)
		case datatransfer.Request:
			var resp datatransfer.Response
			if resp, err = t.handler().OnRequestReceived(chid, m); resp != nil {
				answer = resp
			}
		}
		if answer != nil {
			if exts, xerr := extension.ToExtensionData(answer, t.supported); xerr == nil {
				ha.UpdateRequestWithExtensions(exts...)
			}
		}
		switch {
		case errors.Is(err, datatransfer.ErrPause):
			t.hold(chid)
		case errors.Is(err, datatransfer.ErrResume): // says that this side need not wait for the other any more: it does not
		case err != nil:
			ha.TerminateWithError(err)
			return
		}
	}
}

// messages are those of a graphsync response: what a request hook answered, what a block hook caused, or the plain one,
// which is left out when it stands again under another name.
func (t *Transport) messages(response graphsync.ResponseData) []datatransfer.Message {
	var out []datatransfer.Message
	var seen []datamodel.Node
	for _, name := range []graphsync.ExtensionName{extension.ExtensionIncomingRequest1_1, extension.ExtensionOutgoingBlock1_1, extension.ExtensionDataTransfer1_1} {
		n, ok := response.Extension(name)
		if !ok {
			continue
		}
		dup := false
		for _, s := range seen {
			dup = dup || shared.SameNode(s, n)
		}
		if dup {
			continue
		}
		seen = append(seen, n)
		if m, err := extension.GetTransferData(response, []graphsync.ExtensionName{name}); err == nil && m != nil {
			out = append(out, m)
		}
	}
	return out
}

func (t *Transport) incomingBlock(p peer.ID, response graphsync.ResponseData, block graphsync.BlockData, ha graphsync.IncomingBlockHookActions) {
	chid, ok := t.of(response.RequestID())
	if !ok {
		return
	}
	t.moved(chid, block.Index())
	err := t.handler().OnDataReceived(chid, block.Link(), block.BlockSize(), block.Index(), block.BlockSizeOnWire() != 0)
	switch {
	case errors.Is(err, datatransfer.ErrPause):
		t.holdHere(chid)
		ha.TerminateWithError(errHeld)
	case err != nil:
		ha.TerminateWithError(err)
	}
}

// moved notes how far the blocks of a requester have come.
func (t *Transport) moved(chid datatransfer.ChannelID, index int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.channels[chid]; c != nil {
		c.position = max(c.position, index)
	}
}

func (t *Transport) outgoingBlock(p peer.ID, request graphsync.RequestData, block graphsync.BlockData, ha graphsync.OutgoingBlockHookActions) {
	if block.BlockSizeOnWire() == 0 {
		return
	}
	chid, ok := t.of(request.ID())
	if !ok {
		t.stale(request, ha)
		return
	}
	msg, err := t.handler().OnDataQueued(chid, block.Link(), block.BlockSize(), block.Index(), true)
	if msg != nil {
		exts, xerr := extension.ToExtensionData(msg, blockExtensions)
		if xerr != nil {
			ha.TerminateWithError(xerr)
			return
		}
		for _, e := range exts {
			ha.SendExtensionData(e)
		}
	}
	switch {
	case errors.Is(err, datatransfer.ErrPause):
		ha.PauseResponse()
	case err != nil:
		ha.TerminateWithError(err)
	}
}

// stale ends a response to an earlier request of a channel: nobody counts what it sends. It is paused and then cancelled: a
// failure would reach the requester over a new connection and end the channel there.
func (t *Transport) stale(request graphsync.RequestData, ha graphsync.OutgoingBlockHookActions) {
	if msg, err := extension.GetTransferData(request, t.supported); err != nil || msg == nil {
		return // not a request of data transfer
	}
	ha.PauseResponse()
	t.background(func(ctx context.Context) { _ = t.cancelRequest(ctx, request.ID()) })
}

func (t *Transport) blockSent(p peer.ID, request graphsync.RequestData, block graphsync.BlockData) {
	if block.BlockSizeOnWire() == 0 {
		return
	}
	if chid, ok := t.of(request.ID()); ok {
		t.log(chid, t.handler().OnDataSent(chid, block.Link(), block.BlockSize(), block.Index(), true))
	}
}

func (t *Transport) requestUpdated(p peer.ID, request graphsync.RequestData, update graphsync.RequestData, ha graphsync.RequestUpdatedHookActions) {
	chid, ok := t.of(request.ID())
	if !ok || !t.from(p, chid) {
		return
	}
	msg, err := extension.GetTransferData(update, t.supported)
	if err != nil || msg == nil {
		if err != nil {
			ha.TerminateWithError(err)
		}
		return
	}
	var resp datatransfer.Message
	switch m := msg.(type) {
	case datatransfer.Request:
		if chid.Initiator != p {
			ha.TerminateWithError(errors.New("received request on response channel"))
			return
		}
		var r datatransfer.Response
		if r, err = t.handler().OnRequestReceived(chid, m); r != nil {
			resp = r
		}
	case datatransfer.Response:
		if chid.Initiator != t.self {
			ha.TerminateWithError(errors.New("received response on request channel"))
			return
		}
		err = t.handler().OnResponseReceived(chid, m)
	}
	if resp != nil {
		if exts, xerr := extension.ToExtensionData(resp, t.supported); xerr == nil {
			ha.SendExtensionData(exts[0])
		}
	}
	switch {
	case err == nil || errors.Is(err, datatransfer.ErrResume):
	case errors.Is(err, datatransfer.ErrPause):
		if r, ok := msg.(datatransfer.Request); ok && r.IsVoucher() {
			t.background(func(ctx context.Context) { t.log(chid, t.PauseChannel(ctx, chid)) })
		}
	default:
		ha.TerminateWithError(err)
	}
}
