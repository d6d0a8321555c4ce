package retrievalimpl

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/port"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/legacy"
	"github.com/cartage-dev/cartage/shared"
)

// AheadProtocol is listed by Cartage peers: they take vouchers for verified bytes without having asked.
const AheadProtocol = "/cartage/ahead/1.0.0"

// Hub joins a client and a provider to one data-transfer manager: each type of voucher is registered once, and events go
// to the side that they belong to (M-34).
type Hub struct {
	dt       port.Manager
	self     peer.ID
	client   *Client
	provider *Provider
	unsub    dt.Unsubscribe
	ctx      context.Context
	cancel   context.CancelFunc
	sides    atomic.Int32 // that end the hub with the last of them
}

// NewHub registers the market with a manager. Sides are added before the manager starts.
func NewHub(manager dt.Manager, self peer.ID) (*Hub, error) {
	h := &Hub{dt: port.ManagerOf(manager), self: self}
	h.ctx, h.cancel = shared.Lifetime()
	err := errors.Join(
		manager.RegisterVoucherType(&rm.DealProposal{}, h),
		manager.RegisterVoucherType(&legacy.DealProposal0{}, h),
		manager.RegisterRevalidator(&rm.DealPayment{}, h),
		manager.RegisterRevalidator(&legacy.DealPayment0{}, paymentsOnly{h}),
		manager.RegisterVoucherResultType(&rm.DealResponse{}),
		manager.RegisterVoucherResultType(&legacy.DealResponse0{}),
		manager.RegisterTransportConfigurer(&rm.DealProposal{}, h.configure),
		manager.RegisterTransportConfigurer(&legacy.DealProposal0{}, h.configure),
	)
	h.dt.KeepBeforeFinish(h.keepReceived)
	h.unsub = h.dt.SubscribeToProgress(h.event)
	return h, err
}

func (h *Hub) configure(chid dt.ChannelID, v dt.Voucher, transport dt.Transport) {
	p := legacy.Proposal(v)
	if p == nil {
		return
	}
	var ls *ipld.LinkSystem
	switch {
	case chid.Initiator == h.self && h.client != nil:
		ls = h.client.linkSystem(p.ID)
	case chid.Responder == h.self && h.provider != nil:
		ls = h.provider.linkSystem(chid, p.ID)
	}
	if ls != nil {
		_ = port.TransportOf(transport).UseStore(chid, *ls) // without one the channel uses the store of the transport
	}
}

func (h *Hub) event(e dt.Event, s dt.ChannelState) {
	switch chid := s.ChannelID(); {
	case chid.Initiator == h.self && h.client != nil:
		h.client.transferEvent(e, s)
	case chid.Responder == h.self && h.provider != nil:
		h.provider.transferEvent(e, s)
	}
}

var errNoProvider = errors.New("this node does not provide")

// startWait bounds how long a message waits for a provider that takes up its stored deals.
const startWait = 10 * time.Second

// awaitProvider lets messages that come while the provider starts wait for its deals instead of meeting none.
func (h *Hub) awaitProvider() error {
	if h.provider == nil {
		return errNoProvider
	}
	if h.provider.ready.Ready() == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(h.ctx, startWait)
	defer cancel()
	return h.provider.ready.AwaitReady(ctx)
}

// Close ends the subscription to the manager's events and what waits for a start.
func (h *Hub) Close() {
	h.cancel()
	h.unsub()
}

// join counts a side that leaves when it stops.
func (h *Hub) join() { h.sides.Add(1) }

// leave closes the hub after its last side.
func (h *Hub) leave() {
	if h.sides.Add(-1) == 0 {
		h.Close()
	}
}

// ValidatePush implements datatransfer.RequestValidator.
func (h *Hub) ValidatePush(bool, dt.ChannelID, peer.ID, dt.Voucher, cid.Cid, ipld.Node) (dt.VoucherResult, error) {
	return nil, errors.New("No pushes accepted")
}

// ValidatePull implements datatransfer.RequestValidator.
func (h *Hub) ValidatePull(restart bool, chid dt.ChannelID, receiver peer.ID, v dt.Voucher, base cid.Cid, sel ipld.Node) (dt.VoucherResult, error) {
	if err := h.awaitProvider(); err != nil {
		return nil, err
	}
	r, err := h.provider.validate(h.provider.ctx, restart, chid, receiver, v, base, sel)
	return legacy.ResponseOf(r, legacy.Is(v)), err
}

// keepReceived puts what came on a channel of the client on stable storage.
func (h *Hub) keepReceived(chid dt.ChannelID) error {
	if h.client == nil || chid.Initiator != h.self {
		return nil
	}
	s, err := h.dt.ChannelState(h.ctx, chid)
	if err != nil {
		return err
	}
	cd := h.client.dealOf(s)
	if cd == nil {
		return nil
	}
	cd.mu.Lock()
	target, _ := cd.target.(FinishedTarget)
	cd.mu.Unlock()
	if target == nil {
		return nil
	}
	return target.Finish()
}

// Limit implements datatransfer.Limiter.
func (h *Hub) Limit(chid dt.ChannelID) (uint64, bool) {
	if h.awaitProvider() != nil {
		return 0, true
	}
	return h.provider.limit(chid), true
}

// LimitIsExact implements port.ExactLimiter.
func (h *Hub) LimitIsExact(chid dt.ChannelID) bool {
	return h.awaitProvider() == nil && h.provider.limitIsExact(chid)
}

// Revalidate implements datatransfer.Revalidator.
func (h *Hub) Revalidate(chid dt.ChannelID, v dt.Voucher) (dt.VoucherResult, error) {
	if err := h.awaitProvider(); err != nil {
		return nil, err
	}
	r, err := h.provider.revalidate(h.provider.ctx, chid, v)
	return legacy.ResponseOf(r, legacy.Is(v)), err
}

// OnPullDataSent implements datatransfer.Revalidator.
func (h *Hub) OnPullDataSent(chid dt.ChannelID, _ uint64) (bool, dt.VoucherResult, error) {
	if h.awaitProvider() != nil {
		return false, nil, nil
	}
	return h.provider.limitReached(chid)
}

// OnPushDataReceived implements datatransfer.Revalidator.
func (h *Hub) OnPushDataReceived(dt.ChannelID, uint64) (bool, dt.VoucherResult, error) {
	return false, nil, nil
}

// OnComplete implements datatransfer.Revalidator.
func (h *Hub) OnComplete(chid dt.ChannelID) (bool, dt.VoucherResult, error) {
	if h.awaitProvider() != nil {
		return false, nil, nil
	}
	return h.provider.allSent(chid)
}

// paymentsOnly takes payments of the first generation: what the channels do is told to the hub already.
type paymentsOnly struct{ *Hub }

// OnPullDataSent implements datatransfer.Revalidator.
func (paymentsOnly) OnPullDataSent(dt.ChannelID, uint64) (bool, dt.VoucherResult, error) {
	return false, nil, nil
}

// OnComplete implements datatransfer.Revalidator.
func (paymentsOnly) OnComplete(dt.ChannelID) (bool, dt.VoucherResult, error) {
	return false, nil, nil
}

// BeforeRestart prepares the restart of a channel; the channel monitor calls it.
func (h *Hub) BeforeRestart(ctx context.Context, chid dt.ChannelID) error {
	if h.client == nil || chid.Initiator != h.self {
		return nil
	}
	return h.client.prepareRestart(ctx, chid)
}
