package channels

import (
	"time"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/port"
)

// A run stands for any number of blocks in a row. When nobody listens to each block, blocks are counted at once, and told of together: the
// newest state, at most every runEvery. Whatever else happens to the channel closes the run first, so that order and states are as if
// each block had been told of.

const (
	runEvery = 500 * time.Microsecond
	// runOfBlocks is the work of a run.
	runOfBlocks = dt.EventCode(-2)
)

// runEvents are what a run is told as: kinds by their bit.
var runEvents = [...]struct{ progress, kind dt.EventCode }{
	{dt.DataQueuedProgress, dt.DataQueued}, {dt.DataSentProgress, dt.DataSent}, {dt.DataReceivedProgress, dt.DataReceived},
}

func bitOf(kind dt.EventCode) uint8 {
	for i, e := range runEvents {
		if e.kind == kind {
			return 1 << i
		}
	}
	return 0
}

// Coarse says when blocks may be told of together: while nobody listens to each. It is set before the first channel.
func (s *Set) Coarse(now func() bool) { s.coarse = now }

// coarse tells whether a block may join a run: nothing but counters changes, and its line is in the log of the stage already, or about to
// be. mu is held.
func (c *Channel) coarse(progress dt.EventCode, fresh bool) bool {
	if c.set.coarse == nil || !c.set.coarse() || !in(moving, c.rec.Status) {
		return false
	}
	plain := &c.plain[0]
	for i, e := range runEvents {
		if e.progress == progress {
			plain = &c.plain[i]
		}
	}
	bit := uint64(1) << c.rec.Status
	if !fresh || *plain&bit != 0 {
		return true
	}
	*plain |= bit
	text, ok := logTexts[progress]
	return !ok || c.lastLog[c.rec.Status] == text
}

// run notes a block that was counted; mu is held.
func (c *Channel) run(kind dt.EventCode) {
	if n := len(c.work); n > 0 && c.work[n-1].open {
		c.work[n-1].kinds |= bitOf(kind)
		c.work[n-1].blocks++
		return
	}
	c.active = time.Now()
	c.push(work{event: runOfBlocks, kinds: bitOf(kind), blocks: 1, open: true})
}

// Blocks is Block for several blocks, each of which the other side did not have.
func (c *Channel) Blocks(kind, progress dt.EventCode, blocks []port.BlockRef) (err error) {
	if err := c.stopped(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range blocks {
		if _, _, err = c.block(kind, progress, p.Size, p.Index, true); err != nil {
			return err
		}
	}
	return nil
}

// closeRun takes the state of a run that waits, before anything else changes it; mu is held.
func (c *Channel) closeRun() {
	n := len(c.work)
	if n == 0 || !c.work[n-1].open {
		return
	}
	w := &c.work[n-1]
	w.open, w.state, w.at = false, c.snapshot(), c.active
	if c.kick != nil {
		select {
		case c.kick <- struct{}{}:
		default:
		}
	}
}

// awaitRun waits for more blocks of the run that is due, if one was told a moment ago and nothing waits behind it. It is called with mu
// held, and has given it up if it answers true.
func (c *Channel) awaitRun() bool {
	rest := runEvery - time.Since(c.told)
	if !c.work[0].open || rest <= 0 {
		return false
	}
	if c.kick == nil {
		c.kick = make(chan struct{}, 1)
	}
	kick := c.kick
	c.mu.Unlock()
	t := time.NewTimer(rest)
	defer t.Stop()
	select {
	case <-kick:
	case <-t.C:
	}
	return true
}

// tell tells of an event, or of the blocks of a run.
func (c *Channel) tell(w work) {
	if w.event != runOfBlocks {
		c.set.notify(dt.Event{Code: w.event, Message: w.state.rec.Message, Timestamp: w.at, Cause: w.state.rec.Cause}, w.state)
		return
	}
	for i, e := range runEvents {
		if w.kinds&(1<<i) == 0 {
			continue
		}
		for _, code := range []dt.EventCode{e.progress, e.kind} {
			c.set.notify(dt.Event{Code: code, Message: w.state.rec.Message, Timestamp: w.at}, w.state)
		}
	}
}
