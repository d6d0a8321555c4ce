package paych_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/stretchr/testify/require"

	cpaych "github.com/cartage-dev/cartage/paych"
)

// lateVoucher is a channel that its payee has settled, with a voucher of 25 that the payer signed before it knew.
func lateVoucher(t *testing.T) (chain *fakeChain, payer, payee *side, v *paych.SignedVoucher) {
	chain, payer, payee = two(t)
	ch, lane := payer.fund("d", payee.addr, 100)
	payee.mustTake("d", payer.pay("d", ch, lane, 10), 10)
	v = payer.pay("d", ch, lane, 25)
	require.NoError(t, payee.Settle(t.Context(), ch))
	return chain, payer, payee, v
}

// TestVoucherOfSettlingChannel: it is in the book, and counts as soon as the chain has taken it.
func TestVoucherOfSettlingChannel(t *testing.T) {
	chain, _, payee, v := lateVoucher(t)
	payee.mustTake("d", v, 15)
	require.EqualValues(t, 25, chain.channels[v.ChannelAddr].ToSend.Int64(), "it was submitted at once")
	payee.mustTake("d", v, 0)
}

// TestVoucherOfSettlingChannelWaits: while the chain does not take it, it gives no credit, but is not forgotten.
func TestVoucherOfSettlingChannelWaits(t *testing.T) {
	chain, _, payee, v := lateVoucher(t)
	full := errors.New("the pool is full")
	chain.set(func() { chain.refuse = func(cpaych.Op) error { return full } })
	grown, err := payee.take("d", v)
	require.ErrorIs(t, err, cpaych.ErrChannelSettling)
	require.ErrorIs(t, err, full)
	require.Zero(t, grown)
	best, err := payee.Best(t.Context(), true, "d")
	require.NoError(t, err)
	require.EqualValues(t, 25, best.Amount.Int64())
	payee.reopen()
	chain.set(func() { chain.refuse = nil })
	require.NoError(t, payee.Maintain(t.Context()))
	require.EqualValues(t, 25, chain.channels[v.ChannelAddr].ToSend.Int64())
}

// TestVoucherAfterWindow: a voucher that can never be redeemed is refused and not booked.
func TestVoucherAfterWindow(t *testing.T) {
	chain, _, payee, v := lateVoucher(t)
	chain.set(func() { chain.epoch += 1440 })
	_, err := payee.take("d", v)
	require.ErrorIs(t, err, cpaych.ErrChannelSettled)
	best, err := payee.Best(t.Context(), true, "d")
	require.NoError(t, err)
	require.EqualValues(t, 10, best.Amount.Int64())
}

// TestNewDealAfterSettle: a channel that the other side has just settled is not used for a new deal.
func TestNewDealAfterSettle(t *testing.T) {
	_, payer, payee := two(t)
	ch, _ := payer.fund("a", payee.addr, 100)
	require.Equal(t, ch, payer.channel("b", payee.addr, 5))
	require.NoError(t, payer.ReleaseDeal(t.Context(), "a"))
	require.NoError(t, payee.Settle(t.Context(), ch))
	next, lane := payer.fund("c", payee.addr, 30)
	require.NotEqual(t, ch, next)
	payee.mustTake("c", payer.pay("c", next, lane, 30), 30)
}

// TestChainAwayAtNewDeal: a chain that does not answer is asked once in a while, and does not keep deals from what is free.
func TestChainAwayAtNewDeal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chain, payer, payee := two(t)
		ch, _ := payer.fund("a", payee.addr, 100)
		require.NoError(t, payer.ReleaseDeal(t.Context(), "a"))
		asked := 0
		chain.set(func() { chain.away, chain.reads = errors.New("no answer"), &asked })
		for range 10 {
			require.Equal(t, ch, payer.channel("b", payee.addr, 5))
		}
		require.Equal(t, 1, asked)
		time.Sleep(time.Minute)
		require.Equal(t, ch, payer.channel("b", payee.addr, 5))
		require.Equal(t, 2, asked)
	})
}

