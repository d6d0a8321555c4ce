package ledger

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/store"
)

// TestScenario60Clock: invariant I7 and scenario 60: the epoch stands when the clock goes back, also over a restart; when it jumps ahead nothing is
// taken until the operator confirms it.
func TestScenario60Clock(t *testing.T) {
	home := t.TempDir()
	require.NoError(t, Init(home, Options{Epoch: time.Second, SettleDelay: 10, Dev: true}))
	at := time.Now().Round(0).Add(time.Second)
	open := func(options ...Option) *Ledger {
		l, err := Open(t.Context(), home, append(options, WithClock(func() time.Time { return at }))...)
		require.NoError(t, err)
		return l
	}
	epoch := func(l *Ledger) uint64 {
		h, err := service{l: l}.Head(t.Context())
		require.NoError(t, err)
		return h.Epoch
	}
	l := open()
	for range 60 {
		at = at.Add(time.Minute)
		epoch(l)
	}
	key := newKey(t)
	_, err := l.Faucet(t.Context(), key.Address)
	require.NoError(t, err)
	before := epoch(l)
	require.GreaterOrEqual(t, before, uint64(3600))
	for name, away := range map[string]time.Duration{"back 1 h": -time.Hour, "forward 2 days": 48 * time.Hour} {
		at = at.Add(away)
		require.Equal(t, before, epoch(l), name)
		if away < 0 {
			_, err := l.Faucet(t.Context(), newKey(t).Address)
			require.NoError(t, err, name)
		} else {
			_, err := l.Faucet(t.Context(), newKey(t).Address)
			require.ErrorIs(t, err, ErrClock, name)
		}
		at = at.Add(-away)
		require.NoError(t, l.Close())
		l = open()
	}
	require.Equal(t, before, epoch(l))

	require.NoError(t, l.Close())
	at = at.Add(8 * 24 * time.Hour)
	l = open()
	require.Equal(t, before, epoch(l))
	_, err = l.Faucet(t.Context(), newKey(t).Address)
	require.ErrorIs(t, err, ErrClock)
	require.ErrorContains(t, err, "--confirm-clock")
	require.NoError(t, l.Close())
	l = open(ConfirmClock())
	defer l.Close()
	_, err = l.Faucet(t.Context(), newKey(t).Address)
	require.NoError(t, err)
	require.GreaterOrEqual(t, epoch(l), before+8*24*3600)
}

// TestScenario62ReadOnly: scenario 62: after a write that failed nothing more is taken; what was answered before is there after a restart.
func TestScenario62ReadOnly(t *testing.T) {
	b := newBench(t)
	require.Zero(t, b.redeem(b.voucher(1, 1, 10), nil).ExitCode)
	failing := errors.New("no space left on device")
	b.broken.Store(&failing)
	_, err := b.send(b.payee, b.tx(b.payee, KindSettle, b.ch, 0, nil))
	require.ErrorIs(t, err, failing)
	require.Zero(t, b.channel().SettlingAt)
	require.NoError(t, b.Close())
	again, err := Open(t.Context(), b.home, WithClock(func() time.Time { return b.clock }))
	require.NoError(t, err)
	b.Ledger = again
	require.EqualValues(t, 10, b.channel().ToSend.Int64())
	require.Zero(t, b.do(b.payee, KindSettle, b.ch, 0, nil).ExitCode)
	require.NoError(t, again.Verify())
}

// TestScenario61OneProcess: scenario 61: the store is opened once.
func TestScenario61OneProcess(t *testing.T) {
	b := newBench(t)
	home := b.home
	_, err := Open(t.Context(), home)
	require.ErrorIs(t, err, store.ErrLocked)
	require.ErrorContains(t, Init(t.TempDir(), Options{}), "positive")
	_, err = Open(t.Context(), filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, ErrNotLedger)
}

// TestMarkIsNoChange: the mark of the clock of a ledger that nobody uses is no edit of it.
func TestMarkIsNoChange(t *testing.T) {
	b := newBench(t)
	b.clock = b.clock.Add(2 * time.Minute)
	b.mark()
	require.NoError(t, b.Verify())
	before, err := service{l: b.Ledger}.Head(t.Context())
	require.NoError(t, err)
	require.NoError(t, b.Close())
	b.clock = b.clock.Add(-time.Minute)
	l, err := Open(t.Context(), b.home, WithClock(func() time.Time { return b.clock }))
	require.NoError(t, err)
	b.Ledger = l
	after, err := service{l: l}.Head(t.Context())
	require.NoError(t, err)
	require.Equal(t, before, after)
}

// TestJumpOutlivesRestart: a clock that has jumped ahead is not confirmed by starting the ledger again.
func TestJumpOutlivesRestart(t *testing.T) {
	b := newBench(t)
	require.Zero(t, b.do(b.payer, KindSettle, b.ch, 0, nil).ExitCode)
	real := b.clock
	again := func(options ...Option) {
		require.NoError(t, b.Close())
		l, err := Open(t.Context(), b.home, append(options, WithClock(func() time.Time { return b.clock }))...)
		require.NoError(t, err)
		b.Ledger = l
	}
	b.clock = real.Add(48 * time.Hour)
	for range 3 {
		_, err := b.send(b.payer, b.tx(b.payer, KindCollect, b.ch, 0, nil))
		require.ErrorIs(t, err, ErrClock)
		again()
	}
	b.clock = real.Add(time.Minute)
	again()
	require.NotZero(t, b.do(b.payer, KindCollect, b.ch, 0, nil).ExitCode, "the clock is right again, and it is too early")
	b.clock = real.Add(48 * time.Hour)
	_, err := b.send(b.payer, b.tx(b.payer, KindCollect, b.ch, 0, nil))
	require.ErrorIs(t, err, ErrClock)
	again(ConfirmClock())
	require.Zero(t, b.do(b.payer, KindCollect, b.ch, 0, nil).ExitCode)
	again()
	require.NoError(t, b.Verify())
}
