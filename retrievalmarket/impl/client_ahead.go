package retrievalimpl

import (
	"github.com/filecoin-project/go-state-types/big"
	"github.com/libp2p/go-libp2p/core/peer"

	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
)

// aheadStep is how many verified bytes one unasked voucher pays for at most; a shorter interval counts instead (D7).
const aheadStep = 1 << 20

// agree notes whether a provider takes vouchers that it did not ask for.
func (c *Client) agree(cd *clientDeal, with peer.ID) {
	yes := c.cfg.SupportsAhead != nil && c.cfg.SupportsAhead(with)
	cd.mu.Lock()
	defer cd.mu.Unlock()
	cd.ahead, cd.inFull = yes, cd.inFull || yes // what is asked for may cross what was paid unasked
}

// payAhead pays for verified bytes before they are asked for, so that no round trip stops the stream. What was not verified is never
// paid.
func (c *Client) payAhead(cd *clientDeal, received uint64) {
	cd.mu.Lock()
	due := cd.ahead && cd.ongoing && received-min(received, cd.paidFor) >= cd.step
	if due {
		cd.ongoing = false // until the deal says so again
	}
	cd.mu.Unlock()
	if !due {
		return
	}
	d, _ := cd.machine.State()
	owed := clientstates.Terms(&d).Owed(received, d.FundsSpent)
	if d.Status != rm.DealStatusOngoing || owed.LessThanEqual(big.Zero()) {
		return
	}
	_ = cd.machine.Send(rm.ClientEventBlocksReceived, received)
	_ = cd.machine.Send(rm.ClientEventPaymentRequested, owed)
}

// Crossed implements clientstates.Progress: the provider stopped and asked before it had the voucher that was sent last unasked. The next
// one goes out when a step was verified; the request is not answered with a voucher for the few bytes since.
func (c *Client) Crossed(id rm.DealID) (yes bool) {
	c.with(id, func(cd *clientDeal) {
		yes = cd.ahead && !cd.shaken && !cd.doubtful && cd.paidFor > 0 && cd.received-min(cd.received, cd.paidFor) < cd.step
		if yes {
			cd.enough = cd.paidFor + cd.step
		}
	})
	return yes
}
