package download

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/reason"
)

// Bounds of a run.
const (
	maxFailures = 3 // deals in a row that brought nothing
	retryPause  = time.Second
	leaveTime   = 4 * time.Second // to pay what is due and say so
)

// work runs an order until it is over, and says how.
func (c *owner) work(ctx context.Context, o Order, run *progress) {
	moved, err := false, c.slot(ctx, o)
	if err == nil {
		if moved, err = c.attempts(ctx, run); err == nil {
			err = c.deliver(ctx, o)
		}
		c.freeSlot(o)
	}
	o, _ = c.machine.State()
	e, args, over := c.verdict(ctx, &o, moved, err)
	if !over {
		run.close(errStopping)
		return
	}
	if e != evDone {
		c.leaveDeals(ctx, o, args)
	}
	c.mu.Lock()
	c.ended = err
	c.mu.Unlock()
	_ = c.machine.Send(e, args...)
	c.await(context.WithoutCancel(ctx), func(o Order) bool { return o.State != Running || c.orders.ctx.Err() != nil || c.broken.Load() })
	if now, _ := c.machine.State(); now.State == Running { // it could not be stored: who waits is told all the same
		c.orders.cfg.Market.Changed(after(o, e, args), err)
	}
	run.close(err)
}

// after is an order as the end of its run leaves it.
func after(o Order, e event, args []any) Order {
	o.State = map[event]State{evDone: Done, evParked: Parked, evWaits: Waiting, evFailed: Failed, evCancelled: Cancelled}[e]
	o.Reason = reason.None
	if len(args) > 0 {
		o.Reason = args[0].(reason.Reason)
	} else if e == evCancelled {
		o.Reason = reason.Cancelled
	}
	return o
}

// verdict is how a run ends: over is false when the process stops and the order goes on at its next start.
func (c *owner) verdict(ctx context.Context, o *Order, moved bool, err error) (e event, args []any, over bool) {
	cause := context.Cause(ctx)
	var left reason.Reason
	switch {
	case err == nil:
		return evDone, nil, true
	case errors.Is(cause, errStopping):
		return "", nil, false
	case errors.As(cause, &left) && left == reason.Cancelled:
		return evCancelled, nil, true
	case left != reason.None:
		return evParked, []any{left}, true
	}
	why := reason.From(err)
	switch stays := why.CanPass() || why.Exit() == reason.ExitFunds || why == reason.ExposureAbove; {
	case why == reason.Cancelled: // its deal was cancelled
		return evCancelled, nil, true
	case stays && o.Owner != Command && why.CanPass():
		if o.Owner == API && len(o.Deals) == 0 {
			return evFailed, []any{why}, true
		}
		return evWaits, []any{why, moved}, true
	case stays && len(o.Deals) > 0:
		return evParked, []any{why}, true
	}
	return evFailed, []any{why}, true
}

