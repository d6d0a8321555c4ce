package paych_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/filecoin-project/go-state-types/exitcode"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/faults"
	cpaych "github.com/cartage-dev/cartage/paych"
)

// side is a manager that can be closed and opened again over what it stored.
type side struct {
	*cpaych.Manager
	t     *testing.T
	ds    datastore.Batching
	chain *fakeChain
	keys  keyring
	addr  address.Address
}

func newSide(t *testing.T, chain *fakeChain) *side {
	s := &side{t: t, ds: dssync.MutexWrap(datastore.NewMapDatastore()), chain: chain}
	s.keys, s.addr = newKeyring(t)
	chain.balances[s.addr] = big.NewInt(1_000_000)
	s.open(nil)
	t.Cleanup(func() { s.close() })
	return s
}

func (s *side) open(sw *faults.Switch) {
	s.t.Helper()
	if sw == nil {
		sw = &faults.Switch{}
	}
	m, err := cpaych.Open(s.t.Context(), faults.Store{Batching: s.ds, Switch: sw}, s.chain, s.keys)
	require.NoError(s.t, err)
	s.Manager = m
}

func (s *side) close() { require.NoError(s.t, s.Close(context.WithoutCancel(s.t.Context()))) }

func (s *side) reopen() {
	s.close()
	s.open(nil)
}

// fund makes amount available and returns the channel and a lane.
func (s *side) fund(to address.Address, amount int64) (address.Address, uint64) {
	s.t.Helper()
	ch := s.channel(to, amount)
	lane, err := s.AllocateLane(s.t.Context(), ch)
	require.NoError(s.t, err)
	return ch, lane
}

func (s *side) channel(to address.Address, amount int64) address.Address {
	s.t.Helper()
	r, err := s.GetOrCreate(s.t.Context(), s.addr, to, big.NewInt(amount))
	require.NoError(s.t, err)
	if !r.Wait.Defined() {
		return r.Channel
	}
	ch, err := s.WaitReady(s.t.Context(), r.Wait)
	require.NoError(s.t, err)
	return ch
}

func (s *side) pay(deal string, ch address.Address, lane uint64, amount int64) *paych.SignedVoucher {
	s.t.Helper()
	v, _, err := s.CreateVoucher(s.t.Context(), deal, ch, lane, big.NewInt(amount), uint64(amount))
	require.NoError(s.t, err)
	return v
}

func (s *side) take(deal string, v *paych.SignedVoucher) (int64, error) {
	grown, err := s.AcceptVoucher(s.t.Context(), deal, v.ChannelAddr, v, big.Zero(), 0)
	return grown.Int64(), err
}

func (s *side) mustTake(deal string, v *paych.SignedVoucher, want int64) {
	s.t.Helper()
	grown, err := s.take(deal, v)
	require.NoError(s.t, err)
	require.Equal(s.t, want, grown)
}

func two(t *testing.T) (chain *fakeChain, payer, payee *side) {
	chain = newFakeChain()
	return chain, newSide(t, chain), newSide(t, chain)
}

// resign signs a changed voucher with the key of a side.
func (s *side) resign(v paych.SignedVoucher) *paych.SignedVoucher {
	v.Signature = nil
	require.NoError(s.t, cpaych.SignVoucher(s.keys[s.addr], &v))
	return &v
}

