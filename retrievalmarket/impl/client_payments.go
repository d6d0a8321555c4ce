package retrievalimpl

import (
	"context"
	"fmt"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/carstore"
	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/accounting"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
	"github.com/cartage-dev/cartage/retrievalmarket/legacy"
)

// aheadStep is how many verified bytes one unasked voucher pays for at most; a shorter interval counts instead (D7).
const aheadStep = 1 << 20

var _ clientstates.BuyerFacts = (*Client)(nil)

// SendDataTransferVoucher implements clientstates.ClientDealEnvironment. What the voucher pays for is in the file first.
func (c *Client) SendDataTransferVoucher(ctx context.Context, chid dt.ChannelID, p *rm.DealPayment, first bool) error {
	c.with(p.ID, func(cd *clientDeal) { cd.noteVoucher(p) })
	return c.cfg.Hub.dt.SendVoucher(ctx, chid, legacy.PaymentOf(p, first))
}

// noteVoucher counts how often the same voucher leaves; mu is held.
func (cd *clientDeal) noteVoucher(p *rm.DealPayment) {
	if amount := p.PaymentVoucher.Amount; amount.GreaterThan(cd.signed) {
		cd.signed, cd.repeats = amount, 0
	} else {
		cd.repeats++
	}
	if cd.repeats <= accounting.MaxRepeats { // each restart repeats it too: that may not put off the end of a wait for ever
		cd.quietFrom = time.Now()
	}
}

// takesUnasked reports whether a provider takes vouchers that it did not ask for.
func (c *Client) takesUnasked(provider peer.ID) bool {
	return c.cfg.SupportsAhead != nil && c.cfg.SupportsAhead(provider)
}

// Facts implements clientstates.BuyerFacts.
func (c *Client) Facts(deal rm.ClientDealState) accounting.BuyerFacts {
	f := clientstates.RecordFacts(&deal)
	if cd := c.deal(deal.ID); cd != nil {
		c.addFacts(cd, &deal, &f)
	}
	return f
}

// addFacts adds what is known of a deal beside its record.
func (c *Client) addFacts(cd *clientDeal, deal *rm.ClientDealState, f *accounting.BuyerFacts) {
	f.Ahead, f.Step = c.takesUnasked(deal.Sender), min(max(1, deal.PaymentInterval), aheadStep)
	cd.mu.Lock()
	defer cd.mu.Unlock()
	f.Verified = max(f.Verified, cd.received)
	f.Link, f.Repeats, f.Size = cd.link, cd.repeats, cd.size
	if cd.target != nil { // what was here before is in the offer's size and is not owed
		f.Size -= min(f.Size, cd.target.Base())
	}
	f.Quiet = !cd.quietFrom.IsZero() && time.Since(cd.quietFrom) >= c.patience(cd)
	f.Asked = c.advances.Granted(clientstates.DealKey(deal.ID))
	f.Window = min(f.Asked, deal.PaymentInterval)
}

// byteWait is what a deal waits for when no byte comes.
type byteWait uint8

const (
	waitsForNothing byteWait = iota
	waitsToPay               // for bytes that it is asked to pay for, or for the answer to a payment
	waitsPaid                // for bytes that nobody asks money for at the moment
	waitsForLast             // for bytes of a deal that its provider calls complete
)

// waitOf is what a deal waits for. A provider of another kind that has sent nothing may still unseal, and would take a restart for the end of that. mu is
// held.
func (c *Client) waitOf(cd *clientDeal) byteWait {
	switch cd.status {
	case rm.DealStatusFundsNeeded, rm.DealStatusFundsNeededLastPayment:
		return waitsToPay
	case rm.DealStatusCheckComplete, rm.DealStatusClientWaitingForLastBlocks:
		return waitsForLast
	case rm.DealStatusOngoing:
		if cd.received > 0 || c.takesUnasked(cd.chid.Responder) {
			return waitsPaid
		}
	}
	return waitsForNothing
}

// patience is how long no byte may come before something is done about it; mu is held.
func (c *Client) patience(cd *clientDeal) time.Duration {
	start := accounting.QuietAfter
	switch c.waitOf(cd) {
	case waitsPaid:
		start = paidPatience
	case waitsForLast:
		start = lostPatience
	}
	return start << min(cd.repeats, accounting.MaxRepeats)
}

