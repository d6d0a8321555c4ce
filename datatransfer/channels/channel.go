package channels

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	cbg "github.com/whyrusleeping/cbor-gen"

	dt "github.com/cartage-dev/cartage/datatransfer"
)

// How often byte counters alone are written.
const (
	flushEvery  = 100 * time.Millisecond
	flushEvents = 64
)

// Channel owns one record. Events are applied at once under a short lock; storing, notifying and cleanup follow in
// order on a goroutine that exists only while there is something to do.
type Channel struct {
	set *Set

	mu      sync.Mutex
	rec     Record
	items   *items
	lastLog map[dt.Status]string
	id      dt.ChannelID // immutable, as pull: the record is replaced with each event
	pull    bool
	work    []work
	busy    bool
	warned  time.Time
	dirty   int
	flushed time.Time
	stored  []byte // the record as it is in the store; nil when it was not written in this process
	timer   *time.Timer
	held    int    // Hold without Release
	holds   uint64 // number of the present one
	cleaned bool
	slow    bool      // it was told that the subscribers do not keep up
	active  time.Time // of the last event

	// Credit is the state of the one comparison of position and limit (see impl).
	Credit Credit

	spare []work        // the memory of the queue that was worked off last
	told  time.Time     // when a run was told last
	plain [3]uint64     // by kind of block: statuses, as bits, in whose log its line is
	kick  chan struct{} // wakes who waits to tell the next one
	// Inbound serialises what the messages of the other side do to this channel: they come on several paths (W-23).
	Inbound sync.Mutex
}

// Credit says how far the sender may go.
type Credit struct {
	Limited bool
	Limit   uint64
	// Exact: a block goes only if the limit covers it whole; Next is the size of the one that waits, 0 if nobody has read it yet.
	Exact   bool
	Next    uint64
	Paused  bool // the other side was told that the sender waits, and not yet that it goes on
	Asked   uint64
	Has     uint64 // position that the recipient named with its last request
	Grants  uint64 // times that a voucher let the sender go on
	Settled uint64 // times that a voucher was good for everything up to then
	Held    bool   // the application of the responder paused, whatever the limit says
	// Awaiting: the validator accepted the channel paused, and neither a resume nor a voucher has let it begin.
	Awaiting bool
	Resent   uint64 // bytes that went out again and were not counted
	Restart  int    // restarts so far
	Refused  int    // times that a restart was refused before the channel was accepted
	Ignore   bool   // the end of the request that was refused is no failure
	Unasked  bool   // a push was restarted and its responder has not asked for data since
	Silent   bool   // the application of the responder has stopped: nothing is answered until the manager has
	Behind   bool   // it was taken up from the store: what was sent last may not be counted
	Opening  bool   // a push was accepted paused and its request is not out yet: a resume waits for it

	NextRestart time.Time // see impl.Limits
}

// Open tells whether a sender at a position is below its limit: the block that is next may go.
func (k *Credit) Open(position uint64) bool {
	if k.Exact {
		return position <= k.Limit && k.Next <= k.Limit-position
	}
	return position < k.Limit
}

// items are the vouchers and results that are resident. A change makes a new one: snapshots share it.
type items struct {
	first, last, lastResult Encoded
	vouchers, results       pending
}

// pending are the newest vouchers or results: those that may not be in the store yet. Snapshots share the array.
type pending struct {
	from  uint64 // index of the first
	items []Encoded
}

func (p *pending) stored(i uint64) {
	if len(p.items) > 0 && i == p.from {
		p.items, p.from = p.items[1:len(p.items):len(p.items)], i+1
	}
}

func (p pending) get(i uint64) (Encoded, bool) {
	if i < p.from || i-p.from >= uint64(len(p.items)) {
		return Encoded{}, false
	}
	return p.items[i-p.from], true
}

func (p *pending) add(i uint64, e Encoded) {
	if len(p.items) == 0 {
		p.from = i
	}
	p.items = append(p.items, e)
}

type work struct {
	event   dt.EventCode
	kinds   uint8  // of blocks that a run stands for
	blocks  int    // how many these are
	open    bool   // a run that more blocks may join: its state is taken when it is told
	group   uint64 // of the Hold during which it came, 0 without
	state   state
	at      time.Time
	part    string // list that grew
	item    Encoded
	index   uint64
	log     *logLine
	logAt   uint64
	persist bool
	cleanup bool
	done    chan error // somebody waits until this is stored
}