// TestAcceptance: scenarios 2, 3, 5, 10 to 12, 14 to 20 and 32 of payments.md 6: what the payee refuses, and that its book stays.
func TestAcceptance(t *testing.T) {
	other, err := address.NewActorAddress([]byte("other"))
	require.NoError(t, err)
	byID, err := address.NewIDAddress(1001)
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		change func(v *paych.SignedVoucher)
		err    error
	}{
		"10 lower nonce, higher amount": {func(v *paych.SignedVoucher) { v.Nonce = 1 }, cpaych.ErrStaleNonce},
		"11 higher nonce, equal amount": {func(v *paych.SignedVoucher) { v.Amount = big.NewInt(100) }, cpaych.ErrAmountNotIncreasing},
		"11 higher nonce, lower amount": {func(v *paych.SignedVoucher) { v.Amount = big.NewInt(99) }, cpaych.ErrAmountNotIncreasing},
		"12 zero":                       {func(v *paych.SignedVoucher) { v.Amount = big.Zero() }, cpaych.ErrAmount},
		"12 negative":                   {func(v *paych.SignedVoucher) { v.Amount = big.NewInt(-5) }, cpaych.ErrAmount},
		"14 lane 2^63":                  {func(v *paych.SignedVoucher) { v.Lane = 1 << 63 }, cpaych.ErrLaneLimit},
		"14 lane 2^64-1":                {func(v *paych.SignedVoucher) { v.Lane = 1<<64 - 1 }, cpaych.ErrLaneLimit},
		"14 nonce 0 on a new lane":      {func(v *paych.SignedVoucher) { v.Lane, v.Nonce = 9, 0 }, cpaych.ErrStaleNonce},
		"15 min settle height":          {func(v *paych.SignedVoucher) { v.MinSettleHeight = 1 << 40 }, cpaych.ErrLocked},
		"16 time lock max":              {func(v *paych.SignedVoucher) { v.TimeLockMax = 101 }, cpaych.ErrLocked},
		"16 time lock min":              {func(v *paych.SignedVoucher) { v.TimeLockMin = 99 }, cpaych.ErrLocked},
		"17 secret hash":                {func(v *paych.SignedVoucher) { v.SecretHash = make([]byte, 32) }, cpaych.ErrLocked},
		"18 extra":                      {func(v *paych.SignedVoucher) { v.Extra = &paych.ModVerifyParams{Actor: other} }, cpaych.ErrLocked},
		"19 merges":                     {func(v *paych.SignedVoucher) { v.Merges = []paych.Merge{{Lane: 7, Nonce: 1}} }, cpaych.ErrMergesUnsupported},
		"25 more than the channel":      {func(v *paych.SignedVoucher) { v.Amount = big.NewInt(1001) }, cpaych.ErrInsufficientChannel},
	} {
		t.Run(name, func(t *testing.T) {
			_, payer, payee := two(t)
			ch, lane := payer.fund(payee.addr, 1000)
			payee.mustTake("d", payer.pay("d", ch, lane, 50), 50)
			payee.mustTake("d", payer.pay("d", ch, lane, 100), 50)
			v := &paych.SignedVoucher{ChannelAddr: ch, Lane: lane, Nonce: 3, Amount: big.NewInt(150), Merges: []paych.Merge{}}
			tc.change(v)
			_, err := payee.take("d", payer.resign(*v))
			require.ErrorIs(t, err, tc.err)
			best, err := payee.Best(t.Context(), true, "d")
			require.NoError(t, err)
			require.EqualValues(t, 100, best.Amount.Int64(), "the book keeps its best")
		})
	}
	for name, addr := range map[string]address.Address{"20 other channel": other, "20 id form": byID} {
		t.Run(name, func(t *testing.T) {
			_, payer, payee := two(t)
			ch, lane := payer.fund(payee.addr, 1000)
			v := payer.pay("d", ch, lane, 50)
			_, err := payee.AcceptVoucher(t.Context(), "d", addr, v, big.Zero(), 0)
			require.ErrorIs(t, err, cpaych.ErrWrongChannel)
		})
	}
}

// TestFlippedBits: scenario 1: a bit flipped anywhere in a voucher is refused, and nothing is stored.
func TestFlippedBits(t *testing.T) {
	_, payer, payee := two(t)
	ch, lane := payer.fund(payee.addr, 1000)
	v := payer.pay("d", ch, lane, 50)
	data, err := cpaych.EncodeVoucher(v)
	require.NoError(t, err)
	for i := range data {
		for bit := range 8 {
			bad := append([]byte(nil), data...)
			bad[i] ^= 1 << bit
			got, err := cpaych.DecodeVoucher(bad)
			if err == nil {
				_, err = payee.AcceptVoucher(t.Context(), "d", ch, got, big.Zero(), 0)
			}
			require.Error(t, err, "byte %d bit %d", i, bit)
		}
	}
	best, err := payee.Best(t.Context(), true, "d")
	require.NoError(t, err)
	require.Nil(t, best)
	payee.mustTake("d", v, 50)
}

// TestWhoSigns: scenarios 2, 21 and 22.
func TestWhoSigns(t *testing.T) {
	chain, payer, payee := two(t)
	third := newSide(t, chain)
	ch, lane := payer.fund(payee.addr, 1000)
	v := payer.pay("d", ch, lane, 50)
	_, err := payee.take("d", third.resign(*v))
	require.ErrorIs(t, err, cpaych.ErrBadSignature)
	_, err = third.take("d", v)
	require.ErrorIs(t, err, cpaych.ErrWrongPayee)
	unknown := *v
	unknown.ChannelAddr, err = address.NewActorAddress([]byte("nowhere"))
	require.NoError(t, err)
	_, err = payee.take("d", payer.resign(unknown))
	require.ErrorIs(t, err, cpaych.ErrUnknownChannel)
}

