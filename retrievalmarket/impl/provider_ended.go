package retrievalimpl

import (
	"context"
	"errors"
	"fmt"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/paych"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/providerstates"
)

// A voucher is in the book before its deal hears of it. What a deal that has ended got is raised to the book: by a voucher that comes late, and at each
// start, as a loss of power keeps the book, which is synced, and may take the record.

// endedDeals are the records of deals that have ended.
type endedDeals struct{ *Provider }

var errDealOver = errors.New("the deal has ended")

// raiseFunds puts what the book has for a deal that has ended into its record, and tells by how much it grew.
func (p endedDeals) raiseFunds(ctx context.Context, d *rm.ProviderDealState, total abi.TokenAmount) (grown abi.TokenAmount, err error) {
	grown = big.Sub(total, d.FundsReceived)
	if grown.Sign() <= 0 {
		return big.Zero(), nil
	}
	d.FundsReceived = total
	return grown, p.store.put(ctx, d.Identifier().String(), *d, false)
}

// raiseEnded puts a payment into the record of a deal whose end is stored already: no event reaches that.
func (p endedDeals) raiseEnded(ctx context.Context, pd *providerDeal, paid abi.TokenAmount) error {
	pd.ending.Lock()
	defer pd.ending.Unlock()
	if !pd.ended {
		return nil // the event or the end stores it
	}
	d, err := p.store.get(ctx, pd.id.String())
	if err == nil {
		_, err = p.raiseFunds(ctx, &d, paid)
	}
	return err
}

// bookLate books a voucher of a deal that has ended: what it pays of a debt counts.
func (p endedDeals) bookLate(ctx context.Context, chid dt.ChannelID, pay *rm.DealPayment) (*rm.DealResponse, error) {
	id := rm.ProviderDealIdentifier{Receiver: chid.Initiator, DealID: pay.ID}
	d, err := p.store.get(ctx, id.String())
	if err != nil {
		return nil, err
	}
	if d.ChannelID != chid {
		return nil, errDealOver
	}
	if err := paych.CheckStateless(pay.PaymentVoucher, pay.PaymentChannel); err != nil {
		return nil, err
	}
	t, ended := providerstates.Terms(&d), &providerDeal{id: id, paid: d.FundsReceived}
	total, err := p.save(ctx, ended, pay, t.PaidBytes(pay.PaymentVoucher.Amount))
	if err != nil {
		return nil, err
	}
	grown, err := p.raiseFunds(ctx, &d, total)
	if grown.Sign() > 0 {
		err = errors.Join(err, p.accountPayment(ctx, ended, &d, pay.PaymentChannel, grown, total))
	}
	return &rm.DealResponse{ID: pay.ID, Status: d.Status, PaymentOwed: t.Owed(d.TotalSent, d.FundsReceived)}, err
}

// openDeals are the stored deals that have not ended; those that have are compared with the book.
func (p *Provider) openDeals(ctx context.Context) (open []rm.ProviderDealState, err error) {
	book, _ := p.cfg.Node.(rm.ProviderBook)
	var behind []rm.ProviderDealState
	err = p.store.each(ctx, func(d rm.ProviderDealState) error {
		switch {
		case !p.table.Final(d.Status):
			open = append(open, d)
			return nil
		case book == nil || !priced(d.PricePerByte, d.UnsealPrice):
			return nil
		}
		best, err := book.BestForDeal(ctx, providerstates.DealKey(d.Identifier()))
		if err == nil && best != nil && best.Amount.GreaterThan(d.FundsReceived) {
			behind = append(behind, d)
		}
		return err
	})
	for _, d := range behind {
		if err == nil {
			err = endedDeals{p}.raiseToBook(ctx, book, &d)
		}
	}
	return open, err
}

// raiseToBook raises a deal that has ended to what the book has for it, and the account of its payer with it.
func (p endedDeals) raiseToBook(ctx context.Context, book rm.ProviderBook, d *rm.ProviderDealState) error {
	best, err := book.BestForDeal(ctx, providerstates.DealKey(d.Identifier()))
	if err != nil || best == nil {
		return err
	}
	grown, err := p.raiseFunds(ctx, d, best.Amount)
	if err == nil && best.Voucher != nil {
		err = p.accountPayment(ctx, &providerDeal{id: d.Identifier()}, d, best.Voucher.ChannelAddr, grown, best.Amount)
	}
	if err != nil {
		return fmt.Errorf("raise deal %s to its book: %w", d.Identifier(), err)
	}
	return nil
}