// leaveDeals pays what is due while the order still may, and ends its deals or lets them stand still.
func (c *owner) leaveDeals(ctx context.Context, o Order, args []any) {
	why := reason.Cancelled
	if len(args) > 0 {
		why = args[0].(reason.Reason)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
	defer cancel()
	if err := c.orders.cfg.Market.Leave(ctx, o, why); err != nil {
		c.orders.cfg.Log.Warn("leave the deals of an order", "order", o.ID, "error", err)
	}
}

// slot waits until an order of the queue may begin.
func (c *owner) slot(ctx context.Context, o Order) error {
	if o.Owner != Queue {
		return nil
	}
	select {
	case c.orders.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// deliver writes the output of an order of the queue. That of a command is written by the command.
func (c *owner) deliver(ctx context.Context, o Order) error {
	if o.Owner != Queue || o.Output == "" || c.orders.cfg.Deliver == nil {
		return nil
	}
	return c.orders.cfg.Deliver(ctx, o)
}

func (c *owner) freeSlot(o Order) {
	if o.Owner == Queue {
		<-c.orders.slots
	}
}

// attempts makes one deal after another until everything is here, or another one would not help.
func (c *owner) attempts(ctx context.Context, run *progress) (moved bool, err error) {
	market := c.orders.cfg.Market
	failures, first := 0, true
	for {
		o, _ := c.machine.State() // with the deals that it has by now
		if here, err := market.Complete(ctx, o); err != nil || here {
			return moved, err
		}
		got, err := c.attempt(ctx, run)
		moved = moved || got.Moved
		switch why := reason.From(err); {
		case err == nil && !got.Part:
			return moved, nil
		case err == nil && got.Moved:
			failures, first = 0, false
			continue
		case err == nil:
			err = errNothingNew
		case ctx.Err() != nil:
			return moved, context.Cause(ctx)
		case why == reason.ParkedStall || got.Final:
			return moved, err
		case !got.tried && first, !why.CanPass() && !got.stale:
			return moved, err
		}
		first = false
		if failures++; got.Moved {
			failures = 0
		}
		if failures >= maxFailures {
			return moved, err
		}
		if !lifecycle.Sleep(ctx, retryPause<<failures/2) {
			return moved, context.Cause(ctx)
		}
	}
}

// errNothingNew is the error of a deal that is complete, and brought nothing of what is missing.
var errNothingNew error = reason.DataMissing.Errorf("a deal was completed, and nothing that is missing came with it")

// result is how one attempt went.
type result struct {
	Outcome
	tried bool // there was a deal
	stale bool // it was one of an earlier run, which the other side may have given up since
}

func (c *owner) attempt(ctx context.Context, run *progress) (got result, err error) {
	market := c.orders.cfg.Market
	o, _ := c.machine.State()
	spent, err := market.Spent(ctx, o.Deals)
	if err != nil {
		return got, err
	}
	d, err := market.Deal(ctx, Attempt{Order: o, Left: o.Left(spent), Bind: c.bind})
	if err != nil {
		return got, err
	}
	got.tried = true
	run.close(nil)
	ctx, watch := c.watchStall(ctx, o)
	defer watch.stop()
	got.Outcome, err = market.Await(ctx, o, d, watch.moved)
	why := reason.From(err)
	got.stale = slices.Contains(o.Deals, d) && (why == reason.PeerRefused || why == reason.PeerCancelled)
	if watch.stalled() {
		err = reason.ParkedStall.Errorf("no progress for %s", watch.after)
	}
	return got, err
}

// bind makes a deal one of the order before anything may be paid for it.
func (c *owner) bind(ctx context.Context, d Deal) error {
	o, _ := c.machine.State()
	if slices.Contains(o.Deals, d) {
		return nil
	}
	if len(o.Deals) >= maxDeals {
		return reason.Lifetime.Errorf("order %s has had %d deals", c.id, maxDeals)
	}
	if err := c.machine.Send(evBind, uint64(d)); err != nil {
		return err
	}
	if err := c.machine.Wait(ctx); err != nil {
		return err
	}
	if o, _ = c.machine.State(); !slices.Contains(o.Deals, d) {
		return reason.StoreFailed.Errorf("order %s could not be stored with its deal", c.id)
	}
	return nil
}

// stallWatch ends a wait in which no bytes come.
type stallWatch struct {
	after  time.Duration
	timer  *time.Timer
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func (c *owner) watchStall(ctx context.Context, o Order) (context.Context, *stallWatch) {
	w := &stallWatch{after: c.orders.cfg.Market.Stall(o)}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	if w.after > 0 {
		w.timer = time.AfterFunc(w.after, func() { w.cancel(reason.ParkedStall) })
	}
	return w.ctx, w
}

func (w *stallWatch) moved() {
	if w.timer != nil {
		w.timer.Reset(w.after)
	}
}

func (w *stallWatch) stalled() bool { return errors.Is(context.Cause(w.ctx), reason.ParkedStall) }

func (w *stallWatch) stop() {
	if w.timer != nil {
		w.timer.Stop()
	}
	w.cancel(nil)
}