// TestOneCredit: scenarios 6 to 9: whoever sends a voucher again, it is credited once, to the deal that had it first.
func TestOneCredit(t *testing.T) {
	_, payer, payee := two(t)
	ch, lane := payer.fund(payee.addr, 1000)
	v := payer.pay("d", ch, lane, 50)
	var wg sync.WaitGroup
	var mu sync.Mutex
	total := int64(0)
	for i := range 20 {
		wg.Go(func() {
			grown, err := payee.take(fmt.Sprint("d", i%2), v)
			mu.Lock()
			defer mu.Unlock()
			total += grown
			if err != nil && !errors.Is(err, cpaych.ErrLaneBound) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 50, total)
}

// TestChainRules: scenarios 24, 27 and 28: not deep enough, and settling in the middle of a deal.
func TestChainRules(t *testing.T) {
	chain, payer, payee := two(t)
	chain.depth = 5
	ch, lane := payer.fund(payee.addr, 1000)
	v := payer.pay("d", ch, lane, 50)
	_, err := payee.take("d", v)
	require.ErrorIs(t, err, cpaych.ErrUnconfirmed)
	chain.set(func() { chain.epoch += 5 })
	payee.mustTake("d", v, 50)

	require.NoError(t, payer.Settle(t.Context(), ch))
	_, _, err = payer.CreateVoucher(t.Context(), "d", ch, lane, big.NewInt(60), 0)
	require.ErrorIs(t, err, cpaych.ErrChannelSettling)
	require.NoError(t, payee.Redeem(t.Context(), ch))
	require.NoError(t, payee.Redeem(t.Context(), ch))
	require.Equal(t, 1, chain.sent(cpaych.OpRedeem), "what is redeemed is not redeemed again")
	info, err := chain.Channel(t.Context(), ch)
	require.NoError(t, err)
	require.EqualValues(t, 50, info.ToSend.Int64())
	next := payer.channel(payee.addr, 10)
	require.NotEqual(t, ch, next, "a new deal gets a new channel")
}

// TestSumOfLanes: scenarios 25, 26 and 56: whatever the lanes promise, together it is never more than the deposit, and nonces
// have no gap and no repeat.
func TestSumOfLanes(t *testing.T) {
	_, payer, payee := two(t)
	const lanes, deposit = 16, 1000
	var ch address.Address
	ids := make([]uint64, lanes)
	for i := range ids {
		c, lane := payer.fund(payee.addr, deposit/lanes)
		ch, ids[i] = c, lane
	}
	require.ElementsMatch(t, []uint64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, ids)
	var wg sync.WaitGroup
	for i, lane := range ids {
		wg.Go(func() {
			nonce := uint64(0)
			for amount := int64(1); ; amount += int64(i) + 1 {
				v, _, err := payer.CreateVoucher(t.Context(), fmt.Sprint(i), ch, lane, big.NewInt(amount), 0)
				var short *cpaych.ShortfallError
				if errors.As(err, &short) {
					return
				}
				if err != nil || v.Nonce != nonce+1 {
					t.Errorf("lane %d: nonce %d after %d, %v", lane, v.Nonce, nonce, err)
					return
				}
				nonce++
			}
		})
	}
	wg.Wait()
	f, err := payer.Available(t.Context(), ch)
	require.NoError(t, err)
	require.True(t, f.Promised.LessThanEqual(f.Confirmed), "%s of %s", f.Promised, f.Confirmed)
	payer.reopen()
	again, err := payer.Available(t.Context(), ch)
	require.NoError(t, err)
	require.Equal(t, f, again)
}

// TestPayeeCounts: scenario 25: the payee adds up all lanes too, and says what is missing.
func TestPayeeCounts(t *testing.T) {
	_, payer, payee := two(t)
	ch, lane := payer.fund(payee.addr, 100)
	payee.mustTake("a", payer.pay("a", ch, lane, 60), 60)
	over := payer.resign(paych.SignedVoucher{ChannelAddr: ch, Lane: lane + 1, Nonce: 1, Amount: big.NewInt(41), Merges: []paych.Merge{}})
	_, err := payee.take("b", over)
	require.ErrorIs(t, err, cpaych.ErrInsufficientChannel)
	require.ErrorContains(t, err, "short by 1")
	payer.chain.set(func() { payer.chain.channels[ch].Balance = big.NewInt(101) })
	payee.mustTake("b", over, 41)
}

// TestSameAmountAgain: scenario 40 and D8: asking again for what was signed is the same voucher.
func TestSameAmountAgain(t *testing.T) {
	_, payer, payee := two(t)
	ch, lane := payer.fund(payee.addr, 1000)
	v := payer.pay("d", ch, lane, 50)
	again, replayed, err := payer.CreateVoucher(t.Context(), "d", ch, lane, big.NewInt(50), 0)
	require.NoError(t, err)
	require.True(t, replayed)
	require.Equal(t, v, again)
	payer.reopen()
	again, replayed, err = payer.CreateVoucher(t.Context(), "d", ch, lane, big.NewInt(50), 0)
	require.NoError(t, err)
	require.True(t, replayed)
	require.True(t, cpaych.SameVoucher(v, again))
	_, _, err = payer.CreateVoucher(t.Context(), "other", ch, lane, big.NewInt(51), 0)
	require.ErrorIs(t, err, cpaych.ErrLaneBound)
	_, _, err = payer.CreateVoucher(t.Context(), "d", ch, lane, big.NewInt(49), 0)
	require.ErrorIs(t, err, cpaych.ErrAmountNotIncreasing)
	payee.mustTake("d", v, 50)
	payee.reopen()
	payee.mustTake("d", again, 0)
}

// TestGetOrCreateTogether: scenario 55: requests that arrive together share messages, and each gets what it asked for.
func TestGetOrCreateTogether(t *testing.T) {
	synctest.Test(t, getOrCreateTogether)
}

func getOrCreateTogether(t *testing.T) {
	chain, payer, payee := two(t)
	gate := make(chan struct{})
	chain.set(func() { chain.gate = gate })
	const n = 100
	var wg sync.WaitGroup
	ready := make(chan cpaych.Ready, n)
	for i := range n {
		wg.Go(func() {
			r, err := payer.GetOrCreate(t.Context(), payer.addr, payee.addr, big.NewInt(int64(i+1)))
			if err != nil {
				t.Error(err)
			}
			ready <- r
		})
	}
	first := <-ready
	require.True(t, first.Wait.Defined())
	synctest.Wait() // all others are in the queue
	close(gate)
	wg.Wait()
	close(ready)
	ch, err := payer.WaitReady(t.Context(), first.Wait)
	require.NoError(t, err)
	for r := range ready {
		if r.Wait.Defined() {
			_, err := payer.WaitReady(t.Context(), r.Wait)
			require.NoError(t, err)
		}
	}
	require.Equal(t, 1, chain.sent(cpaych.OpCreate))
	require.LessOrEqual(t, chain.sent(cpaych.OpAddFunds), 1, "requests share messages")
	sum := big.Zero()
	for range n {
		_, err := payer.AllocateLane(t.Context(), ch)
		require.NoError(t, err)
	}
	f, err := payer.Available(t.Context(), ch)
	require.NoError(t, err)
	require.EqualValues(t, n*(n+1)/2, f.Confirmed.Int64())
	require.True(t, payer.Free(payer.addr, payee.addr).Equals(sum))
}

// TestCancelledRequests: scenario 57: who does not wait any more has no reservation.
func TestCancelledRequests(t *testing.T) {
	chain, payer, payee := two(t)
	gate := make(chan struct{})
	chain.set(func() { chain.gate = gate })
	first, err := payer.GetOrCreate(t.Context(), payer.addr, payee.addr, big.NewInt(100))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			_, err := payer.GetOrCreate(ctx, payer.addr, payee.addr, big.NewInt(1000))
			if !errors.Is(err, context.Canceled) {
				t.Errorf("a cancelled request answered %v", err)
			}
		})
	}
	cancel()
	wg.Wait()
	close(gate)
	ch, err := payer.WaitReady(t.Context(), first.Wait)
	require.NoError(t, err)
	require.Zero(t, chain.sent(cpaych.OpAddFunds))
	f, err := payer.Available(t.Context(), ch)
	require.NoError(t, err)
	require.EqualValues(t, 100, f.Confirmed.Int64())
	require.True(t, f.Queued.IsZero())
}

