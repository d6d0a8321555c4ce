package retrievalimpl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/internal/limits"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/askstore"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/providerstates"
	"github.com/cartage-dev/cartage/retrievalmarket/legacy"
	"github.com/cartage-dev/cartage/shared"
)

// refusal is an answer that no deal is made for.
type refusal struct {
	status rm.DealStatus
	reason string
}

func (r *refusal) Error() string { return r.reason }

func refuse(s rm.DealStatus, format string, args ...any) error {
	return &refusal{s, fmt.Sprintf(format, args...)}
}

// validate checks a proposal and, if it is good, starts to track a deal (4.6).
func (p *Provider) validate(ctx context.Context, restart bool, chid dt.ChannelID, receiver peer.ID, v dt.Voucher, base cid.Cid, sel ipld.Node) (*rm.DealResponse, error) {
	if err := p.ready.Ready(); err != nil {
		return nil, err
	}
	prop := legacy.Proposal(v)
	if prop == nil || p.cfg.LegacyOnly && !legacy.Is(v) {
		return nil, errors.New("wrong voucher type")
	}
	if !prop.PayloadCID.Equals(base) {
		return nil, errors.New("incorrect CID for this proposal")
	}
	if prop.Selector != nil && len(prop.Selector.Raw) > limits.MaxSelector { // M-42, D22
		if p.cfg.SelectorOver != nil {
			p.cfg.SelectorOver()
		}
		return nil, fmt.Errorf("selector of %d bytes is above the limit of %d", len(prop.Selector.Raw), limits.MaxSelector)
	}
	want, err := prop.SelectorNode()
	if err != nil || !shared.SameNode(want, sel) {
		return nil, errors.New("incorrect selector for this proposal")
	}
	if restart {
		return p.validateRestart(ctx, chid, receiver, prop)
	}
	resp := &rm.DealResponse{ID: prop.ID, PaymentOwed: big.Zero(), Status: rm.DealStatusAccepted}
	demand, err := p.begin(ctx, chid, receiver, *prop, legacy.Is(v))
	if errors.Is(err, errDuplicate) {
		return nil, err
	} else if err != nil {
		var r *refusal
		if !errors.As(err, &r) {
			r = &refusal{rm.DealStatusErrored, p.ownFault("failed to begin the deal", err)}
		}
		resp.Status, resp.Message = r.status, r.reason
		return resp, err
	}
	if demand.Demand != accounting.DemandNothing { // before the first byte
		resp.Status, resp.PaymentOwed = rm.DealStatusFundsNeededUnseal, demand.Owed(big.Zero())
	}
	return resp, dt.ErrPause
}

// validateRestart lets a running deal go on, and says again where it stands: the client may have lost what it was told.
func (p *Provider) validateRestart(ctx context.Context, chid dt.ChannelID, receiver peer.ID, prop *rm.DealProposal) (*rm.DealResponse, error) {
	p.mu.Lock()
	pd := p.deals[rm.ProviderDealIdentifier{Receiver: receiver, DealID: prop.ID}]
	bound := pd != nil && p.byChan[chid] == pd
	p.mu.Unlock()
	if !bound {
		pd = p.orphan(chid, rm.ProviderDealState{DealProposal: *prop, Receiver: receiver})
		if pd == nil {
			return nil, fmt.Errorf("deal %s: %w", prop.ID, rm.ErrNotFound)
		}
		if err := pd.machine.Send(rm.ProviderEventDealAccepted, chid); err != nil {
			return nil, err
		}
	}
	pd.hear()
	state, _ := pd.machine.State()
	owed := p.stillOwed(ctx, pd, chid, "")
	sent := p.sent(ctx, chid)
	pd.mu.Lock()
	defer pd.mu.Unlock()
	v := p.verdict(pd, &state, sent)
	accepted := &rm.DealResponse{ID: prop.ID, Status: rm.DealStatusAccepted, PaymentOwed: big.Zero()}
	switch {
	case owed.Status == rm.DealStatusFundsNeededUnseal:
		return owed, dt.ErrPause
	case !pd.unsealed:
		return accepted, dt.ErrPause
	case v.Demand != accounting.DemandNothing:
		return owed, nil // whether anything may go out is for the credit of the channel to say
	}
	return accepted, nil
}