// waitsForPayment reports whether a deal in a status has to decide on a request for payment.
func waitsForPayment(s rm.DealStatus) bool {
	return s == rm.DealStatusFundsNeeded || s == rm.DealStatusFundsNeededLastPayment
}

// Completed implements clientstates.BuyerFacts.
func (c *Client) Completed(id rm.DealID) (yes bool) {
	c.with(id, func(cd *clientDeal) { yes = cd.completed })
	return yes
}

// Rechecks implements clientstates.BuyerFacts.
func (c *Client) Rechecks(id rm.DealID) (yes bool) {
	c.with(id, func(cd *clientDeal) {
		cd.repeats++
		yes = cd.repeats <= accounting.MaxRepeats
	})
	return yes
}

// observe notes where a deal stands: from which byte on it decides anew, and when, if none comes.
func (c *Client) observe(cd *clientDeal, rec rm.ClientDealState) {
	f := clientstates.RecordFacts(&rec)
	c.addFacts(cd, &rec, &f)
	cd.mu.Lock()
	defer cd.mu.Unlock()
	before := c.waitOf(cd)
	cd.status, cd.next = rec.Status, accounting.NextPayment(clientstates.Terms(&rec), f)
	if now := c.waitOf(cd); now != before {
		cd.stopAlarm()
		if now != waitsForNothing {
			cd.quietFrom = time.Now()
		}
	}
	c.setAlarm(cd)
}

// setAlarm lets a deal do something when no byte has come for a while: decide anew, as the provider may never have got the last voucher, or denies it (T65),
// and ask again for blocks that may be lost. mu is held.
func (c *Client) setAlarm(cd *clientDeal) {
	wait := c.waitOf(cd)
	if cd.alarm != nil || wait == waitsForNothing || wait != waitsToPay && cd.repeats >= maxLostAsked {
		return
	}
	cd.alarm = time.AfterFunc(time.Until(cd.quietFrom.Add(c.patience(cd))), func() { c.alarmed(cd) })
}

// alarmed is told that a deal may have got no byte for as long as it has patience.
func (c *Client) alarmed(cd *clientDeal) {
	cd.mu.Lock()
	cd.alarm = nil
	wait, chid := c.waitOf(cd), cd.chid
	quiet := wait != waitsForNothing && time.Since(cd.quietFrom) >= c.patience(cd)
	lost := quiet && (wait != waitsToPay || cd.repeats >= lostAfter)
	if quiet && wait != waitsToPay {
		cd.repeats, cd.quietFrom = cd.repeats+1, time.Now()
	}
	if !quiet || wait != waitsToPay {
		c.setAlarm(cd)
	}
	cd.mu.Unlock()
	if lost {
		c.askForLost(cd, chid)
	}
	if quiet && wait == waitsToPay {
		c.growAdvance(cd)
		_ = cd.machine.Reenter()
	}
}

const (
	// lostAfter is how often the last voucher is repeated before what the provider asks money for counts as lost on its way.
	lostAfter = 2
	// lostPatience is how long no block may come of a deal that its provider calls complete, and paidPatience of one that is paid and goes on, doubled with
	// each time: a block may take its time. maxLostAsked is how often the rest is asked for then.
	lostPatience = 8 * time.Second
	paidPatience = time.Minute
	maxLostAsked = 3
)

// askForLost restarts the transfer of a deal whose provider has sent more than came, as its demands say: a message can be lost without an error, on a
// stream that its reader has just given up.
func (c *Client) askForLost(cd *clientDeal, chid dt.ChannelID) {
	if d, _ := cd.machine.State(); d.AllBlocksReceived || chid == (dt.ChannelID{}) {
		return
	}
	c.group.Go(func() {
		if err := c.tryResume(chid); err != nil {
			c.cfg.Log.Debug("ask again for what was lost", "deal", cd.id, "error", err)
		}
	})
}

// stopAlarm ends what setAlarm began; mu is held.
func (cd *clientDeal) stopAlarm() {
	if cd.alarm != nil {
		cd.alarm.Stop()
		cd.alarm = nil
	}
}

