package channels

import (
	"fmt"

	dt "github.com/cartage-dev/cartage/datatransfer"
)

// Apply applies an event. An event that has no transition in the present state is dropped and returned as an error.
func (c *Channel) Apply(event dt.EventCode, args ...any) error {
	if err := c.stopped(); err != nil {
		return err
	}
	return c.applyNow(event, args...)
}

func (c *Channel) applyNow(event dt.EventCode, args ...any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.apply(event, args...)
}

// ApplyIf applies an event if cond holds of the channel at that moment.
func (c *Channel) ApplyIf(cond func(r *Record, credit *Credit) bool, event dt.EventCode, args ...any) (applied bool, err error) {
	if err := c.stopped(); err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !cond(&c.rec, &c.Credit) {
		return false, nil
	}
	return true, c.apply(event, args...)
}

// stopped refuses events after the end of the set: nobody would store them.
func (c *Channel) stopped() error {
	if c.set.group.Closed() {
		return fmt.Errorf("channel %s: data transfer is stopped", c.id)
	}
	return nil
}

// Voucher records a voucher.
func (c *Channel) Voucher(e Encoded) error { return c.applyItem(dt.NewVoucher, "v", e) }

// Result records a voucher result.
func (c *Channel) Result(e Encoded) error { return c.applyItem(dt.NewVoucherResult, "r", e) }

func (c *Channel) applyItem(event dt.EventCode, part string, e Encoded) error {
	if err := c.stopped(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.apply(event); err != nil {
		return err
	}
	w := &c.work[len(c.work)-1]
	w.part, w.item = part, e
	next := *c.items
	if part == "v" {
		w.index, next.last = c.rec.Vouchers-1, e
		next.vouchers.add(w.index, e)
		if w.index == 0 {
			next.first = e
		}
	} else {
		w.index, next.lastResult = c.rec.Results-1, e
		next.results.add(w.index, e)
	}
	c.items = &next
	w.state = c.snapshot()
	return nil
}