func checkTerms(prop *rm.DealProposal, ask *rm.Ask) error {
	if askstore.Check(&rm.Ask{PricePerByte: prop.PricePerByte, UnsealPrice: prop.UnsealPrice, PaymentInterval: prop.PaymentInterval,
		PaymentIntervalIncrease: prop.PaymentIntervalIncrease}) != nil {
		if !prop.PricePerByte.Nil() && prop.PricePerByte.Sign() > 0 && prop.PaymentInterval == 0 {
			return refuse(rm.DealStatusRejected, "Payment interval too small")
		}
		return refuse(rm.DealStatusRejected, "invalid deal parameters")
	}
	switch {
	case prop.PricePerByte.LessThan(ask.PricePerByte):
		return refuse(rm.DealStatusRejected, "Price per byte too low")
	case prop.PaymentInterval > ask.PaymentInterval:
		return refuse(rm.DealStatusRejected, "Payment interval too large")
	case prop.PaymentIntervalIncrease > ask.PaymentIntervalIncrease:
		return refuse(rm.DealStatusRejected, "Payment interval increase too large")
	case prop.UnsealPrice.LessThan(ask.UnsealPrice):
		return refuse(rm.DealStatusRejected, "Unseal price too small")
	case prop.PricePerByte.Sign() > 0 && prop.PaymentInterval < min(64<<10, ask.PaymentInterval):
		return refuse(rm.DealStatusRejected, "Payment interval too small")
	}
	return nil
}

// begin accepts a proposal: nothing is kept of a refused one.
func (p *Provider) begin(ctx context.Context, chid dt.ChannelID, receiver peer.ID, prop rm.DealProposal, first bool) (demand accounting.Verdict, err error) {
	ask := p.GetAsk()
	if p.cfg.Pricing == nil {
		if ask, err = p.quotes.check(receiver, &prop, ask); err != nil {
			return demand, err
		}
	}
	if priced(prop.PricePerByte, prop.UnsealPrice) {
		if why := p.whyFreeOnly(ctx); why != "" {
			return demand, refuse(rm.DealStatusRejected, "%s", why)
		}
	}
	if why := p.unable(); why != "" {
		return demand, refuse(rm.DealStatusRejected, "%s", why)
	}
	state := rm.ProviderDealState{
		DealProposal: prop, Status: rm.DealStatusNew, Receiver: receiver, FundsReceived: big.Zero(), CurrentInterval: prop.PaymentInterval,
		LegacyProtocol: first,
	}
	if p.cfg.Decide != nil {
		ok, reason, err := p.cfg.Decide(ctx, state)
		if err != nil {
			return demand, err
		}
		if !ok {
			return demand, refuse(rm.DealStatusRejected, "%s", reason)
		}
	}
	found, err := p.cfg.Pieces.Find(ctx, prop.PayloadCID, prop.PieceCID)
	if errors.Is(err, rm.ErrNotFound) {
		return demand, refuse(rm.DealStatusDealNotFound, "payload CID %s: %s", prop.PayloadCID, rm.ErrNotFound)
	}
	if err != nil {
		return demand, err
	}
	if p.cfg.Pricing != nil {
		if ask, err = p.price(ctx, receiver, prop.PayloadCID, found.Info); err != nil {
			return demand, err
		}
		if err := checkTerms(&prop, ask); err != nil {
			return demand, err
		}
	}
	state.PieceInfo = &found.Info
	pd, err := p.create(ctx, chid, state, ask, found.Size)
	if err != nil {
		return demand, err
	}
	pd.mu.Lock()
	demand = p.verdict(pd, &state, 0)
	pd.mu.Unlock()
	if now, _ := pd.machine.State(); demand.Demand == accounting.DemandNothing {
		if now.Status != rm.DealStatusNew { // one that was proposed before
			return demand, nil
		}
		return demand, pd.machine.Send(rm.ProviderEventOpen)
	}
	return demand, pd.machine.Send(rm.ProviderEventPaymentRequested, uint64(0))
}

// errDuplicate is a proposal whose deal exists: it is answered with no result, so that nothing happens to that deal.
var errDuplicate = errors.New("cannot initiate a state that already exists")

// create stores a new deal; of two proposals with one identifier exactly one makes a deal. Those that come at once share a flush.
func (p *Provider) create(ctx context.Context, chid dt.ChannelID, state rm.ProviderDealState, ask *rm.Ask, size uint64) (*providerDeal, error) {
	pd, err := p.enter(ctx, chid, state, ask, size)
	if err != nil {
		return nil, err
	}
	if err := p.store.sync(ctx); err != nil { // it is as after a crash: a start finds a deal that nobody was told of
		p.mu.Lock()
		if p.deals[pd.id] == pd {
			delete(p.deals, pd.id)
			delete(p.byChan, chid)
		}
		p.mu.Unlock()
		return nil, err
	}
	return pd, nil
}

