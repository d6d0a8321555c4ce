package retrievalimpl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/filecoin-project/go-state-types/big"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/fsm"
	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/reason"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
	"github.com/cartage-dev/cartage/retrievalmarket/legacy"
)

// load takes up a stored deal that is not finished (3.8), or lets it stand still. What the voucher book says is raised into it.
func (c *Client) load(ctx context.Context, d rm.ClientDealState, hold bool) error {
	if b, ok := c.cfg.Node.(rm.ClientBook); ok {
		best, err := b.BestForDeal(ctx, clientstates.DealKey(d.ID))
		if err != nil {
			return err
		}
		if best != nil && best.Amount.GreaterThan(d.FundsSpent) {
			d.PaymentRequested = big.Max(big.Zero(), big.Sub(d.PaymentRequested, big.Sub(best.Amount, d.FundsSpent)))
			d.FundsSpent = best.Amount
			d.UnsealFundsPaid = big.Min(d.UnsealPrice, best.Amount)
			d.BytesPaidFor = clientstates.Terms(&d).PaidBytes(best.Amount)
		}
	}
	if err := c.recount(ctx, &d); err != nil {
		return err
	}
	cd := c.track(d)
	cd.mu.Lock()
	cd.stored, cd.link, cd.signed, cd.held = true, accounting.LinkRestarted, d.FundsSpent, hold
	cd.mu.Unlock()
	if hold {
		return nil
	}
	return c.takeUp(cd, d)
}

// takeUp goes on with a deal that is in progress.
func (c *Client) takeUp(cd *clientDeal, d rm.ClientDealState) error {
	if d.ChannelID == (dt.ChannelID{}) || d.Status == rm.DealStatusNew || d.Status == rm.DealStatusRetryLegacy || d.Status == rm.DealStatusFailing || d.Status == rm.DealStatusCancelling {
		return notEnded(cd.machine.Reenter())
	}
	c.resume(cd, d.ChannelID)
	return notEnded(cd.machine.Reenter())
}

// recount corrects a record that says that everything is here: a power loss may have taken what the file had not synced.
func (c *Client) recount(ctx context.Context, d *rm.ClientDealState) error {
	if !d.AllBlocksReceived || c.cfg.Targets == nil {
		return nil
	}
	t, err := c.cfg.Targets.Open(ctx, *d)
	if err != nil || t == nil {
		return err
	}
	defer c.cfg.Targets.Done(*d)
	sel, err := d.SelectorNode()
	if err != nil {
		return err
	}
	pos, err := t.Locate(sel)
	if err != nil || pos.Complete {
		return err
	}
	d.AllBlocksReceived, d.TotalReceived = false, pos.Bytes-min(pos.Bytes, t.Base())
	if d.Status == rm.DealStatusCheckComplete || d.Status == rm.DealStatusFinalizing || d.Status == rm.DealStatusBlocksComplete {
		d.Status = rm.DealStatusOngoing
	}
	return nil
}

// notEnded is the error of taking up a deal. That its transfer ended it already is none.
func notEnded(err error) error {
	if errors.Is(err, fsm.ErrTerminated) {
		return nil
	}
	return err
}

// resume restarts the channel of a deal, as often as it takes within limits.
func (c *Client) resume(cd *clientDeal, chid dt.ChannelID) {
	c.group.Go(func() {
		var err error
		for i, wait := 0, 100*time.Millisecond; i < resumeAttempts && c.ctx.Err() == nil; i, wait = i+1, min(2*wait, 10*time.Second) {
			if err = c.tryResume(chid); err == nil {
				return
			}
			if errors.Is(err, errChannelOver) {
				break
			}
			if !lifecycle.Sleep(c.ctx, wait) {
				return
			}
		}
		cd.mu.Lock()
		stale := cd.stale(chid)
		cd.mu.Unlock()
		if c.ctx.Err() == nil && !stale {
			_ = cd.machine.Send(rm.ClientEventDataTransferError, lostOr(err).Errorf("deal data transfer could not be restarted: %w", err))
		}
	})
}

var errChannelOver = errors.New("the transfer has ended")

// lostOr is the reason of an error that kept a transfer from going on; one that has ended is lost to its deal.
func lostOr(err error) reason.Reason {
	if r := reason.From(err); r != reason.Unknown && r != reason.TimedOut && !errors.Is(err, errChannelOver) {
		return r
	}
	if errors.Is(err, errChannelOver) {
		return reason.DealLost
	}
	return reason.PeerUnreachable
}