// ID identifies the channel.
func (c *Channel) ID() dt.ChannelID { return c.id }

// State is an immutable snapshot after all events submitted so far.
func (c *Channel) State() dt.ChannelState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.snapshot()
}

func (c *Channel) snapshot() state {
	return state{rec: c.rec, store: &c.set.store, items: c.items}
}

// Idle is how long nothing has happened on the channel in this process.
func (c *Channel) Idle() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.active.IsZero() {
		c.active = time.Now()
	}
	return time.Since(c.active)
}

// Stored waits until everything that was applied so far is in the store. What another side is told must not be lost here.
func (c *Channel) Stored(ctx context.Context) error {
	done := make(chan error, 1)
	c.mu.Lock()
	c.push(work{event: flushOnly, at: time.Now(), persist: true, state: c.snapshot(), done: done})
	busy := c.busy || c.held > 0
	c.mu.Unlock()
	if !busy {
		return c.stopped()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Status is the status after all events submitted so far.
func (c *Channel) Status() dt.Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rec.Status
}

// IsPull tells whether the initiator receives.
func (c *Channel) IsPull() bool { return c.pull }

// VoucherType is the type of the opening voucher.
func (c *Channel) VoucherType() dt.TypeIdentifier {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.items.first.Type
}

// Do runs f under the channel's lock; f must not block.
func (c *Channel) Do(f func(r *Record, credit *Credit)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.rec, &c.Credit)
}

