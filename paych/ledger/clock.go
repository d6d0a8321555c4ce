package ledger

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cartage-dev/cartage/internal/store"
)

// Rules of the clock (4.6). A wrong clock would end settle periods: one that runs away is not followed until an operator confirms it.
const (
	maxJump   = time.Hour          // further than the time that passed, while the ledger runs
	maxAway   = 7 * 24 * time.Hour // since the ledger last ran
	markEvery = time.Minute
)

// clock turns wall time into epochs.
type clock struct {
	now       func() time.Time
	confirmed bool

	mu   sync.Mutex
	high uint64 // the highest epoch that was ever told
	last time.Time
	jump error
}

// read returns the wall time, unless it has jumped ahead: then, and until the ledger is opened anew, time stands still. mu is held.
func (c *clock) read() (time.Time, bool) {
	now := c.now()
	if c.jump != nil {
		return now, false
	}
	if !c.last.IsZero() {
		passed := now.Sub(c.last)                 // by the monotonic clock, if there is one
		wall := now.Round(0).Sub(c.last.Round(0)) // by the calendar
		if passed == wall {                       // there is none; the ledger looks at the clock once a minute
			passed = min(wall, markEvery)
		}
		if wall-passed > maxJump {
			c.jump = fmt.Errorf("%w: from %s to %s while it was running; if that is right, serve it again with --confirm-clock",
				ErrClock, c.last.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
			slog.Error("ledger clock", "error", c.jump)
			return now, false
		}
	}
	c.last = now
	return now, true
}

// trusted returns why time stands still.
func (c *clock) trusted() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.jump
}

// startClock takes up the time where the ledger left it. A jump that was not confirmed stands, until the clock is back where it was.
func (l *Ledger) startClock() error {
	v := newView(l.kv)
	m, err := v.meta()
	if err != nil {
		return err
	}
	marked, err := v.get(keyClock)
	if err != nil {
		return err
	}
	jumped, err := v.get(keyJump)
	if err != nil {
		return err
	}
	c := &l.clock
	c.mu.Lock()
	defer c.mu.Unlock()
	c.high = m.Epoch
	if len(marked) == 8 {
		c.high = max(c.high, be64(marked))
	}
	now := c.now()
	seen := time.Unix(0, int64(l.net.Genesis+c.high*l.net.Epoch))
	away := now.Sub(seen)
	if !c.confirmed && (away > maxAway || jumped != nil && away > maxJump) {
		c.jump = fmt.Errorf("%w: it is %s, and the ledger was last used %s; if that is right, serve it again with --confirm-clock",
			ErrClock, now.UTC().Format(time.RFC3339), seen.UTC().Format(time.RFC3339))
		return nil
	}
	c.last = now
	if jumped == nil {
		return nil
	}
	b := l.kv.NewBatch()
	b.Delete([]byte(keyJump))
	return b.Commit(true)
}

// epoch is the present epoch: it never goes back (I7).
func (l *Ledger) epoch(m *meta) uint64 {
	c := &l.clock
	c.mu.Lock()
	defer c.mu.Unlock()
	c.high = max(c.high, m.Epoch)
	now, ok := c.read()
	if d := now.UnixNano() - int64(l.net.Genesis); ok && d > 0 {
		c.high = max(c.high, uint64(d)/l.net.Epoch)
	}
	return c.high
}

// mark stores how far the clock is, so that a ledger without transactions does not look as if it had been away; and that it has jumped, so
// that a restart does not pass for its operator's word.
func (l *Ledger) mark() {
	v := newView(l.kv)
	m, err := v.meta()
	if err != nil || l.writable() != nil {
		return
	}
	if epoch := l.epoch(m); l.clock.trusted() == nil {
		v.changed[keyClock] = []byte(u64(epoch))
	}
	l.noteJump(v)
	_ = l.commit(v)
}

// noteJump adds to a view that the clock has jumped.
func (l *Ledger) noteJump(v *view) {
	if l.clock.trusted() != nil {
		v.changed[keyJump] = []byte{1}
	}
}

// writable returns why nothing can be written any more.
func (l *Ledger) writable() error {
	if err := l.broken.Load(); err != nil {
		return *err
	}
	return nil
}

// commit makes the changes of a view durable, in the store and then in the journal. After a failure nothing is written any more: what came later could not rely on it.
func (l *Ledger) commit(v *view) error {
	err := v.commit(true)
	if err == nil && l.journal != nil {
		err = l.journal.append(v)
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, store.ErrNoRoom) { // nothing was tried
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	err = fmt.Errorf("%w since a write failed: make room or mend the disk, then serve it again: %w", ErrReadOnly, err)
	l.broken.Store(&err)
	slog.Error("ledger", "error", err)
	return err
}