func (c *Client) tryResume(chid dt.ChannelID) error {
	ctx, cancel := context.WithTimeout(c.ctx, 30*time.Second)
	defer cancel()
	s, err := c.cfg.Hub.dt.ChannelState(ctx, chid)
	if err != nil {
		return fmt.Errorf("%w: %w", errChannelOver, err)
	}
	switch s.Status() {
	case dt.Failed, dt.Cancelled, dt.Failing, dt.Cancelling:
		return fmt.Errorf("%w: %s", errChannelOver, dt.Statuses[s.Status()])
	case dt.Completed, dt.Completing:
		if cd := c.dealOf(s); cd != nil {
			cd.mu.Lock()
			received := cd.verified(s.Received())
			cd.mu.Unlock()
			c.allHere(cd, received)
		}
		return nil
	}
	if err := c.cfg.Hub.dt.ConnectTo(ctx, chid.Responder); err != nil {
		return err
	}
	if err := c.prepareRestart(ctx, chid); err != nil {
		return err
	}
	if err := c.cfg.Hub.dt.RestartDataTransferChannel(ctx, chid); err != nil {
		return err
	}
	if st := s.Status(); st == dt.InitiatorPaused || st == dt.BothPaused { // by HoldDeal
		return c.cfg.Hub.dt.ResumeDataTransferChannel(ctx, chid)
	}
	return nil
}

// bind makes the events of a channel those of a deal.
func (c *Client) bind(cd *clientDeal, chid dt.ChannelID) {
	cd.mu.Lock()
	before := cd.chid
	cd.chid = chid
	cd.mu.Unlock()
	c.mu.Lock()
	delete(c.byChan, before)
	c.byChan[chid] = cd
	c.mu.Unlock()
}

// unbind lets a deal hear of the channel that it is about to open: the answer may be here before its name is known.
func (c *Client) unbind(cd *clientDeal) {
	cd.mu.Lock()
	before := cd.chid
	if before != (dt.ChannelID{}) {
		cd.former, cd.chid = append(cd.former, before), dt.ChannelID{}
	}
	cd.mu.Unlock()
	c.mu.Lock()
	delete(c.byChan, before)
	c.mu.Unlock()
}

// stale tells whether a channel is not the one of the deal's present proposal; mu is held.
func (cd *clientDeal) stale(chid dt.ChannelID) bool {
	if cd.chid == (dt.ChannelID{}) {
		return slices.Contains(cd.former, chid)
	}
	return cd.chid != chid
}

// dealOf finds the deal of a channel; one that is being opened is known from its voucher only.
func (c *Client) dealOf(s dt.ChannelState) *clientDeal {
	c.mu.Lock()
	cd := c.byChan[s.ChannelID()]
	c.mu.Unlock()
	if cd != nil {
		return cd
	}
	if p := legacy.Proposal(s.Voucher()); p != nil {
		if cd := c.deal(p.ID); cd != nil {
			return cd
		}
	}
	return nil
}

// prepareRestart brings the counters to what the file holds, and pays what is due for it before any more data is asked for:
// the provider may have lost count, and the best voucher may never have arrived.
func (c *Client) prepareRestart(ctx context.Context, chid dt.ChannelID) error {
	s, err := c.cfg.Hub.dt.ChannelState(ctx, chid)
	if err != nil {
		return err
	}
	cd := c.dealOf(s)
	if cd == nil {
		return nil
	}
	if cd.isHeld() {
		return reason.ParkedAsked.Errorf("deal %s stands still", cd.id)
	}
	cd.mu.Lock()
	cd.link = accounting.LinkRestarted // whatever the restart is for, messages may be lost
	cd.mu.Unlock()
	if err := c.openTarget(ctx, cd); err != nil {
		return err
	}
	if cd.target != nil {
		if err := c.reposition(ctx, cd, chid, s); err != nil {
			return err
		}
	}
	if !c.takesUnasked(chid.Responder) {
		return nil
	}
	return c.payBeforeRestart(ctx, cd, chid)
}

func (c *Client) reposition(ctx context.Context, cd *clientDeal, chid dt.ChannelID, s dt.ChannelState) error {
	pos, err := cd.target.Locate(s.Selector())
	if err != nil {
		return err
	}
	if synced, ok := cd.target.(SyncedTarget); ok && pos.Blocks > 0 { // a claim that a loss of power takes back would be withheld
		if err := synced.Sync(); err != nil {
			return err
		}
	}
	received := pos.Bytes - min(pos.Bytes, cd.target.Base())
	if err := c.cfg.Hub.dt.Reposition(ctx, chid, received, pos.Blocks); err != nil {
		return err
	}
	cd.mu.Lock()
	cd.received = received
	if pos.Complete {
		cd.hide = pos.Last
	}
	cd.mu.Unlock()
	if err := cd.machine.Send(rm.ClientEventBlocksReceived, received); err != nil {
		return err
	}
	if pos.Complete {
		return c.cfg.Hub.dt.HasAll(ctx, chid)
	}
	return nil
}

