package download

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cartage-dev/cartage/fsm"
	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/reason"
)

// owner is the one that changes an order: its machine, and the runner that works on it while it runs.
type owner struct {
	id      ID
	orders  *Orders
	machine *fsm.Machine[Order]
	broken  atomic.Bool // its record cannot be stored: what it is to become waits for the next start

	mu     sync.Mutex
	stored bool
	cancel context.CancelCauseFunc // of the runner; nil: there is none
	leases map[string]time.Time    // when each holder was last heard of
	ended  error                   // what ended the last run
	run    *progress
}

// progress is how far the last run of an order got, for who waits for it.
type progress struct {
	once  sync.Once
	begun chan struct{} // closed when it has a deal, or is over
	err   error         // what ended it before it had a deal
}

func newProgress() *progress { return &progress{begun: make(chan struct{})} }

func (p *progress) close(err error) {
	p.once.Do(func() {
		p.err = err
		close(p.begun)
	})
}

// track makes the owner of an order.
func (s *Orders) track(o Order, stored bool) *owner {
	c := &owner{id: o.ID, orders: s, stored: stored, leases: map[string]time.Time{}, run: newProgress()}
	c.machine = fsm.NewMachine(s.ctx, s.table, o, c, fsm.Hooks[Order]{
		Persist: func(e fsm.EventName, o Order) error { return c.persist(e.(event), o) },
		Notify:  func(e fsm.EventName, o Order) { c.notify(e.(event), o) },
		Failed: func(o Order, err error) (fsm.EventName, []any) {
			s.cfg.Log.Error("order", "order", o.ID, "error", err)
			c.broken.Store(true)
			return nil, nil
		},
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live[o.ID] = c
	for _, d := range o.Deals {
		s.deals[d] = c
	}
	return c
}

// persist stores what must outlive the process: an order with its first deal, and each state that nobody leaves without a person. One of a
// command that has no deal yet is not stored: it has cost nothing, and its command says what became of it.
func (c *owner) persist(e event, o Order) error {
	switch e {
	case evRenew, evTick, evPark, evCancel:
		if o.State == Running {
			return nil
		}
	}
	c.mu.Lock()
	stored := c.stored
	c.mu.Unlock()
	if !stored && len(o.Deals) == 0 && o.Owner != Queue {
		return nil
	}
	o.Changed = now()
	err := c.orders.put(context.WithoutCancel(c.orders.ctx), &o, !stored || o.State > Waiting)
	if err == nil {
		c.mu.Lock()
		c.stored = true
		c.mu.Unlock()
	}
	return err
}

// notify keeps what others look up, after the record is stored.
func (c *owner) notify(e event, o Order) {
	s := c.orders
	s.mu.Lock()
	for _, d := range o.Deals {
		s.deals[d] = c
	}
	if o.State.Final() {
		delete(s.live, c.id)
		for _, d := range o.Deals {
			delete(s.deals, d)
		}
	}
	s.mu.Unlock()
	if e == evRenew || e == evBind || e == evTick {
		return
	}
	if o.State != Running { // told before anybody finds the order in its new state
		c.mu.Lock()
		err := c.ended
		c.cancel, c.ended = nil, nil
		c.mu.Unlock()
		s.cfg.Market.Changed(o, err)
	}
	if o.State != Running || e == evResume {
		s.cfg.Log.Info("order", "order", o.ID, "state", o.State.String(), "reason", o.Reason.String())
	}
}

// goOn resumes an order for a request that equals it.
func (c *owner) goOn(ctx context.Context, req *Order, holder string) error {
	c.renew(holder)
	if o, _ := c.machine.State(); o.State == Running && o.leaving != reason.None { // it is about to stop, and goes on after that
		c.await(ctx, func(o Order) bool { return o.State != Running })
	}
	if o, _ := c.machine.State(); o.State != Running {
		c.mu.Lock()
		c.run = newProgress()
		c.mu.Unlock()
	}
	if err := c.machine.Send(evResume, change{req}); err != nil {
		return err
	}
	return c.machine.Wait(ctx)
}

func (c *owner) renew(holder string) {
	c.mu.Lock()
	c.leases[holder] = time.Now()
	c.mu.Unlock()
	_ = c.machine.Send(evRenew)
}

// release forgets a holder and reports whether another one is there.
func (c *owner) release(holder string, lease time.Duration) (held bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.leases, holder)
	for _, at := range c.leases {
		held = held || time.Since(at) < lease
	}
	return held
}

// await waits until an order is as ok says.
func (c *owner) await(ctx context.Context, ok func(Order) bool) bool {
	for {
		if o, busy := c.machine.State(); ok(o) && !busy {
			return true
		}
		if !lifecycle.Sleep(ctx, 5*time.Millisecond) {
			return false
		}
	}
}

// begun waits until the run has a deal or is over; who waits holds the order.
func (c *owner) begun(ctx context.Context, holder string) error {
	c.mu.Lock()
	run := c.run
	c.mu.Unlock()
	t := time.NewTicker(max(c.orders.cfg.Lease/3, time.Millisecond))
	defer t.Stop()
	for {
		select {
		case <-run.begun:
			return run.err
		case <-t.C:
			c.renew(holder)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// startRunner begins the work on an order, unless somebody works on it.
func (c *owner) startRunner(o Order) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancelCause(c.orders.ctx)
	run := c.run
	if c.orders.group.Go(func() {
		defer cancel(nil)
		c.work(ctx, o, run)
	}) {
		c.cancel = cancel
	}
}

// stopRunner asks the work on an order to end; it says when it has.
func (c *owner) stopRunner(why reason.Reason) {
	c.mu.Lock()
	cancel := c.cancel
	c.mu.Unlock()
	if cancel != nil {
		cancel(why)
	}
}