// enter makes a deal whose record is not on stable storage yet.
func (p *Provider) enter(ctx context.Context, chid dt.ChannelID, state rm.ProviderDealState, ask *rm.Ask, size uint64) (*providerDeal, error) {
	p.creating.Lock()
	defer p.creating.Unlock()
	if err := p.room(state.Receiver); err != nil {
		return nil, err
	}
	if pd := p.orphan(chid, state); pd != nil {
		return pd, nil
	}
	if pd := p.proposedAgain(chid, &state); pd != nil {
		return pd, nil
	}
	if _, err := p.store.get(ctx, state.Identifier().String()); err == nil {
		return nil, fmt.Errorf("deal %s: %w", state.Identifier(), errDuplicate)
	}
	if err := p.storeNew(ctx, &state, ask, size); err != nil {
		return nil, err
	}
	pd := p.track(state)
	pd.size, pd.heard = size, true
	p.mu.Lock()
	p.bind(pd, chid)
	p.mu.Unlock()
	return pd, nil
}

// storeNew stores a new deal and its loan in one batch.
func (p *Provider) storeNew(ctx context.Context, d *rm.ProviderDealState, ask *rm.Ask, size uint64) error {
	b, err := p.store.ds.Batch(ctx)
	if err != nil {
		return err
	}
	if err := p.lend(ctx, b, d, ask, size); err != nil {
		return err
	}
	if err = p.store.write(ctx, b, d.Identifier().String(), *d); err == nil {
		err = b.Commit(ctx)
	}
	if err != nil {
		p.payers.Return(providerstates.DealKey(d.Identifier()))
	}
	return err
}

// orphan finds the deal of a proposal that comes again: it was stored before a crash, and which channel it has was not.
func (p *Provider) orphan(chid dt.ChannelID, state rm.ProviderDealState) *providerDeal {
	p.mu.Lock()
	defer p.mu.Unlock()
	pd := p.deals[state.Identifier()]
	if pd == nil {
		return nil
	}
	old, _ := pd.machine.State()
	pd.mu.Lock()
	defer pd.mu.Unlock()
	if !pd.stored || pd.bound || old.ChannelID != (dt.ChannelID{}) || !sameProposal(&old.DealProposal, &state.DealProposal) {
		return nil
	}
	pd.bound = true
	p.bind(pd, chid)
	return pd
}

// proposedAgain moves a running deal to the channel of a proposal that is made once more: the client has lost the channel in a crash before anything
// was sent on it. One on which something was sent is not moved, so that a loan is not used twice.
func (p *Provider) proposedAgain(chid dt.ChannelID, state *rm.ProviderDealState) *providerDeal {
	p.mu.Lock()
	pd := p.deals[state.Identifier()]
	p.mu.Unlock()
	if pd == nil {
		return nil
	}
	old, _ := pd.machine.State()
	p.mu.Lock()
	before := pd.chid
	p.mu.Unlock()
	if before == chid || old.TotalSent > 0 || p.sent(p.ctx, before) > 0 || !sameProposal(&old.DealProposal, &state.DealProposal) {
		return nil
	}
	p.mu.Lock()
	delete(p.byChan, before)
	p.bind(pd, chid)
	p.mu.Unlock()
	pd.mu.Lock()
	pd.resumed = false
	pd.mu.Unlock()
	if before != (dt.ChannelID{}) {
		p.closeLater(before)
	}
	return pd
}

// bind makes the events of a channel those of a deal; mu is held.
func (p *Provider) bind(pd *providerDeal, chid dt.ChannelID) {
	pd.chid = chid
	p.byChan[chid] = pd
}

func sameProposal(a, b *rm.DealProposal) bool {
	var x, y bytes.Buffer
	return a.MarshalCBOR(&x) == nil && b.MarshalCBOR(&y) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}

// maxSuspended is how many times the limit of deals there may be together with those that stand still.
const maxSuspended = 4

// room refuses a deal that would be one too many.
func (p *Provider) room(receiver peer.ID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, all, mine := time.Now(), 0, 0
	for id, pd := range p.deals {
		if pd.suspended(now) {
			continue
		}
		all++
		if id.Receiver == receiver {
			mine++
		}
	}
	if all >= p.cfg.MaxDeals || len(p.deals) >= maxSuspended*p.cfg.MaxDeals {
		return refuse(rm.DealStatusRejected, "the provider has %d deals in progress: try again later", len(p.deals))
	}
	if mine >= p.cfg.MaxDealsPerPeer {
		return refuse(rm.DealStatusRejected, "you have %d deals in progress: end one first", mine)
	}
	return nil
}

// Active is how many deals have not ended.
func (p *Provider) Active() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.deals)
}