// TestFailedDeposit: a message that fails leaves no reservation and no channel, and the next request sends a new one.
func TestFailedDeposit(t *testing.T) {
	chain, payer, payee := two(t)
	chain.code = func(cpaych.Op) exitcode.ExitCode { return exitcode.SysErrOutOfGas }
	r, err := payer.GetOrCreate(t.Context(), payer.addr, payee.addr, big.NewInt(100))
	require.NoError(t, err)
	_, err = payer.WaitReady(t.Context(), r.Wait)
	require.ErrorContains(t, err, "exit code 7")
	chain.set(func() { chain.code = nil })
	ch, lane := payer.fund(payee.addr, 100)
	require.NotNil(t, payer.pay("d", ch, lane, 100))
	_, err = payer.GetOrCreate(t.Context(), payer.addr, payee.addr, big.NewInt(1<<40))
	require.ErrorIs(t, err, cpaych.ErrWalletFunds)
}

// TestLostAnswer: scenario 47: the answer to a message gets lost, or the process dies in between: it is found by its intent and
// never sent twice.
func TestLostAnswer(t *testing.T) {
	chain, payer, payee := two(t)
	lost := errors.New("connection lost")
	chain.lose = func(cpaych.Op) error { return lost }
	_, err := payer.GetOrCreate(t.Context(), payer.addr, payee.addr, big.NewInt(100))
	require.ErrorIs(t, err, lost)
	chain.set(func() { chain.lose = nil })
	payer.reopen()
	ch := payer.channel(payee.addr, 100)
	require.Equal(t, 1, chain.sent(cpaych.OpCreate))
	require.Zero(t, chain.sent(cpaych.OpAddFunds))
	require.Contains(t, chain.channels, ch)
}

