package retrievalimpl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/filecoin-project/go-state-types/abi"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/internal/lifecycle"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
)

// Bounds of leaving a deal: how long bytes that are on their way may still come, and how long it must be quiet to be over.
const (
	quietWait = 500 * time.Millisecond
	quietFor  = 50 * time.Millisecond
)

// isHeld tells whether the deal stands still.
func (cd *clientDeal) isHeld() bool {
	cd.mu.Lock()
	defer cd.mu.Unlock()
	return cd.held
}

// HoldDeal lets a deal stand still until ResumeDeal: nothing is asked for, paid or restarted for it, its deadlines do not count, and only
// its end by the other side or by CancelDeal is heard. With tell the provider is asked to pause. A deal that has ended is none.
func (c *Client) HoldDeal(ctx context.Context, id rm.DealID, tell bool) error {
	cd := c.deal(id)
	if cd == nil {
		return nil
	}
	cd.mu.Lock()
	chid := cd.chid
	cd.held = true
	cd.stopAlarm()
	cd.mu.Unlock()
	var err error
	if tell && chid != (dt.ChannelID{}) {
		err = c.cfg.Hub.dt.PauseDataTransferChannel(ctx, chid)
	}
	cd.machine.Disarm()
	return err
}

// PayDue asks a provider to stop, waits a moment for what is on its way, and pays for all that was verified, so that nothing is owed. Peers
// that do not take vouchers unasked are not paid here: they asked for what they want.
func (c *Client) PayDue(ctx context.Context, id rm.DealID) error {
	cd := c.deal(id)
	if cd == nil || cd.isHeld() {
		return nil
	}
	cd.mu.Lock()
	chid := cd.chid
	cd.mu.Unlock()
	if chid == (dt.ChannelID{}) || !c.takesUnasked(chid.Responder) {
		return nil
	}
	if err := c.cfg.Hub.dt.PauseDataTransferChannel(ctx, chid); err != nil {
		return fmt.Errorf("pause deal %s: %w", id, err)
	}
	c.quiet(ctx, cd)
	return c.payBeforeRestart(ctx, cd, chid)
}

// RaiseFunds lets a deal that used up its funds go on with more: total is what it may spend from its beginning, which its payment channel has
// for it.
func (c *Client) RaiseFunds(ctx context.Context, id rm.DealID, total abi.TokenAmount) error {
	cd := c.deal(id)
	if cd == nil {
		return fmt.Errorf("deal %s: %w", id, rm.ErrNotFound)
	}
	if err := cd.machine.Send(clientstates.FundsRaised, total); err != nil {
		return err
	}
	for { // the deal has left the state that the caller met
		if d, _ := cd.machine.State(); d.TotalFunds.GreaterThanEqual(total) || clientstates.IsFinal(d.Status) {
			return nil
		}
		if !lifecycle.Sleep(ctx, time.Millisecond) {
			return ctx.Err()
		}
	}
}

// quiet waits until no more bytes come, for a bounded time.
func (c *Client) quiet(ctx context.Context, cd *clientDeal) {
	ctx, cancel := context.WithTimeout(ctx, quietWait)
	defer cancel()
	bytes := func() uint64 {
		cd.mu.Lock()
		defer cd.mu.Unlock()
		return cd.received
	}
	for last := bytes(); lifecycle.Sleep(ctx, quietFor); {
		now := bytes()
		if now == last {
			return
		}
		last = now
	}
}

// ResumeDeal goes on with a deal that stands still: what is due is paid first, then the rest is asked for. One that does not stand still goes
// on as it does; one that has ended is an error.
func (c *Client) ResumeDeal(id rm.DealID) error {
	if err := c.ready.Ready(); err != nil {
		return err
	}
	cd := c.deal(id)
	if cd == nil {
		return fmt.Errorf("deal %s: %w", id, rm.ErrNotFound)
	}
	cd.mu.Lock()
	held := cd.held
	cd.held, cd.stored = false, cd.stored || held
	if held {
		cd.link = accounting.LinkRestarted
	}
	cd.mu.Unlock()
	if !held {
		return nil
	}
	d, _ := cd.machine.State()
	if clientstates.IsFinal(d.Status) {
		return errors.New("the deal has ended")
	}
	return c.takeUp(cd, d)
}
