package port

import (
	"context"
	"errors"

	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
)

// The published interfaces are smaller than the contract. What implements one of them alone gets the rest here; what implements the whole
// contract is returned as it is. There is nothing in between: half of a contract is adapted as if it were the published part alone.

var (
	_ Handler   = PlainHandler{}
	_ Transport = plainTransport{}
	_ Manager   = PlainManager{}
)

// HandlerOf makes a handler of what a transport was given.
func HandlerOf(h dt.EventsHandler, t dt.PauseableTransport) Handler {
	if whole, ok := h.(Handler); ok {
		return whole
	}
	return PlainHandler{EventsHandler: h, Pauser: t}
}

// PlainHandler is a published handler with the rest of the contract.
type PlainHandler struct {
	dt.EventsHandler
	Pauser dt.PauseableTransport // pauses for payment; nil does not
}

// CheckRequest implements RequestJudge.
func (PlainHandler) CheckRequest(dt.ChannelID, ipld.Link, ipld.Node) error { return nil }

// OnDataRequest implements RequestJudge.
func (p PlainHandler) OnDataRequest(chid dt.ChannelID, req dt.Request, _ int64) (dt.Response, error) {
	return p.OnRequestReceived(chid, req)
}

// OnDataAsked implements RequestJudge.
func (PlainHandler) OnDataAsked(dt.ChannelID) {}

// MayAskAgain implements Resender.
func (PlainHandler) MayAskAgain(dt.ChannelID, int64) error { return nil }

// AdoptForSending implements Resender.
func (PlainHandler) AdoptForSending(dt.ChannelID) error {
	return errors.New("data is asked for to open, restart or resume a channel: updates go to the running one")
}

// OnBlocksSent implements BatchCounter.
func (p PlainHandler) OnBlocksSent(chid dt.ChannelID, blocks []BlockRef) error {
	var errs []error
	for _, b := range blocks {
		errs = append(errs, p.OnDataSent(chid, cidlink.Link{Cid: b.Cid}, b.Size, b.Index, true))
	}
	return errors.Join(errs...)
}

// TakesBatches implements BatchCounter: a published handler may pause at each block.
func (PlainHandler) TakesBatches(dt.ChannelID) bool { return false }

// OnBlocksReceived implements BatchCounter.
func (p PlainHandler) OnBlocksReceived(chid dt.ChannelID, blocks []BlockRef) error {
	for _, b := range blocks {
		if err := p.OnDataReceived(chid, cidlink.Link{Cid: b.Cid}, b.Size, b.Index, true); err != nil {
			return err
		}
	}
	return nil
}

// ClaimCounts implements ClaimCounter.
func (PlainHandler) ClaimCounts(dt.ChannelID, int64) bool { return false }

// OnBlockClaimed implements ClaimCounter.
func (PlainHandler) OnBlockClaimed(dt.ChannelID, uint64, int64) {}

// Undelivered implements MessageKeeper.
func (PlainHandler) Undelivered(dt.ChannelID, dt.Message) bool { return false }

// OnLateAcceptance implements MessageKeeper.
func (PlainHandler) OnLateAcceptance(dt.ChannelID) {}

// OnAllSent implements MessageKeeper.
func (p PlainHandler) OnAllSent(chid dt.ChannelID) (dt.Message, error) {
	return nil, p.OnChannelCompleted(chid, nil)
}

// Silent implements PauseDecider.
func (PlainHandler) Silent(dt.ChannelID) bool { return false }

// MaySend implements PauseDecider.
func (PlainHandler) MaySend(dt.ChannelID, int64, uint64) (Release, []dt.Message) {
	return ReleaseAsTold, nil
}

// HoldForPayment implements PauseDecider.
func (p PlainHandler) HoldForPayment(ctx context.Context, chid dt.ChannelID) {
	if p.Pauser != nil {
		_ = p.Pauser.PauseChannel(ctx, chid) // one that has ended meanwhile sends nothing
	}
}

// TransportOf makes a transport of what a manager was given.
func TransportOf(t dt.Transport) Transport {
	if whole, ok := t.(Transport); ok {
		return whole
	}
	p, pauses := t.(dt.PauseableTransport)
	return plainTransport{Transport: t, pauseable: p, pauses: pauses}
}

type plainTransport struct {
	dt.Transport
	pauseable dt.PauseableTransport
	pauses    bool
}

// PauseChannel implements dt.PauseableTransport.
func (p plainTransport) PauseChannel(ctx context.Context, chid dt.ChannelID) error {
	if !p.pauses {
		return dt.ErrUnsupported
	}
	return p.pauseable.PauseChannel(ctx, chid)
}

// ResumeChannel implements dt.PauseableTransport.
func (p plainTransport) ResumeChannel(ctx context.Context, msg dt.Message, chid dt.ChannelID) error {
	if !p.pauses {
		return dt.ErrUnsupported
	}
	return p.pauseable.ResumeChannel(ctx, msg, chid)
}

// Traits implements Transport.
func (p plainTransport) Traits() Traits { return Traits{Pauses: p.pauses} }

// PeerAway implements Transport.
func (plainTransport) PeerAway(peer.ID) {}

// Halt implements Transport.
func (p plainTransport) Halt(ctx context.Context, chid dt.ChannelID) error {
	return p.CloseChannel(ctx, chid)
}

// SendControl implements Transport.
func (plainTransport) SendControl(dt.ChannelID, dt.Message) bool { return false }

// UseStore implements ChannelStores.
func (plainTransport) UseStore(dt.ChannelID, ipld.LinkSystem) error { return dt.ErrUnsupported }

// StoreOf implements ChannelStores.
func (plainTransport) StoreOf(dt.ChannelID) (ipld.LinkSystem, bool) { return ipld.LinkSystem{}, false }

// MaxLinks implements ChannelStores.
func (plainTransport) MaxLinks(dt.ChannelID, uint64) {}

// ManagerOf makes a manager of what the market was given.
func ManagerOf(m dt.Manager) Manager {
	if whole, ok := m.(Manager); ok {
		return whole
	}
	return PlainManager{m}
}

// PlainManager is a published manager with the rest of the contract.
type PlainManager struct{ dt.Manager }

// Validator implements Registrar.
func (PlainManager) Validator(dt.Voucher) dt.RequestValidator { return nil }

// SubscribeToProgress implements Registrar.
func (p PlainManager) SubscribeToProgress(s dt.Subscriber) dt.Unsubscribe {
	return p.SubscribeToEvents(s)
}

// Waiting implements SenderControl.
func (PlainManager) Waiting(dt.ChannelID) uint64 { return 0 }

// Suspend implements SenderControl.
func (PlainManager) Suspend(context.Context, dt.ChannelID) error { return nil }

// Unsuspend implements SenderControl.
func (PlainManager) Unsuspend(dt.ChannelID) {}

// Reposition implements RecipientControl.
func (PlainManager) Reposition(context.Context, dt.ChannelID, uint64, int64) error { return nil }

// HasAll implements RecipientControl.
func (PlainManager) HasAll(context.Context, dt.ChannelID) error { return nil }

// KeepBeforeFinish implements RecipientControl.
func (PlainManager) KeepBeforeFinish(func(dt.ChannelID) error) {}

// ConnectTo implements RecipientControl.
func (PlainManager) ConnectTo(context.Context, peer.ID) error { return nil }