// TestLost: the payer settles and collects while the payee is off line: the payee hears of it once, and its earnings show it for good.
func TestLost(t *testing.T) {
	for name, gone := range map[string]bool{"the channel stays on the chain": false, "the channel is gone from the chain": true} {
		t.Run(name, func(t *testing.T) {
			chain, payer, payee := two(t)
			ch, lane := payer.fund("d", payee.addr, 100)
			payee.mustTake("d", payer.pay("d", ch, lane, 30), 30)
			require.NoError(t, payee.Redeem(t.Context(), ch))
			payee.mustTake("d", payer.pay("d", ch, lane, 70), 40)
			payee.close()
			require.NoError(t, payer.Settle(t.Context(), ch))
			chain.set(func() { chain.epoch += 1440 })
			require.NoError(t, payer.Collect(t.Context(), ch))
			if gone {
				chain.set(func() {
					chain.channels[ch] = &cpaych.ChannelInfo{Address: ch, Balance: big.Zero(), ToSend: big.Zero(), Collected: true}
				})
			}
			payee.open(nil)
			err := payee.Maintain(t.Context())
			require.ErrorIs(t, err, cpaych.ErrLost)
			require.ErrorContains(t, err, "40 attoFIL")
			require.NoError(t, payee.Maintain(t.Context()))
			for range 2 {
				e, err := payee.Earnings(t.Context())
				require.NoError(t, err)
				require.Len(t, e.Deals, 1)
				require.EqualValues(t, []int64{70, 30, 0, 40}, []int64{e.Deals[0].Vouchered.Int64(), e.Deals[0].Redeemed.Int64(), e.Deals[0].Redeemable.Int64(), e.Deals[0].Lost.Int64()})
				require.Len(t, e.Days, 1)
				require.EqualValues(t, 40, e.Days[0].Lost.Int64())
				require.Empty(t, e.Claims)
				payee.reopen()
				require.NoError(t, payee.Maintain(t.Context()), "it is told once")
			}
		})
	}
}

// TestShortWindow: on a chain that gives the payee no time to redeem, vouchers are refused with the reason.
func TestShortWindow(t *testing.T) {
	for _, c := range []struct {
		timing cpaych.Timing
		least  time.Duration
		taken  bool
	}{
		{cpaych.Timing{Epoch: 200 * time.Millisecond, SettleDelay: 5, Dev: true}, 0, false}, // the ledger of the first README
		{cpaych.Timing{Epoch: 200 * time.Millisecond, SettleDelay: 50, Dev: true}, 0, true},
		{cpaych.Timing{Epoch: 200 * time.Millisecond, SettleDelay: 49, Dev: true}, 0, false},
		{cpaych.Timing{Epoch: time.Second, SettleDelay: 3599}, 0, false},
		{cpaych.Timing{Epoch: time.Second, SettleDelay: 3600}, 0, true},
		{cpaych.Timing{Epoch: time.Second, SettleDelay: 3600}, 3601 * time.Second, false},
		{cpaych.Timing{Epoch: time.Millisecond, SettleDelay: 1}, time.Millisecond, true},
	} {
		chain := newFakeChain()
		payer, payee := newSide(t, chain), newSide(t, chain)
		payee.close()
		payee.open(nil, cpaych.MinSettleWindow(c.least))
		chain.set(func() { chain.timing = c.timing })
		ch, lane := payer.fund("d", payee.addr, 100)
		_, err := payee.take("d", payer.pay("d", ch, lane, 10))
		if c.taken {
			require.NoError(t, err, "%+v", c)
			continue
		}
		require.ErrorIs(t, err, cpaych.ErrSettleWindow, "%+v", c)
		require.True(t, cpaych.IsVoucherFault(err), "asking again would not help")
	}
}

// TestWatchPeriod: a twentieth of the settle window between a second and half a minute, and never more than a quarter.
func TestWatchPeriod(t *testing.T) {
	for _, c := range []struct {
		window, wanted, period time.Duration
		clamped                bool
	}{
		{12 * time.Hour, 0, 30 * time.Second, false},
		{2 * time.Minute, 0, 6 * time.Second, false},
		{time.Minute, 0, 3 * time.Second, false},
		{10 * time.Second, 0, time.Second, false},
		{time.Second, 0, 250 * time.Millisecond, false},
		{time.Minute, 10 * time.Second, 10 * time.Second, false},
		{time.Minute, 15 * time.Second, 15 * time.Second, false},
		{time.Minute, 16 * time.Second, 15 * time.Second, true},
	} {
		timing := cpaych.Timing{Epoch: c.window / 10, SettleDelay: 10}
		period, clamped := timing.WatchPeriod(c.wanted)
		require.Equal(t, c.period, period, "%+v", c)
		require.Equal(t, c.clamped, clamped, "%+v", c)
	}
}
