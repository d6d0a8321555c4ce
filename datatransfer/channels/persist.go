package channels

import (
	"fmt"
	"time"

	dt "github.com/cartage-dev/cartage/datatransfer"
)

// store writes what an event changed. A store that fails makes the channel fail.
func (c *Channel) store(w work) error {
	c.dirty += max(1, 2*w.blocks) // a block makes two events
	if halfCounted(w.event) && w.log == nil {
		c.arm()
		return nil
	}
	if !w.persist && w.log == nil && c.dirty < flushEvents && time.Since(c.flushed) < flushEvery {
		c.arm()
		return nil
	}
	err := c.write(w)
	for wait := 10 * time.Millisecond; err != nil && wait < time.Second && !c.set.group.Closed(); wait *= 10 {
		time.Sleep(wait)
		err = c.write(w)
	}
	if err != nil && !IsChannelCleaningUp(w.state.rec.Status) && !IsChannelTerminated(w.state.rec.Status) {
		_ = c.applyNow(dt.Error, fmt.Sprintf("store channel: %s", err))
	}
	return err
}

// halfCounted tells that the state after an event has the bytes of a block and not yet its index, which the next event brings: a
// crash after storing it would count the block twice.
func halfCounted(e dt.EventCode) bool {
	return e == dt.DataQueuedProgress || e == dt.DataSentProgress || e == dt.DataReceivedProgress
}

func (c *Channel) write(w work) error {
	s := &c.set.store
	b, err := s.ds.Batch(s.ctx)
	if err != nil {
		return err
	}
	if w.part != "" {
		err = s.putItem(b, w.part, c.ID(), w.index, w.item)
	}
	if err == nil && w.log != nil {
		err = s.putLog(b, c.ID(), w.logAt, *w.log)
	}
	if err == nil && w.event == dt.CleanupComplete {
		err = s.putEnded(b, w.at, c.ID())
	}
	if err == nil && !halfCounted(w.event) {
		err = s.putHot(b, &w.state.rec)
	}
	if err == nil {
		err = b.Commit(s.ctx)
	}
	c.dirty, c.flushed = 0, time.Now()
	if halfCounted(w.event) {
		c.dirty = flushEvents // the first block of a stage is not left to the clock
	}
	if err == nil && w.part != "" {
		c.mu.Lock()
		defer c.mu.Unlock()
		next := *c.items
		if w.part == "v" {
			next.vouchers.stored(w.index)
		} else {
			next.results.stored(w.index)
		}
		c.items = &next
	}
	return err
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
