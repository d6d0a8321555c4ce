package fsm

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// ErrTerminated is what Send answers when the machine has reached a final state or was stopped.
var ErrTerminated = errors.New("normal shutdown of state machine")

// Hooks connect a machine to its store and its listeners. They run on the machine's own goroutine, one at a
// time, and never with a lock held.
type Hooks[S any] struct {
	// Persist stores the record after event was applied and before its entry function runs. An error is
	// retried three times and then raised through Failed.
	Persist func(event EventName, rec S) error
	// Notify tells listeners about an applied event.
	Notify func(event EventName, rec S)
	// Dropped is told about events that had no transition.
	Dropped func(event EventName, rec S, err error)
	// Failed turns an error of an entry function or of Persist into an event.
	Failed func(rec S, err error) (EventName, []any)
}

// Machine owns one record: it applies events one at a time in the order in which they were sent. Idle
// machines have no goroutine; one runs while events wait or an entry function works.
type Machine[S any] struct {
	table *Table[S]
	env   any
	hooks Hooks[S]
	ctx   context.Context

	mu      sync.Mutex
	rec     S
	raised  []queued // by entry functions, about the record as it is: they go before what others sent meanwhile
	queue   []queued
	running bool
	stopped bool
	ended   bool
	cancel  context.CancelFunc // of the running entry function
	entered context.Context    // of the running entry function
	idle    chan struct{}      // closed when running ends
	timer   *time.Timer
	timerID uint64

	unstored int // events in a row that could not be stored; the loop's own
}

type queued struct {
	event EventName
	args  []any
}

// NewMachine makes a machine that lives until ctx ends or Stop is called.
func NewMachine[S any](ctx context.Context, t *Table[S], rec S, env any, hooks Hooks[S]) *Machine[S] {
	return &Machine[S]{table: t, env: env, hooks: hooks, ctx: ctx, rec: rec, ended: t.final[t.spec.State(&rec)]}
}

// Send queues an event. It never blocks. It returns ErrTerminated when nothing can be applied any more.
func (m *Machine[S]) Send(event EventName, args ...any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped || m.ended {
		return ErrTerminated
	}
	q := queued{event, args}
	if m.interrupts(event) {
		m.queue = append([]queued{q}, m.queue...)
		if m.cancel != nil {
			m.cancel()
		}
	} else {
		m.queue = append(m.queue, q)
	}
	m.start()
	return nil
}

// Reenter runs the entry function of the present state again, as after a restart of the process.
func (m *Machine[S]) Reenter() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped || m.ended {
		return ErrTerminated
	}
	m.queue = append(m.queue, queued{reenter{}, nil})
	m.start()
	return nil
}

type reenter struct{}

// interrupts tells whether an event ends the work of the present state: an interrupt that is only recorded there waits its turn. mu
// is held.
func (m *Machine[S]) interrupts(event EventName) bool {
	if !m.table.interrupt[event] {
		return false
	}
	kind, _, ok := m.table.Lookup(m.table.spec.State(&m.rec), event)
	return ok && kind == Enter
}

// start runs the loop; mu is held.
func (m *Machine[S]) start() {
	if m.running {
		return
	}
	m.running = true
	m.idle = make(chan struct{})
	go m.loop()
}

// State returns the record after the last applied event, and whether an entry function or an event is in work.
func (m *Machine[S]) State() (rec S, busy bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rec, m.running
}

