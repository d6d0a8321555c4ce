package retrievalimpl

import (
	"context"
	"errors"
	"fmt"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/askstore"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/providerstates"
)

// maxBadVouchers ends a deal (4.7, rule 8).
const maxBadVouchers = 3

// maxSelector bounds the selector of a proposal (M-42, D22).
const maxSelector = 16 << 10

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
	prop, ok := v.(*rm.DealProposal)
	if !ok {
		return nil, errors.New("wrong voucher type")
	}
	if !prop.PayloadCID.Equals(base) {
		return nil, errors.New("incorrect CID for this proposal")
	}
	if prop.Selector != nil && len(prop.Selector.Raw) > maxSelector {
		return nil, fmt.Errorf("selector of %d bytes is above the limit of %d", len(prop.Selector.Raw), maxSelector)
	}
	want, err := prop.SelectorNode()
	if err != nil || !datamodel.DeepEqual(want, sel) {
		return nil, errors.New("incorrect selector for this proposal")
	}
	if restart {
		return p.validateRestart(ctx, chid, receiver, prop)
	}
	resp := &rm.DealResponse{ID: prop.ID, PaymentOwed: big.Zero(), Status: rm.DealStatusAccepted}
	if err := p.begin(ctx, chid, receiver, *prop); err != nil {
		var r *refusal
		if !errors.As(err, &r) {
			r = &refusal{rm.DealStatusErrored, err.Error()}
		}
		resp.Status, resp.Message = r.status, r.reason
		return resp, err
	}
	if !prop.UnsealPrice.IsZero() {
		resp.Status, resp.PaymentOwed = rm.DealStatusFundsNeededUnseal, prop.UnsealPrice
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
		return nil, fmt.Errorf("deal %s: %w", prop.ID, rm.ErrNotFound)
	}
	state, _ := pd.machine.State()
	t := providerstates.Terms(&state)
	sent := p.sent(ctx, chid)
	pd.mu.Lock()
	defer pd.mu.Unlock()
	resp := &rm.DealResponse{ID: prop.ID, Status: rm.DealStatusAccepted, PaymentOwed: big.Zero()}
	switch {
	case pd.paid.LessThan(prop.UnsealPrice):
		resp.Status, resp.PaymentOwed = rm.DealStatusFundsNeededUnseal, big.Sub(prop.UnsealPrice, pd.paid)
		return resp, dt.ErrPause
	case !pd.unsealed:
		return resp, dt.ErrPause
	case sent >= t.Limit(pd.paid):
		// Whether anything may go out is for the credit of the channel to say.
		resp.Status, resp.PaymentOwed = rm.DealStatusFundsNeeded, t.Owed(sent, pd.paid)
	}
	return resp, nil
}

