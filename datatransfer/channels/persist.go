package channels

import (
	"bytes"
	"time"

	"github.com/ipfs/go-datastore"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/reason"
)

// store writes what events changed that were applied together. A store that fails makes the channel fail.
func (c *Channel) store(ws []work) error {
	persist, logged, half := false, false, true
	for i := range ws {
		c.dirty += max(1, 2*ws[i].blocks) // a block makes two events
		persist = persist || ws[i].persist
		logged = logged || ws[i].log != nil
		half = half && halfCounted(ws[i].event)
	}
	if !logged && (half || !persist && c.dirty < flushEvents && time.Since(c.flushed) < flushEvery) {
		c.arm()
		return nil
	}
	err := c.write(ws)
	for wait := 10 * time.Millisecond; err != nil && wait < time.Second && !c.set.group.Closed(); wait *= 10 {
		time.Sleep(wait)
		err = c.write(ws)
	}
	if status := ws[len(ws)-1].state.rec.Status; err != nil && !IsChannelCleaningUp(status) && !IsChannelTerminated(status) {
		_ = c.applyNow(dt.Error, reason.StoreFailed.Errorf("store channel: %w", err))
	}
	return err
}

// halfCounted tells that the state after an event has the bytes of a block and not yet its index, which the next event brings: a
// crash after storing it would count the block twice.
func halfCounted(e dt.EventCode) bool {
	return e == dt.DataQueuedProgress || e == dt.DataSentProgress || e == dt.DataReceivedProgress
}

func (c *Channel) write(ws []work) error {
	s := &c.set.store
	b, err := s.ds.Batch(s.ctx)
	if err != nil {
		return err
	}
	rows := 0
	for i := range ws {
		n, err := c.writeRows(b, &ws[i])
		if err != nil {
			return err
		}
		rows += n
	}
	last := &ws[len(ws)-1]
	hot := c.stored
	for i := len(ws) - 1; i >= 0; i-- {
		if !halfCounted(ws[i].event) {
			if hot, err = encodeHot(&ws[i].state.rec); err != nil {
				return err
			}
			break
		}
	}
	if changed := !bytes.Equal(hot, c.stored); changed || rows > 0 {
		if changed {
			err = b.Put(s.ctx, s.key("h", c.ID()), hot)
		}
		if err == nil {
			err = b.Commit(s.ctx)
		}
		if err != nil {
			return err
		}
	}
	c.stored, c.dirty, c.flushed = hot, 0, time.Now()
	if halfCounted(last.event) {
		c.dirty = flushEvents // the first block of a stage is not left to the clock
	}
	c.itemsStored(ws)
	return nil
}

// writeRows puts what an event appends to the lists of a channel into a batch, and reports how many rows that are.
func (c *Channel) writeRows(b datastore.Batch, w *work) (rows int, err error) {
	s := &c.set.store
	if w.part != "" {
		rows, err = rows+1, s.putItem(b, w.part, c.ID(), w.index, w.item)
	}
	if err == nil && w.log != nil {
		rows, err = rows+1, s.putLog(b, c.ID(), w.logAt, *w.log)
	}
	if err == nil && w.event == dt.CleanupComplete {
		rows, err = rows+1, s.putEnded(b, w.at, c.ID())
	}
	return rows, err
}

// itemsStored lets go of vouchers and results that are in the store now.
func (c *Channel) itemsStored(ws []work) {
	for i := range ws {
		w := &ws[i]
		if w.part == "" {
			continue
		}
		c.mu.Lock()
		next := *c.items
		if w.part == "v" {
			next.vouchers.stored(w.index)
		} else {
			next.results.stored(w.index)
		}
		c.items = &next
		c.mu.Unlock()
	}
}

// arm makes sure that the last counters are written soon although no further event comes.
func (c *Channel) arm() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil || c.set.group.Closed() {
		return
	}
	c.timer = time.AfterFunc(flushEvery, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.timer = nil
		if c.set.group.Closed() {
			return
		}
		c.push(work{event: flushOnly, persist: true, state: c.snapshot()})
	})
}

// flushOnly is work that stores and tells nobody.
const flushOnly = dt.EventCode(-1)

// Hold keeps what happens to a channel until Release, so that it is stored in one batch and told of when all of it is. It is for a few
// events that one message causes; nothing that blocks may come in between.
func (c *Channel) Hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held++; c.held == 1 {
		c.holds++
	}
}

// Release ends Hold.
func (c *Channel) Release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held--; c.held == 0 && len(c.work) > 0 && !c.busy {
		c.busy = c.set.group.Go(c.drain)
	}
}

// finish stores what waits when nothing drains a channel any more: its set is closed.
func (c *Channel) finish() {
	for {
		c.mu.Lock()
		if len(c.work) == 0 {
			c.mu.Unlock()
			return
		}
		ws := c.take(nil)
		c.mu.Unlock()
		err := c.write(ws)
		for i := range ws {
			if ws[i].done != nil {
				ws[i].done <- err
			}
		}
	}
}
