package graphsync

import (
	"context"
	"errors"

	"github.com/ipfs/go-graphsync"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/transport/graphsync/extension"
	"github.com/cartage-dev/cartage/internal/port"
	"github.com/cartage-dev/cartage/internal/reason"
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
	t.furnish(chid, ha)
}

// requestActions are what incoming and outgoing requests of graphsync have in common.
type requestActions interface {
	UsePersistenceOption(name string)
	MaxLinks(uint64)
}

// furnish gives a request of a channel its store and its bound.
func (t *Transport) furnish(chid datatransfer.ChannelID, ha requestActions) {
	if name, ok := t.storeOf(chid); ok {
		ha.UsePersistenceOption(name)
	}
	if n := t.maxLinks(chid); n > 0 {
		ha.MaxLinks(n)
	}
}

func (t *Transport) incomingResponse(p peer.ID, response graphsync.ResponseData, ha graphsync.IncomingResponseHookActions) {
	chid, ok := t.of(response.RequestID())
	if !ok {
		t.lateAcceptance(p, response)
		return
	}
	if chid.OtherParty(t.self) != p {
		return
	}
	t.reached(chid)
	msgs, err := t.messages(response)
	if err != nil {
		ha.TerminateWithError(err)
		return
	}
	for _, msg := range msgs {
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

// lateAcceptance passes on that a peer accepts a channel whose request has ended here: it has to hear that.
func (t *Transport) lateAcceptance(p peer.ID, response graphsync.ResponseData) {
	msgs, _ := t.messages(response) // nothing is left to end
	for _, m := range msgs {
		if r, ok := m.(datatransfer.Response); ok && r.IsNew() && r.Accepted() {
			t.handler().OnLateAcceptance(datatransfer.ChannelID{Initiator: t.self, Responder: p, ID: r.TransferID()})
		}
	}
}

// messages are those of a graphsync response: what a request hook answered, what a block hook caused, or the plain one,
// which is left out when it stands again under another name.
func (t *Transport) messages(response graphsync.ResponseData) (out []datatransfer.Message, err error) {
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
		m, err := extension.GetTransferData(response, []graphsync.ExtensionName{name})
		if err != nil {
			return nil, reason.PeerClaims.Errorf("extension %s of a graphsync response is no message of data transfer: %w", name, err)
		}
		if m != nil {
			out = append(out, m)
		}
	}
	return out, nil
}

func (t *Transport) incomingBlock(p peer.ID, response graphsync.ResponseData, block graphsync.BlockData, ha graphsync.IncomingBlockHookActions) {
	chid, ok := t.of(response.RequestID())
	if !ok {
		return
	}
	if err := errors.Join(t.checkLinks(response.RequestID(), block, 1), t.checkDepth(chid, maxPath)); err != nil {
		ha.TerminateWithError(err)
		return
	}
	t.onChannel(chid, func(c *channel) { c.position = max(c.position, block.Index()) })
	if l, ok := block.Link().(cidlink.Link); ok && block.BlockSizeOnWire() != 0 {
		t.taken(response.RequestID(), l.Cid)
	}
	err := t.handler().OnDataReceived(chid, block.Link(), block.BlockSize(), block.Index(), block.BlockSizeOnWire() != 0)
	switch {
	case errors.Is(err, datatransfer.ErrPause):
		t.holdHere(chid)
		ha.TerminateWithError(errHeld)
	case err != nil:
		ha.TerminateWithError(err)
	}
}

func (t *Transport) outgoingBlock(p peer.ID, request graphsync.RequestData, block graphsync.BlockData, ha graphsync.OutgoingBlockHookActions) {
	if err := t.checkFollowed(request, block); err != nil {
		t.refuseToWalk(request.ID(), err, ha)
		return
	}
	if block.BlockSizeOnWire() == 0 {
		t.leftOut(request, block, ha)
		return
	}
	chid, ok := t.of(request.ID())
	if !ok {
		t.stale(request, ha)
		return
	}
	if err := t.checkDepth(chid, senderPath); err != nil {
		t.refuseToWalk(request.ID(), err, ha)
		return
	}
	t.beginAsking(chid, request.ID())
	msg, err := t.handler().OnDataQueued(chid, block.Link(), block.BlockSize(), block.Index(), true)
	pause := errors.Is(err, datatransfer.ErrPause)
	var say []datatransfer.Message
	if msg != nil {
		say = append(say, msg)
	}
	if pause {
		may, more := t.release(chid, block.Index()+1)
		pause, say = may != port.ReleaseNow, append(say, more...)
	}
	pause = t.endAsking(chid, request.ID(), pause)
	t.onChannel(chid, func(c *channel) { say = append(c.takeBeside(request.ID()), say...) })
	if !sayWithBlock(say, ha) {
		return
	}
	switch {
	case pause:
		ha.PauseResponse()
	case err != nil && !errors.Is(err, datatransfer.ErrPause):
		ha.TerminateWithError(err)
	}
}

// sayWithBlock sends messages beside a block.
func sayWithBlock(say []datatransfer.Message, ha graphsync.OutgoingBlockHookActions) bool {
	for _, m := range say {
		exts, err := extension.ToExtensionData(m, blockExtensions)
		if err != nil {
			ha.TerminateWithError(err)
			return false
		}
		for _, e := range exts {
			ha.SendExtensionData(e)
		}
	}
	return true
}

// beginAsking notes that the handler decides on the next block of a response: a resume that comes meanwhile waits for what it says.
func (t *Transport) beginAsking(chid datatransfer.ChannelID, id graphsync.RequestID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.channels[chid]; c != nil && c.current == id {
		c.asking = true
	}
}

// endAsking notes what the handler said, and returns whether the response pauses.
func (t *Transport) endAsking(chid datatransfer.ChannelID, id graphsync.RequestID, pause bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.channels[chid]
	if c == nil || c.current != id {
		return pause
	}
	c.asking = false
	if pause = pause || c.holding; pause {
		c.pauses++
	}
	return pause
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
	if !ok || chid.OtherParty(t.self) != p {
		return
	}
	msg, err := extension.GetTransferData(update, t.supported)
	if err != nil || msg == nil {
		if err != nil {
			ha.TerminateWithError(err)
		}
		return
	}
	defer t.takesUpdate(chid)()
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
			t.background(func(ctx context.Context) { t.handler().HoldForPayment(ctx, chid) })
		}
	default:
		ha.TerminateWithError(err)
	}
}