// Wait blocks until no event waits and no entry function runs, or ctx ends.
func (m *Machine[S]) Wait(ctx context.Context) error {
	for {
		m.mu.Lock()
		if !m.running {
			m.mu.Unlock()
			return nil
		}
		ch := m.idle
		m.mu.Unlock()
		select {
		case <-ch:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Disarm stops the deadline of the present state, until the next event or Reenter.
func (m *Machine[S]) Disarm() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopTimer()
}

// Stop ends the machine: a running entry function is cancelled, waiting events are dropped. It waits for the
// goroutine to end, bounded by ctx, and may be called again.
func (m *Machine[S]) Stop(ctx context.Context) error {
	m.mu.Lock()
	m.stopped = true
	m.queue, m.raised = nil, nil
	if m.cancel != nil {
		m.cancel()
	}
	m.stopTimer()
	m.mu.Unlock()
	return m.Wait(ctx)
}

func (m *Machine[S]) loop() {
	for {
		m.mu.Lock()
		q, ok := m.next()
		if !ok {
			m.running = false
			close(m.idle)
			m.mu.Unlock()
			return
		}
		m.mu.Unlock()
		m.step(q)
	}
}

// next takes the event that is due: an interrupt, then what the last entry function raised, then what others sent. What ends the machine
// comes last: nothing that was sent before is lost. mu is held.
func (m *Machine[S]) next() (q queued, ok bool) {
	if m.stopped || m.ended {
		return q, false
	}
	from := &m.queue
	if len(m.raised) > 0 && !m.interrupted() && (len(m.queue) == 0 || !m.ends(m.raised[0].event)) {
		from = &m.raised
	}
	if len(*from) == 0 {
		return q, false
	}
	q = (*from)[0]
	(*from)[0] = queued{}
	*from = (*from)[1:]
	return q, true
}

// ends tells whether an event leads to a final state from here; mu is held.
func (m *Machine[S]) ends(event EventName) bool {
	kind, to, ok := m.table.Lookup(m.table.spec.State(&m.rec), event)
	return ok && kind == Enter && m.table.final[to]
}

// interrupted tells whether the first event that others sent ends the work of the present state; mu is held.
func (m *Machine[S]) interrupted() bool {
	return len(m.queue) > 0 && m.interrupts(m.queue[0].event)
}

// step applies one event, stores and announces the result, and runs the entry function.
func (m *Machine[S]) step(q queued) {
	m.mu.Lock()
	rec := m.rec
	m.mu.Unlock()
	kind := Enter
	if _, again := q.event.(reenter); !again {
		var err error
		if kind, err = m.table.Apply(&rec, q.event, q.args...); err != nil {
			if m.hooks.Dropped != nil {
				m.hooks.Dropped(q.event, rec, err)
			}
			return
		}
		if !m.persist(q.event, rec) {
			return
		}
		m.mu.Lock()
		m.rec = rec
		m.ended = m.table.final[m.table.spec.State(&rec)]
		m.mu.Unlock()
		if m.hooks.Notify != nil {
			m.hooks.Notify(q.event, rec)
		}
	}
	m.arm(rec)
	if kind == Record {
		return
	}
	if e := m.table.entries[m.table.spec.State(&rec)]; e != nil {
		m.enter(e, rec)
	}
}

func (m *Machine[S]) persist(event EventName, rec S) bool {
	if m.hooks.Persist == nil {
		return true
	}
	var err error
	for wait := persistWait; ; wait *= 4 {
		if err = m.hooks.Persist(event, rec); err == nil {
			m.unstored = 0
			return true
		}
		if wait > persistWait*16 {
			break
		}
		select {
		case <-m.ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
	// The failure is an event too, and needs the same store: a store that stays broken is not asked for ever. The record stays
	// as it was stored, and the next start goes on from there.
	if m.unstored++; m.unstored <= maxUnstored {
		m.fail(rec, fmt.Errorf("store deal record: %w", err))
	}
	return false
}

// A record that cannot be stored is tried again after growing pauses, for so many events in a row.
const (
	persistWait = 5 * time.Millisecond
	maxUnstored = 3
)

func (m *Machine[S]) fail(rec S, err error) {
	if m.hooks.Failed == nil {
		return
	}
	if event, args := m.hooks.Failed(rec, err); event != nil {
		_ = m.Send(event, args...)
	}
}

// enter runs an entry function; what it returns or panics with becomes an event, so that no machine wedges.
func (m *Machine[S]) enter(e entry[S], rec S) {
	ctx, cancel := context.WithCancel(m.ctx)
	defer cancel()
	m.mu.Lock()
	if m.stopped || m.interrupted() {
		m.mu.Unlock()
		return
	}
	m.cancel, m.entered = cancel, ctx
	m.mu.Unlock()
	err := func() (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("entry function panicked: %v\n%s", p, debug.Stack())
			}
		}()
		return e(machineContext[S]{ctx, m}, m.env, rec)
	}()
	m.mu.Lock()
	m.cancel, m.entered = nil, nil
	m.mu.Unlock()
	if err != nil && m.ctx.Err() == nil {
		m.fail(rec, err)
	}
}

// arm restarts the timer of the present state.
func (m *Machine[S]) arm(rec S) {
	s := m.table.spec.State(&rec)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopTimer()
	d, ok := m.table.spec.Deadlines[s]
	if !ok || d.After <= 0 || m.ended || m.stopped {
		return
	}
	m.timerID++
	id := m.timerID
	m.timer = time.AfterFunc(d.After, func() {
		m.mu.Lock()
		live := id == m.timerID && !m.stopped
		m.mu.Unlock()
		if live {
			_ = m.Send(d.Event, d.Args...)
		}
	})
}

func (m *Machine[S]) stopTimer() {
	m.timerID++
	if m.timer != nil {
		m.timer.Stop()
		m.timer = nil
	}
}

type machineContext[S any] struct {
	ctx context.Context
	m   *Machine[S]
}

func (c machineContext[S]) Context() context.Context { return c.ctx }

// Trigger queues an event that was decided on the record as it is: no event of others comes between. From a goroutine that outlives the
// entry function it is a Send.
func (c machineContext[S]) Trigger(event EventName, args ...any) error {
	c.m.mu.Lock()
	if c.m.entered != c.ctx || c.m.stopped {
		c.m.mu.Unlock()
		return c.m.Send(event, args...)
	}
	defer c.m.mu.Unlock()
	c.m.raised = append(c.m.raised, queued{event, args})
	return nil
}
