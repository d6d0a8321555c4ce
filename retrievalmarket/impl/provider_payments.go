package retrievalimpl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/fsm"
	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/paych"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/providerstates"
	"github.com/cartage-dev/cartage/retrievalmarket/legacy"
)

// errForeignDeal is a payment that came on the channel of another deal.
var errForeignDeal = errors.New("payment of another deal")

// maxBadVouchers ends a deal (4.7, rule 8).
const maxBadVouchers = 3

// revalidate takes a payment (4.7). The deal is locked for the arithmetic only, never across the book.
func (p *Provider) revalidate(ctx context.Context, chid dt.ChannelID, v dt.Voucher) (*rm.DealResponse, error) {
	pay := legacy.Payment(v)
	if pay == nil {
		return nil, errors.New("wrong voucher type")
	}
	pd := p.of(chid)
	if pd == nil {
		return endedDeals{p}.bookLate(ctx, chid, pay)
	}
	select {
	case pd.paying <- struct{}{}:
		defer func() { <-pd.paying }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	pd.hear()
	if pay.ID != pd.id.DealID {
		return p.badVoucher(ctx, pd, chid, fmt.Errorf("%w: payment is for deal %s, the channel serves deal %s", errForeignDeal, pay.ID, pd.id.DealID))
	}
	if err := paych.CheckStateless(pay.PaymentVoucher, pay.PaymentChannel); err != nil {
		return p.badVoucher(ctx, pd, chid, err)
	}
	state, _ := pd.machine.State()
	pd.mu.Lock()
	before := pd.paid
	pd.mu.Unlock()
	total, err := p.save(ctx, pd, pay, providerstates.Terms(&state).PaidBytes(pay.PaymentVoucher.Amount))
	if errors.Is(err, errNodeAway) {
		return p.stillOwed(ctx, pd, chid, p.ownFault(errNodeAway.Error(), err)), dt.ErrPause
	}
	if err != nil {
		return p.badVoucher(ctx, pd, chid, err)
	}
	if grown := big.Sub(total, before); grown.Sign() > 0 {
		if err := p.accountPayment(ctx, pd, &state, pay.PaymentChannel, grown, total); err != nil {
			p.cfg.Log.Warn("account of a payer", "deal", pd.id, "error", err) // it is lent more carefully
		}
	}
	return p.credited(ctx, pd, chid, total)
}

// credited answers a payment that is in the book: whether it is enough to go on. The deal hears of it before anybody can see the credit: the
// transfer may end on its account at once.
func (p *Provider) credited(ctx context.Context, pd *providerDeal, chid dt.ChannelID, total abi.TokenAmount) (*rm.DealResponse, error) {
	state, _ := pd.machine.State()
	sent := p.sent(ctx, chid)
	pd.mu.Lock()
	pd.paid = big.Max(pd.paid, total)
	sent = max(sent, pd.whole) // the last block may have left since the count was read
	paid, unsealed, sentAll := pd.paid, pd.unsealed, pd.sentAll
	event, demand := rm.ProviderEventPaymentReceived, p.verdict(pd, &state, sent).Demand
	short := demand == accounting.DemandUnseal || demand != accounting.DemandNothing && unsealed
	if short {
		event = rm.ProviderEventPartialPaymentReceived
	}
	err := pd.machine.Send(event, paid, sent)
	pd.mu.Unlock()
	if errors.Is(err, fsm.ErrTerminated) {
		err = nil
	}
	if err := (endedDeals{p}).raiseEnded(ctx, pd, paid); err != nil {
		return nil, err
	}
	switch {
	case short:
		return p.stillOwed(ctx, pd, chid, ""), errors.Join(err, dt.ErrPause)
	case !unsealed:
		return nil, err
	case sentAll:
		p.settleLoan(ctx, pd)
		return &rm.DealResponse{ID: pd.id.DealID, PaymentOwed: big.Zero(), Status: rm.DealStatusCompleted}, errors.Join(err, dt.ErrResume)
	}
	return nil, errors.Join(err, dt.ErrResume)
}

// stillOwed is the request for payment that fits the phase of a deal; why is told to the client.
func (p *Provider) stillOwed(ctx context.Context, pd *providerDeal, chid dt.ChannelID, why string) *rm.DealResponse {
	state, _ := pd.machine.State()
	sent := p.sent(ctx, chid)
	pd.mu.Lock()
	defer pd.mu.Unlock()
	v := p.verdict(pd, &state, sent)
	resp := &rm.DealResponse{ID: pd.id.DealID, Status: demandStatus(v.Demand), PaymentOwed: v.Owed(pd.paid), Message: why}
	if pd.sentAll && v.Demand == accounting.DemandNothing {
		resp.Status = rm.DealStatusFundsNeededLastPayment
	}
	return resp
}

// errNodeAway means that the node could not look at a voucher now: that is not the payer's fault.
var errNodeAway = errors.New("the provider cannot check payments at the moment")

// nodeRetries is how often the node is asked again, with growing pauses, before the payer is told to send once more.
const nodeRetries = 4

// save puts a voucher into the node's book and returns the total that is credited to the deal.
func (p *Provider) save(ctx context.Context, pd *providerDeal, pay *rm.DealPayment, covers uint64) (total abi.TokenAmount, err error) {
	attempts := 0
	err = lifecycle.Retry(ctx, lifecycle.Backoff{Min: 100 * time.Millisecond, Max: time.Second}, func() (bool, error) {
		total, err = p.saveOnce(ctx, pd, pay, covers)
		attempts++
		return err != nil && !paych.IsVoucherFault(err) && errors.Is(err, errNodeAway) && attempts <= nodeRetries, err
	})
	return total, err
}

func (p *Provider) saveOnce(ctx context.Context, pd *providerDeal, pay *rm.DealPayment, covers uint64) (abi.TokenAmount, error) {
	if b, ok := p.cfg.Node.(rm.ProviderBook); ok {
		total, _, err := b.SaveDealVoucher(ctx, providerstates.DealKey(pd.id), pay.PaymentChannel, pay.PaymentVoucher, covers)
		if err != nil && !paych.IsVoucherFault(err) {
			err = fmt.Errorf("%w: %w", errNodeAway, err)
		}
		return total, err
	}
	tok, _, err := p.cfg.Node.GetChainHead(ctx)
	if err != nil {
		return big.Zero(), fmt.Errorf("%w: %w", errNodeAway, err)
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

func (p *Provider) sent(ctx context.Context, chid dt.ChannelID) uint64 {
	s, err := p.cfg.Hub.dt.ChannelState(ctx, chid)
	if err != nil {
		return 0
	}
	return s.Queued()
}

// lastingFault reports whether no later voucher of the same channel can be better. A client of another kind would wait for ever for an answer to the
// next one.
func lastingFault(err error) bool {
	for _, f := range []error{paych.ErrWrongPayee, paych.ErrChannelSettled, paych.ErrLaneBound} {
		if errors.Is(err, f) {
			return true
		}
	}
	return false
}

// badVoucher answers what is wrong; the third one ends the deal. Nothing is credited and nothing is lost.
func (p *Provider) badVoucher(ctx context.Context, pd *providerDeal, chid dt.ChannelID, cause error) (*rm.DealResponse, error) {
	p.cfg.Log.Warn("voucher not taken", "deal", pd.id, "channel", chid, "error", cause)
	pd.mu.Lock()
	pd.bad++
	over := pd.bad >= maxBadVouchers || lastingFault(cause)
	if over {
		pd.refused = cause // the deal fails with the transfer, which carries the answer
	}
	pd.mu.Unlock()
	why := cause.Error()
	if !paych.IsVoucherFault(cause) && !errors.Is(cause, errForeignDeal) { // what a node of another kind says is not for others
		why = p.ownFault("the voucher was not taken", cause)
	}
	resp := p.stillOwed(ctx, pd, chid, why)
	if !over {
		return resp, dt.ErrPause
	}
	resp.Status, resp.PaymentOwed = rm.DealStatusErrored, big.Zero()
	return resp, cause
}