// payBeforeRestart sends a voucher for everything that is due and waits until the provider has it in its book.
func (c *Client) payBeforeRestart(ctx context.Context, cd *clientDeal, chid dt.ChannelID) error {
	wctx, done := context.WithTimeout(ctx, 2*time.Second)
	err := cd.machine.Wait(wctx)
	done()
	if err != nil && ctx.Err() != nil {
		return err
	}
	deal, _ := cd.machine.State()
	if deal.PaymentInfo == nil || deal.Status == rm.DealStatusPaymentChannelAllocatingLane || clientstates.Terms(&deal).Free() {
		return nil
	}
	if deal.Status == rm.DealStatusFailing || deal.Status == rm.DealStatusCancelling || clientstates.IsFinal(deal.Status) {
		return nil // it pays nothing more
	}
	cd.mu.Lock()
	due := clientstates.Terms(&deal).Due(cd.received)
	cd.mu.Unlock()
	v := big.Min(big.Max(deal.FundsSpent, due), deal.TotalFunds)
	if v.Sign() <= 0 {
		return nil
	}
	voucher, err := clientstates.CreateVoucher(ctx, c.cfg.Node, deal, v)
	var short rm.ShortfallError
	if errors.As(err, &short) {
		if deal.FundsSpent.Sign() <= 0 {
			return nil // the deal says so itself when it is asked for money
		}
		v = deal.FundsSpent // what was signed before may not have come
		voucher, err = clientstates.CreateVoucher(ctx, c.cfg.Node, deal, v)
	}
	if err != nil {
		return fmt.Errorf("voucher before restart: %w", err)
	}
	acked := make(chan struct{}, 1)
	unsub := c.cfg.Hub.dt.SubscribeToProgress(func(e dt.Event, s dt.ChannelState) {
		switch e.Code {
		case dt.NewVoucherResult, dt.ResumeResponder, dt.PauseResponder, dt.CleanupComplete:
			if s.ChannelID() == chid {
				select {
				case acked <- struct{}{}:
				default:
				}
			}
		}
	})
	defer unsub()
	// The deal hears of it first: one that has ended pays nothing more.
	if err := cd.machine.Send(rm.ClientEventPaymentSent, v); err != nil {
		return err
	}
	if err := c.SendDataTransferVoucher(ctx, chid, &rm.DealPayment{ID: deal.ID, PaymentChannel: deal.PaymentInfo.PayCh, PaymentVoucher: voucher}, deal.LegacyProtocol); err != nil {
		return err
	}
	select {
	case <-acked:
	case <-time.After(ackWait):
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// resend sends the best voucher of a deal once more after a restart: a provider of another kind may never have got it, and
// waits for it without asking again. The same voucher twice is paid once.
func (c *Client) resend(cd *clientDeal, chid dt.ChannelID) {
	deal, _ := cd.machine.State()
	if deal.PaymentInfo == nil || deal.FundsSpent.Sign() <= 0 {
		return
	}
	ctx, cancel := context.WithTimeout(c.ctx, 30*time.Second)
	defer cancel()
	voucher, err := clientstates.CreateVoucher(ctx, c.cfg.Node, deal, deal.FundsSpent)
	if err == nil {
		err = c.cfg.Hub.dt.SendVoucher(ctx, chid, &rm.DealPayment{ID: deal.ID, PaymentChannel: deal.PaymentInfo.PayCh, PaymentVoucher: voucher})
	}
	if err != nil {
		c.cfg.Log.Warn("send the last voucher again", "deal", deal.ID, "error", err)
	}
}

// maxProposals is how often a proposal is made again that may never have arrived.
const maxProposals = 3

// proposeAgain makes a proposal once more that may never have arrived: the connection was lost after it, and the provider does
// not know the channel that was to go on. Nothing was received and nothing was paid.
func (c *Client) proposeAgain(cd *clientDeal) bool {
	st, _ := cd.machine.State()
	waits := st.Status == rm.DealStatusWaitForAcceptance || st.Status == rm.DealStatusWaitForAcceptanceLegacy
	cd.mu.Lock()
	lost := cd.link == accounting.LinkRestarted && !cd.answered && cd.again < maxProposals && waits && st.FundsSpent.Sign() == 0
	if lost {
		cd.again, cd.stored = cd.again+1, false
	}
	cd.mu.Unlock()
	if !lost {
		return false
	}
	c.unbind(cd)
	return cd.machine.Send(clientstates.ProposedAgain) == nil
}
