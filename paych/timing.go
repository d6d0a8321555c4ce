package paych

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/filecoin-project/go-state-types/abi"

	"github.com/cartage-dev/cartage/internal/reason"
)

// Timing is the pace of a chain.
type Timing struct {
	Epoch       time.Duration
	SettleDelay abi.ChainEpoch // from a settle to the first epoch in which the channel can be collected
	Dev         bool           // a development ledger, whose money is worth nothing
}

// Window is how long the payee of a channel that somebody settles can still redeem.
func (t Timing) Window() time.Duration { return time.Duration(t.SettleDelay) * t.Epoch }

// Bounds of the watch period. It is a twentieth of the settle window within the first two, and never more than a quarter of it.
const (
	minWatchPeriod = time.Second
	maxWatchPeriod = 30 * time.Second
	watchesPerAuto = 20
	minWatches     = 4
)

// WatchPeriod is how often the channels have to be looked after. wanted is what a user asked for, 0 to let the chain decide; clamped
// reports that it was too long for the settle window.
func (t Timing) WatchPeriod(wanted time.Duration) (period time.Duration, clamped bool) {
	longest := t.Window() / minWatches
	if wanted <= 0 {
		wanted = min(max(t.Window()/watchesPerAuto, minWatchPeriod), maxWatchPeriod)
		return max(min(wanted, longest), time.Millisecond), false
	}
	return max(min(wanted, longest), time.Millisecond), wanted > longest
}

// The shortest settle window on which vouchers are taken, unless an Option says otherwise.
const (
	DefaultMinSettleWindow = time.Hour
	DevMinSettleWindow     = 10 * time.Second
)

// Option changes a Manager.
type Option func(*Manager)

// MinSettleWindow is the shortest settle window of a chain on which the manager takes vouchers: with a shorter one a payer could settle
// and collect before the payee looks. 0 stands for DefaultMinSettleWindow, and DevMinSettleWindow on a development ledger.
func MinSettleWindow(d time.Duration) Option {
	return func(m *Manager) { m.minWindow = d }
}

// ErrSettleWindow means that the chain gives a payee too little time to redeem: no voucher on it is taken.
var ErrSettleWindow error = reason.SettleWindow.Errorf("the settle window of the chain is too short to take vouchers")

// chainClock is where a chain is, and how fast it goes.
type chainClock struct {
	chain     Chain
	minWindow time.Duration // of a chain on which vouchers are taken; 0: the default
	timing    atomic.Pointer[Timing]
}

// Timing is the pace of the chain. It is asked once.
func (c *chainClock) Timing(ctx context.Context) (Timing, error) {
	if t := c.timing.Load(); t != nil {
		return *t, nil
	}
	t, err := c.chain.Timing(ctx)
	if err == nil {
		c.timing.Store(&t)
	}
	return t, err
}

// CheckWindow returns an error that wraps ErrSettleWindow while the chain is one on which no vouchers are taken.
func (c *chainClock) CheckWindow(ctx context.Context) error {
	t, err := c.Timing(ctx)
	if err != nil {
		return err
	}
	least := c.minWindow
	switch {
	case least == 0 && t.Dev:
		least = DevMinSettleWindow
	case least == 0:
		least = DefaultMinSettleWindow
	}
	if t.Window() < least {
		return fmt.Errorf("%w: it is %s, at least %s are needed", ErrSettleWindow, t.Window(), least)
	}
	return nil
}

// Head is where the chain is.
func (c *chainClock) Head(ctx context.Context) ([]byte, abi.ChainEpoch, error) {
	return c.chain.Head(ctx)
}

// Chain is the chain below the manager.
func (c *chainClock) Chain() Chain { return c.chain }
