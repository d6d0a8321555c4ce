package node

import (
	"context"
	"errors"
	"time"

	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/paych"
)

// firstContact is how often a chain that was never reached is asked for its pace.
const firstContact = time.Second

// settleWatch is the last look at the payment channels.
type settleWatch struct {
	at     time.Time
	period time.Duration
	err    error
}

// tendPayments looks after the payment channels for as long as the node runs, as often as the settle window of the chain wants it.
func (n *Node) tendPayments() {
	period, ok := n.watchPeriod()
	for ok && lifecycle.Sleep(n.ctx, period) {
		err := n.Payments.Maintain(n.ctx)
		n.watched.Store(&settleWatch{at: time.Now(), period: period, err: err})
		switch {
		case err == nil || n.ctx.Err() != nil:
		case errors.Is(err, paych.ErrLost):
			n.log.Error("money was lost: vouchers were not redeemed in time", "error", err)
		default:
			n.log.Warn("look after payment channels", "error", err)
		}
	}
}

// watchPeriod waits for the chain and derives from it how often channels are looked at. False: the node ends.
func (n *Node) watchPeriod() (time.Duration, bool) {
	var t paych.Timing
	for said := false; ; {
		var err error
		if t, err = n.Payments.Timing(n.ctx); err == nil {
			break
		}
		if !said && n.ctx.Err() == nil {
			n.log.Warn("look after payment channels: the chain is away", "error", err)
			said = true
		}
		if !lifecycle.Sleep(n.ctx, firstContact) {
			return 0, false
		}
	}
	wanted := time.Duration(n.parts.Config.Ledger.Watch)
	period, clamped := t.WatchPeriod(wanted)
	if clamped {
		n.log.Warn("ledger.watch is more than a quarter of the settle window", "watch", wanted, "window", t.Window(), "used", period)
	}
	if err := n.Payments.CheckWindow(n.ctx); errors.Is(err, paych.ErrSettleWindow) && n.Provider != nil {
		n.log.Error("no payment is taken on this chain", "error", err)
	}
	return period, true
}

// refusesMoney is why nothing is sold for money on this chain. A chain that is away is no reason: vouchers are checked when they come.
func (n *Node) refusesMoney(ctx context.Context) error {
	if n.Payments == nil {
		return nil
	}
	if err := n.Payments.CheckWindow(ctx); errors.Is(err, paych.ErrSettleWindow) {
		return err
	}
	return nil
}
