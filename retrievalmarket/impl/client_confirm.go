package retrievalimpl

import (
	"context"
	"time"

	"github.com/filecoin-project/go-state-types/builtin/v8/paych"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/reason"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
)

// A client does not wait for the word of a provider that is away when everything is here and signed: it delivers the file, and its deal is complete. The
// provider may lack the last voucher all the same, and waits for the end of its deal. It is told of both when it is back, also by the next process of
// this side.

const (
	// confirmFor is how long a provider is told of the end of a deal, after it and after each start.
	confirmFor = 10 * time.Minute
	// confirmLongest is the longest pause between two attempts.
	confirmLongest = 20 * time.Second
)

// unconfirmed reports whether the provider of a complete deal never said that it is done: the deal ended with the reason why it did not wait for that.
func unconfirmed(d *rm.ClientDealState) bool {
	return d.Status == rm.DealStatusCompleted && d.ChannelID != (dt.ChannelID{}) && d.Reason != "" && clientstates.ReasonOf(d) != reason.Overasked
}

// endTeller tells providers of the ends of deals that they have not confirmed.
type endTeller struct{ *Client }

// begin tells the provider of a complete deal of its end until the provider says that it is done, or for confirmFor.
func (c endTeller) begin(d rm.ClientDealState) {
	c.group.Go(func() {
		ctx, cancel := context.WithTimeout(c.ctx, confirmFor)
		defer cancel()
		for wait := time.Second; !c.tellEnd(ctx, &d); wait = min(2*wait, confirmLongest) {
			if !lifecycle.Sleep(ctx, wait) {
				return
			}
		}
		if err := c.storeConfirmed(d); err != nil {
			c.cfg.Log.Warn("store that the end of a deal is confirmed", "deal", d.ID, "error", err)
		}
	})
}

// storeConfirmed takes the reason out of the record of a deal whose provider has said meanwhile that it is done.
func (c endTeller) storeConfirmed(d rm.ClientDealState) error {
	d.Reason, d.Message = "", ""
	return c.put(d, false)
}

// tellEnd sends the last voucher of a deal once more and asks for the end of its transfer, and reports whether nothing is left to be told.
func (c endTeller) tellEnd(ctx context.Context, d *rm.ClientDealState) (done bool) {
	s, err := c.cfg.Hub.dt.ChannelState(ctx, d.ChannelID)
	if err != nil || s.Status() == dt.Completed || s.Status() == dt.Completing {
		return ctx.Err() == nil // the provider has said so, or there is nobody to ask
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err = c.cfg.Hub.dt.ConnectTo(ctx, d.ChannelID.Responder)
	if err == nil {
		err = c.sendLastVoucher(ctx, d)
	}
	if err == nil && s.Status() == dt.TransferFinished {
		err = c.cfg.Hub.dt.RestartDataTransferChannel(ctx, d.ChannelID)
	}
	if err != nil {
		c.cfg.Log.Debug("tell a provider of the end of a deal", "deal", d.ID, "error", err)
	}
	return err == nil && transferLost(s.Status())
}

// transferLost reports whether a transfer has ended other than well: its provider books the voucher, and says no more.
func transferLost(s dt.Status) bool {
	return s == dt.Failed || s == dt.Failing || s == dt.Cancelled || s == dt.Cancelling
}

// sendLastVoucher sends the voucher of all that a deal has spent, which exists already.
func (c endTeller) sendLastVoucher(ctx context.Context, d *rm.ClientDealState) error {
	if d.PaymentInfo == nil || d.FundsSpent.Sign() <= 0 {
		return nil
	}
	voucher, err := c.lastVoucher(ctx, d)
	if err != nil || voucher == nil {
		return err
	}
	return c.SendDataTransferVoucher(ctx, d.ChannelID, &rm.DealPayment{ID: d.ID, PaymentChannel: d.PaymentInfo.PayCh, PaymentVoucher: voucher}, d.LegacyProtocol)
}

func (c endTeller) lastVoucher(ctx context.Context, d *rm.ClientDealState) (*paych.SignedVoucher, error) {
	b, ok := c.cfg.Node.(rm.ClientBook)
	if !ok {
		return clientstates.CreateVoucher(ctx, c.cfg.Node, *d, d.FundsSpent)
	}
	best, err := b.BestForDeal(ctx, clientstates.DealKey(d.ID))
	if err != nil || best == nil {
		return nil, err
	}
	return best.Voucher, nil
}