// TestRelease: what a deal reserved and did not spend is free for the next one; what it spent is not.
func TestRelease(t *testing.T) {
	chain, payer, payee := two(t)
	ch, lane := payer.fund(payee.addr, 100)
	payer.pay("d", ch, lane, 30)
	for range 2 {
		require.NoError(t, payer.ReleaseDeal(t.Context(), "d"))
	}
	require.EqualValues(t, 70, payer.Free(payer.addr, payee.addr).Int64())
	payer.reopen()
	require.EqualValues(t, 70, payer.Free(payer.addr, payee.addr).Int64())
	ch2, lane2 := payer.fund(payee.addr, 70)
	require.Equal(t, ch, ch2)
	require.Zero(t, chain.sent(cpaych.OpAddFunds))
	payer.pay("e", ch2, lane2, 70)
}

// TestCrashCountUp: scenarios 45 to 47: both sides are killed at every write of a payment in three steps, opened again, and
// the steps are repeated until they work: no nonce is used for two amounts, the payee's book ends exact, and exactly one
// message of each kind is on the chain.
func TestCrashCountUp(t *testing.T) {
	for _, who := range []string{"payer", "payee"} {
		for n := 1; ; n++ {
			sw := &faults.Switch{At: n}
			crashRun(t, who, sw)
			if !sw.Crashed() {
				require.Greater(t, n, 6, who)
				break
			}
		}
	}
}

func crashRun(t *testing.T, who string, sw *faults.Switch) {
	chain, payer, payee := two(t)
	victim := map[string]*side{"payer": payer, "payee": payee}[who]
	victim.close()
	victim.open(sw)
	seen := map[uint64]abi.TokenAmount{} // nonce -> amount
	again := func(f func() error) {
		for {
			err := f()
			if err == nil {
				return
			}
			require.True(t, sw.Crashed(), "%s: %v", who, err)
			victim.reopen()
		}
	}
	var ch address.Address
	var lane uint64
	again(func() error {
		r, err := payer.GetOrCreate(t.Context(), payer.addr, payee.addr, big.NewInt(100))
		if err != nil {
			return err
		}
		if ch = r.Channel; r.Wait.Defined() {
			ch, err = payer.WaitReady(t.Context(), r.Wait)
		}
		return err
	})
	again(func() (err error) {
		lane, err = payer.AllocateLane(t.Context(), ch)
		return err
	})
	for _, amount := range []int64{10, 40, 100} {
		again(func() error {
			v, _, err := payer.CreateVoucher(t.Context(), "d", ch, lane, big.NewInt(amount), 0)
			if err != nil {
				return err
			}
			if old, dup := seen[v.Nonce]; dup {
				require.True(t, old.Equals(v.Amount), "nonce %d for %s and %s", v.Nonce, old, v.Amount)
			}
			seen[v.Nonce] = v.Amount
			_, err = payee.AcceptVoucher(t.Context(), "d", ch, v, big.Zero(), 0)
			return err
		})
	}
	again(func() error { return payee.Redeem(t.Context(), ch) })
	require.Equal(t, 1, chain.sent(cpaych.OpCreate))
	require.Equal(t, 1, chain.sent(cpaych.OpRedeem))
	best, err := payee.Best(t.Context(), true, "d")
	require.NoError(t, err)
	require.EqualValues(t, 100, best.Amount.Int64())
	require.EqualValues(t, 100, chain.channels[ch].ToSend.Int64())
}
