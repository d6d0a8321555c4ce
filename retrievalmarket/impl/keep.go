package retrievalimpl

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cartage-dev/cartage/fsm"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

// keepEvery is how often a record is stored of which only the progress or the payments changed: a start counts the first anew from what
// is there, and takes the second from the voucher book, which is synced with each payment.
const keepEvery = 100 * time.Millisecond

// keeper stores the record of a deal. One that may wait is stored with what comes next, at the latest after keepEvery.
type keeper[T any] struct {
	write func(T) error

	mu     sync.Mutex
	at     time.Time
	rec    T
	waits  bool
	timer  *time.Timer
	closed bool
}

// later stores a record soon, and at once if the last one is old.
func (k *keeper[T]) later(rec T) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || time.Since(k.at) >= keepEvery {
		return k.put(rec, k.write)
	}
	k.rec, k.waits = rec, true
	if k.timer == nil {
		k.timer = time.AfterFunc(keepEvery, k.flush)
	}
	return nil
}

// now stores a record with write, and with it all that waits.
func (k *keeper[T]) now(rec T, write func(T) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.put(rec, write)
}

// put stores a record; mu is held. What waited is older, and is not stored any more, also if only the sync of this one failed.
func (k *keeper[T]) put(rec T, write func(T) error) error {
	k.waits = false
	if err := write(rec); err != nil {
		return err
	}
	k.at = time.Now()
	return nil
}

// flush stores what waits. A store that fails is told of by the next event.
func (k *keeper[T]) flush() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.timer = nil
	if k.waits && k.put(k.rec, k.write) != nil {
		k.waits = true
	}
}

// close stores what waits, and nothing later.
func (k *keeper[T]) close() {
	k.mu.Lock()
	k.closed = true
	if k.timer != nil {
		k.timer.Stop()
	}
	k.mu.Unlock()
	k.flush()
}

// persist stores the record of a deal after an event. What a start finds again in the target and the voucher book may wait.
func (c *Client) persist(cd *clientDeal, e fsm.EventName, rec rm.ClientDealState) (err error) {
	before := cd.last
	defer func() {
		if err == nil {
			cd.last = rec.Status
		}
	}()
	_, booked := c.cfg.Node.(rm.ClientBook)
	signs := rec.Status == rm.DealStatusSendFunds || rec.Status == rm.DealStatusSendFundsLastPayment
	durable := e == rm.ClientEventOpen || e == rm.ClientEventLaneAllocated && !booked || c.table.Final(rec.Status) || signs && !booked // M-37
	if !durable && (e == rm.ClientEventBlocksReceived && rec.Status == before || booked && paying(before) && paying(rec.Status)) {
		return cd.keep.later(rec)
	}
	if rec.Status == rm.DealStatusCompleted {
		if err := c.finishTarget(cd, rec); err != nil {
			return fmt.Errorf("complete the file of deal %s: %w", rec.ID, err)
		}
	}
	if c.table.Final(rec.Status) {
		c.release(rec)
		c.endAdvance(rec)
	}
	return cd.keep.now(rec, func(rec rm.ClientDealState) error { return c.put(rec, durable) })
}

// finishTarget makes the file of a complete deal one that a crash does not take.
func (c *Client) finishTarget(cd *clientDeal, rec rm.ClientDealState) error {
	cd.mu.Lock()
	defer cd.mu.Unlock()
	if cd.target == nil && c.cfg.Targets != nil && rec.AllBlocksReceived { // its transfer had ended before a start of this side
		t, err := c.cfg.Targets.Open(context.WithoutCancel(c.ctx), rec)
		if err != nil {
			return err
		}
		cd.target = t
	}
	if target, ok := cd.target.(FinishedTarget); ok {
		return target.Finish()
	}
	return nil
}

func (c *Client) put(rec rm.ClientDealState, durable bool) error {
	return c.store.put(context.WithoutCancel(c.ctx), rec.ID.String(), rec, durable)
}

// paying tells whether a status is one of those that a deal goes through with each payment.
func paying(s rm.DealStatus) bool {
	return s == rm.DealStatusOngoing || s == rm.DealStatusFundsNeeded || s == rm.DealStatusSendFunds
}