// Block counts a block of one kind at most once (R-42, section 3.5) and reports whether it was new, with the bytes
// counted so far.
func (c *Channel) Block(kind dt.EventCode, progress dt.EventCode, size uint64, index int64, unique bool) (fresh bool, total uint64, err error) {
	if err := c.stopped(); err != nil {
		return false, 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.block(kind, progress, size, index, unique)
}

// block is Block; mu is held.
func (c *Channel) block(kind dt.EventCode, progress dt.EventCode, size uint64, index int64, unique bool) (fresh bool, total uint64, err error) {
	if index < 0 {
		return false, 0, fmt.Errorf("block index %d is negative", index)
	}
	highest, bytes := &c.rec.QueuedTotal, &c.rec.Queued
	switch kind {
	case dt.DataReceived:
		highest, bytes = &c.rec.ReceivedTotal, &c.rec.Received
	case dt.DataSent:
		highest, bytes = &c.rec.SentTotal, &c.rec.Sent
	}
	at := uint64(index)
	switch {
	case !unique:
	case kind == dt.DataQueued:
		fresh = c.rec.handOut(at, c.Credit.Has)
	default:
		fresh = at > *highest
	}
	if kind == dt.DataQueued && unique && !fresh {
		c.Credit.Resent += size
	}
	if c.coarse(progress, fresh) {
		if fresh {
			*bytes += size
		}
		*highest = max(*highest, at)
		c.run(kind)
		return fresh, *bytes, nil
	}
	if fresh {
		if err := c.apply(progress, size); err != nil {
			return false, *bytes, err
		}
	}
	err = c.apply(kind, at)
	return fresh, *bytes, err
}

// Claimable tells whether a block that the recipient says it has must be counted, as queued or as sent, for which its size is needed (see Claim).
func (c *Channel) Claimable(index uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pull && c.rec.claimable(index) || c.rec.unsent(index)
}

// Claim counts a block that the recipient says it got, once. It is stored with the next event: who forgets it hears of it again.
func (c *Channel) Claim(index, size uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pull && c.rec.claimable(index) {
		c.rec.Queued += size
		c.rec.Claimed.add(span{index, index})
	}
	if c.rec.unsent(index) {
		c.rec.Sent, c.rec.SentTotal = c.rec.Sent+size, index
	}
}

func (c *Channel) apply(event dt.EventCode, args ...any) error {
	from := c.rec.Status
	c.closeRun()
	if _, err := c.set.table.Apply(&c.rec, event, args...); err != nil {
		return fmt.Errorf("cannot send FSM event %s to data-transfer channel %s: %w", dt.Events[event], c.ID(), err)
	}
	w := work{event: event, at: time.Now(), persist: true}
	c.active = w.at
	switch event {
	case dt.DataReceived, dt.DataSent, dt.DataQueued, dt.DataReceivedProgress, dt.DataSentProgress, dt.DataQueuedProgress:
		w.persist = false
	}
	c.log(&w, from, event, args)
	w.cleanup = c.rec.Status != from && IsChannelCleaningUp(c.rec.Status)
	w.state = c.snapshot()
	c.push(w)
	return nil
}

func (c *Channel) log(w *work, from dt.Status, event dt.EventCode, args []any) {
	text, ok := logTexts[event]
	if ok && len(args) == 1 && text[len(text)-1] == ' ' {
		text += fmt.Sprint(args[0])
	}
	prev, seen := c.lastLog[from]
	if seen && (!ok || prev == text) {
		return
	}
	if c.lastLog == nil {
		c.lastLog = map[dt.Status]string{}
	}
	c.lastLog[from] = text
	w.log = &logLine{dt.Statuses[from], cutAt(text, maxLogText), cbg.CborTime(w.at.UTC())}
	w.logAt = c.rec.Logs
	c.rec.Logs++
}

// push queues work; mu is held.
func (c *Channel) push(w work) {
	if !w.open {
		c.closeRun()
	}
	if c.held > 0 && !w.open {
		w.group = c.holds
	}
	if w.open || !c.coalesce(w) {
		if c.work = append(c.work, w); len(c.work) == 1 {
			c.spare = c.work[:0]
		}
	}
	if !c.busy && c.held == 0 {
		c.busy = c.set.group.Go(c.drain)
	}
}

// maxBacklog is how much waits for a slow listener before it is told of the newest progress only.
const maxBacklog = 1024

// coalesce puts progress in the place of older progress that nobody was told of yet. A block makes two events in turn, so
// the last two places are looked at.
func (c *Channel) coalesce(w work) bool {
	n := len(c.work)
	if n <= maxBacklog || w.persist || w.log != nil {
		return false
	}
	for i := n - 1; i >= n-2; i-- {
		old := &c.work[i]
		if old.persist || old.log != nil {
			return false
		}
		if old.event == w.event {
			*old = w
			c.work[n-1].state = w.state // what comes later never shows less
			return true
		}
	}
	return false
}

// warnEvery is how often a channel whose listeners do not keep up is spoken of.
const warnEvery = time.Minute

func (c *Channel) drain() {
	var ws []work
	for {
		c.mu.Lock()
		if len(c.work) == 0 {
			c.busy, c.slow, c.work, c.spare, c.kick = false, false, nil, nil, nil
			c.mu.Unlock()
			return
		}
		if c.held > 0 { // Release goes on
			c.busy = false
			c.mu.Unlock()
			return
		}
		if c.awaitRun() {
			continue
		}
		behind := len(c.work) > maxBacklog && !c.slow
		ws = c.take(ws[:0])
		c.slow = c.slow || behind
		behind = behind && time.Since(c.warned) > warnEvery
		if behind {
			c.warned = time.Now()
		}
		c.mu.Unlock()
		if behind {
			slog.Warn("subscribers or the store are slower than a data-transfer channel: progress is told less often",
				"channel", c.id, "waiting", maxBacklog, "event", dt.Events[ws[0].event])
		}
		err := c.store(ws)
		for i := range ws {
			c.done(&ws[i], err)
		}
		clear(ws)
	}
}

// maxBatch is how many events are stored in one batch, beside those of one Hold.
const maxBatch = 64

// take takes the work that is due: all that waits, and what came during one Hold together. mu is held.
func (c *Channel) take(ws []work) []work {
	if w := &c.work[0]; w.open {
		c.told = time.Now()
		w.state, w.at, c.active = c.snapshot(), c.told, c.told
	}
	n := 1
	for n < min(len(c.work), maxBatch) && !c.work[n].open {
		n++
	}
	for g := c.work[n-1].group; g != 0 && n < len(c.work) && c.work[n].group == g; {
		n++
	}
	ws = append(ws, c.work[:n]...)
	if c.work = c.work[n:]; len(c.work) == 0 {
		c.work = c.spare[:0] // begins again at the front
	}
	return ws
}

// done tells of work that is stored, and does what follows from it.
func (c *Channel) done(w *work, err error) {
	if w.done != nil {
		w.done <- err
	}
	c.tell(*w)
	if w.cleanup && !c.cleaned {
		c.cleaned = true
		c.set.cleanup(c)
		_ = c.applyNow(dt.CleanupComplete)
	}
	if w.event == dt.CleanupComplete {
		c.set.evict(c)
	}
}