func checkTerms(prop *rm.DealProposal, ask *rm.Ask) error {
	if askstore.Check(&rm.Ask{PricePerByte: prop.PricePerByte, UnsealPrice: prop.UnsealPrice, PaymentInterval: prop.PaymentInterval,
		PaymentIntervalIncrease: prop.PaymentIntervalIncrease}) != nil {
		if prop.PricePerByte.Sign() > 0 && prop.PaymentInterval == 0 {
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
func (p *Provider) begin(ctx context.Context, chid dt.ChannelID, receiver peer.ID, prop rm.DealProposal) error {
	if err := checkTerms(&prop, p.GetAsk()); err != nil {
		return err
	}
	state := rm.ProviderDealState{
		DealProposal: prop, Status: rm.DealStatusNew, Receiver: receiver, FundsReceived: big.Zero(), CurrentInterval: prop.PaymentInterval,
	}
	if p.cfg.Decide != nil {
		ok, reason, err := p.cfg.Decide(ctx, state)
		if err != nil {
			return err
		}
		if !ok {
			return refuse(rm.DealStatusRejected, "%s", reason)
		}
	}
	found, err := p.cfg.Pieces.Find(ctx, prop.PayloadCID, prop.PieceCID)
	if errors.Is(err, rm.ErrNotFound) {
		return refuse(rm.DealStatusDealNotFound, "%s", err)
	}
	if err != nil {
		return err
	}
	state.PieceInfo = &found.Info
	if _, err := p.store.get(ctx, state.Identifier().String()); err == nil {
		return fmt.Errorf("Begin: cannot initiate a state for identifier %s: it already exists", state.Identifier())
	}
	if err := p.store.put(ctx, state.Identifier().String(), state, true); err != nil {
		return err
	}
	pd := p.track(state)
	p.mu.Lock()
	p.byChan[chid] = pd
	p.mu.Unlock()
	if prop.UnsealPrice.IsZero() {
		return pd.machine.Send(rm.ProviderEventOpen)
	}
	return pd.machine.Send(rm.ProviderEventPaymentRequested, uint64(0))
}

// revalidate takes a payment (4.7). The deal is locked for the arithmetic only, never across the book.
func (p *Provider) revalidate(ctx context.Context, chid dt.ChannelID, v dt.Voucher) (*rm.DealResponse, error) {
	pay, ok := v.(*rm.DealPayment)
	if !ok {
		return nil, errors.New("wrong voucher type")
	}
	pd := p.of(chid)
	if pd == nil {
		return nil, fmt.Errorf("deal %s: %w", pay.ID, rm.ErrNotFound)
	}
	state, _ := pd.machine.State()
	if pay.ID != pd.id.DealID {
		return p.badVoucher(pd, fmt.Errorf("payment is for deal %s, the channel serves deal %s", pay.ID, pd.id.DealID))
	}
	t := providerstates.Terms(&state)
	if pay.PaymentVoucher == nil {
		return p.badVoucher(pd, errors.New("payment has no voucher"))
	}
	total, err := p.save(ctx, pd, pay, t.PaidBytes(pay.PaymentVoucher.Amount))
	if err != nil {
		return p.badVoucher(pd, err)
	}
	sent := p.raise(ctx, chid, t.PaidBytes(total))
	pd.mu.Lock()
	pd.paid = big.Max(pd.paid, total)
	paid, unsealed, sentAll := pd.paid, pd.unsealed, pd.sentAll
	pd.mu.Unlock()
	resp := &rm.DealResponse{ID: pd.id.DealID, PaymentOwed: big.Zero()}
	switch {
	case paid.LessThan(state.UnsealPrice):
		resp.Status, resp.PaymentOwed = rm.DealStatusFundsNeededUnseal, big.Sub(state.UnsealPrice, paid)
		return resp, partial(pd, paid)
	case !unsealed:
		return nil, pd.machine.Send(rm.ProviderEventPaymentReceived, paid)
	case sentAll && t.Owed(sent, paid).Sign() == 0:
		resp.Status = rm.DealStatusCompleted
		return resp, errors.Join(pd.machine.Send(rm.ProviderEventPaymentReceived, paid), dt.ErrResume)
	case sentAll:
		resp.Status, resp.PaymentOwed = rm.DealStatusFundsNeededLastPayment, t.Owed(sent, paid)
		return resp, partial(pd, paid)
	case sent >= t.Limit(paid):
		resp.Status, resp.PaymentOwed = rm.DealStatusFundsNeeded, t.Owed(sent, paid)
		return resp, partial(pd, paid)
	}
	return nil, errors.Join(pd.machine.Send(rm.ProviderEventPaymentReceived, paid), dt.ErrResume)
}

func partial(pd *providerDeal, paid abi.TokenAmount) error {
	return errors.Join(pd.machine.Send(rm.ProviderEventPartialPaymentReceived, paid), dt.ErrPause)
}

// save puts a voucher into the node's book and returns the total that is credited to the deal.
func (p *Provider) save(ctx context.Context, pd *providerDeal, pay *rm.DealPayment, covers uint64) (abi.TokenAmount, error) {
	if b, ok := p.cfg.Node.(rm.ProviderBook); ok {
		total, _, err := b.SaveDealVoucher(ctx, providerstates.DealKey(pd.id), pay.PaymentChannel, pay.PaymentVoucher, covers)
		return total, err
	}
	tok, _, err := p.cfg.Node.GetChainHead(ctx)
	if err != nil {
		return big.Zero(), err
	}
	pd.mu.Lock()
	paid := pd.paid
	pd.mu.Unlock()
	grown, err := p.cfg.Node.SavePaymentVoucher(ctx, pay.PaymentChannel, pay.PaymentVoucher, nil, big.Zero(), tok)
	if err != nil {
		return big.Zero(), err
	}
	return big.Add(paid, big.Min(grown, big.Max(big.Zero(), big.Sub(pay.PaymentVoucher.Amount, paid)))), nil
}

// raise lifts what counts as sent to what was paid for: after a crash the payer may know better.
func (p *Provider) raise(ctx context.Context, chid dt.ChannelID, paidBytes uint64) uint64 {
	if err := p.raiseQueued(ctx, chid, paidBytes); err != nil {
		p.cfg.Log.Warn("raise what counts as sent", "channel", chid, "error", err)
	}
	return p.sent(ctx, chid)
}

// queueRaiser is optional on a data-transfer manager: a lower bound of what counts as sent.
type queueRaiser interface {
	RaiseQueued(ctx context.Context, chid dt.ChannelID, bytes uint64) error
}

func (p *Provider) raiseQueued(ctx context.Context, chid dt.ChannelID, bytes uint64) error {
	if r, ok := p.cfg.Hub.dt.(queueRaiser); ok && bytes > 0 {
		return r.RaiseQueued(ctx, chid, bytes)
	}
	return nil
}

func (p *Provider) sent(ctx context.Context, chid dt.ChannelID) uint64 {
	s, err := p.cfg.Hub.dt.ChannelState(ctx, chid)
	if err != nil {
		return 0
	}
	return s.Queued()
}

// badVoucher answers what is wrong; the third one ends the deal. Nothing is credited and nothing is lost.
func (p *Provider) badVoucher(pd *providerDeal, cause error) (*rm.DealResponse, error) {
	pd.mu.Lock()
	pd.bad++
	over := pd.bad >= maxBadVouchers
	pd.mu.Unlock()
	resp := &rm.DealResponse{ID: pd.id.DealID, Status: rm.DealStatusErrored, PaymentOwed: big.Zero(), Message: cause.Error()}
	if !over {
		state, _ := pd.machine.State()
		t := providerstates.Terms(&state)
		pd.mu.Lock()
		owed := t.Owed(max(state.TotalSent, t.PaidBytes(pd.paid)), pd.paid)
		pd.mu.Unlock()
		resp.Status, resp.PaymentOwed = rm.DealStatusFundsNeeded, owed
		return resp, dt.ErrPause
	}
	_ = pd.machine.Send(rm.ProviderEventSaveVoucherFailed, cause)
	return resp, cause
}