// payUnasked pays for verified bytes before they are asked for, where the provider takes that, so that no round trip stops the stream.
func (c *Client) payUnasked(cd *clientDeal, received uint64) {
	cd.mu.Lock()
	due := cd.status == rm.DealStatusOngoing && received >= cd.next
	cd.mu.Unlock()
	if !due {
		return
	}
	d, _ := cd.machine.State()
	d.TotalReceived = max(d.TotalReceived, received)
	f := clientstates.RecordFacts(&d)
	c.addFacts(cd, &d, &f)
	act := accounting.Decide(clientstates.Terms(&d), f)
	if d.Status != rm.DealStatusOngoing || f.Demand != accounting.DemandNothing || act.Kind != accounting.ActionPay {
		return
	}
	cd.mu.Lock()
	cd.status = rm.DealStatusFundsNeeded // until the deal says so itself: one voucher for one decision
	cd.mu.Unlock()
	_ = cd.machine.Send(rm.ClientEventBlocksReceived, received)
	_ = cd.machine.Send(rm.ClientEventPaymentRequested, accounting.Missing(act.Amount, d.FundsSpent))
}

// agreesToPrepay says why what a provider asks for before its first byte is not paid, or nothing: the unseal price was agreed, and with a provider that
// gives no credit what is paid in advance.
func (c *Client) agreesToPrepay(d *rm.ClientDealState, owed abi.TokenAmount) (refused string) {
	if owed.LessThanEqual(d.UnsealPrice) {
		return ""
	}
	// Before the first byte the number is all that is owed, however old the message is.
	if owed.GreaterThan(clientstates.Terms(d).Due(d.PaymentInterval)) {
		return "too much money requested for bytes sent"
	}
	ok, err := c.advances.Reserve(c.ctx, clientstates.DealKey(d.ID), d.PayloadCID.String(), d.Sender.String(), d.PaymentInterval)
	if err != nil {
		c.cfg.Log.Warn("pay in advance", "deal", d.ID, "error", err)
	}
	if !ok {
		return fmt.Sprintf("too much money requested for bytes sent: the provider gives no credit, and %d bytes are not paid to it in advance: it or another one has kept an advance, or the limit is used up", d.PaymentInterval)
	}
	return ""
}

// growAdvance lets a deal be paid further in advance for one block that is larger than its interval: all that was paid for is here, the last voucher
// was sent again, and the provider waits.
func (c *Client) growAdvance(cd *clientDeal) {
	d, _ := cd.machine.State()
	f := c.Facts(d)
	t := clientstates.Terms(&d)
	cd.mu.Lock()
	sends := cd.sends
	cd.mu.Unlock()
	granted, ahead := f.Asked, t.PaidBytes(f.Requested)-min(t.PaidBytes(f.Requested), f.Verified)
	if !sends || granted == 0 || f.Whole || f.Repeats == 0 || f.Vouchered.LessThan(t.Due(f.Verified+granted)) || ahead <= granted || ahead > carstore.MaxBlock {
		return
	}
	if err := c.advances.Grow(c.ctx, clientstates.DealKey(d.ID), ahead); err != nil {
		c.cfg.Log.Warn("pay in advance", "deal", d.ID, "error", err)
	}
}

// AdvanceLosses lists what was paid in advance and never came, oldest first.
func (c *Client) AdvanceLosses() []accounting.Advance {
	if c.ready.Ready() != nil {
		return nil
	}
	return c.advances.Losses()
}

// endAdvance settles what a deal that ends was paid in advance.
func (c *Client) endAdvance(rec rm.ClientDealState) {
	lost := uint64(0)
	if paid := clientstates.Terms(&rec).PaidBytes(rec.FundsSpent); rec.Status != rm.DealStatusCompleted {
		lost = paid - min(paid, rec.TotalReceived)
	}
	if err := c.advances.End(context.WithoutCancel(c.ctx), clientstates.DealKey(rec.ID), lost); err != nil {
		c.cfg.Log.Warn("end of an advance", "deal", rec.ID, "error", err)
	}
}

// noteRequest notes what a request for payment says beside the amount: the acceptance may have been lost, and the provider may want money before its
// bytes.
func (c *Client) noteRequest(cd *clientDeal) {
	cd.mu.Lock()
	cd.sends = true
	cd.mu.Unlock()
	if st, _ := cd.machine.State(); st.Status == rm.DealStatusWaitForAcceptance || st.Status == rm.DealStatusWaitForAcceptanceLegacy {
		c.accept(cd)
	}
}
