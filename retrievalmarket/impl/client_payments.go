package retrievalimpl

import (
	"context"
	"time"

	dt "github.com/cartage-dev/cartage/datatransfer"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/legacy"
)

// SendDataTransferVoucher implements clientstates.ClientDealEnvironment. What the voucher pays for is in the file first.
func (c *Client) SendDataTransferVoucher(ctx context.Context, chid dt.ChannelID, p *rm.DealPayment, first bool) error {
	return c.cfg.Hub.dt.SendVoucher(ctx, chid, legacy.PaymentOf(p, first))
}

// PaysInFull implements clientstates.Progress.
func (c *Client) PaysInFull(id rm.DealID) (yes bool) {
	c.with(id, func(cd *clientDeal) { yes = cd.inFull })
	return yes
}

// Resends implements clientstates.Progress.
func (c *Client) Resends(id rm.DealID) (yes bool) {
	c.with(id, func(cd *clientDeal) {
		cd.resends++
		cd.troubled = true
		yes = cd.resends <= maxResends
	})
	return yes
}

// watch looks after a while whether the bytes that a provider asks money for have come. If not, it may never have got the last
// voucher, or denies it: then that one is sent again, which costs nothing (T65). mu is held.
func (cd *clientDeal) watch() {
	if cd.stalled != nil {
		return
	}
	received := cd.received
	cd.stalled = time.AfterFunc(stallWait<<min(cd.resends, maxResends), func() {
		cd.mu.Lock()
		cd.stalled = nil
		cd.denied = cd.waiting && cd.received == received
		again := cd.denied
		cd.doubtful = cd.doubtful || again
		if cd.waiting && !again {
			cd.watch()
		}
		cd.mu.Unlock()
		if again {
			_ = cd.machine.Reenter()
		}
	})
}

// unwatch ends what watch began; mu is held.
func (cd *clientDeal) unwatch() {
	cd.denied = false
	if cd.stalled != nil {
		cd.stalled.Stop()
		cd.stalled = nil
	}
}

// Troubled implements clientstates.Progress.
func (c *Client) Troubled(id rm.DealID) (yes bool) {
	c.with(id, func(cd *clientDeal) { yes = cd.troubled })
	return yes
}

// late notes what a request for payment says beside the amount: the acceptance may have been lost, and a payment that is under way
// may have crossed the request.
func (c *Client) late(cd *clientDeal) {
	st, _ := cd.machine.State()
	switch st.Status {
	case rm.DealStatusWaitForAcceptance, rm.DealStatusWaitForAcceptanceLegacy:
		c.accept(cd)
	case rm.DealStatusSendFunds, rm.DealStatusSendFundsLastPayment:
		cd.mu.Lock()
		cd.troubled = true
		cd.mu.Unlock()
	}
}

// Denied implements clientstates.Progress.
func (c *Client) Denied(id rm.DealID) (yes bool) {
	c.with(id, func(cd *clientDeal) { yes = cd.denied })
	return yes
}
