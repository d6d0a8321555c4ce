package paych_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
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
func (s *side) fund(deal string, to address.Address, amount int64) (address.Address, uint64) {
	s.t.Helper()
	ch := s.channel(deal, to, amount)
	lane, err := s.AllocateLane(s.t.Context(), deal, ch, big.NewInt(amount))
	require.NoError(s.t, err)
	return ch, lane
}

func (s *side) channel(deal string, to address.Address, amount int64) address.Address {
	s.t.Helper()
	r, err := s.GetOrCreate(s.t.Context(), deal, s.addr, to, big.NewInt(amount))
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
			ch, lane := payer.fund("d", payee.addr, 1000)
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
			ch, lane := payer.fund("d", payee.addr, 1000)
			v := payer.pay("d", ch, lane, 50)
			_, err := payee.AcceptVoucher(t.Context(), "d", addr, v, big.Zero(), 0)
			require.ErrorIs(t, err, cpaych.ErrWrongChannel)
		})
	}
}

// TestFlippedBits: scenario 1: a bit flipped anywhere in a voucher is refused, and nothing is stored.
func TestFlippedBits(t *testing.T) {
	_, payer, payee := two(t)
	ch, lane := payer.fund("d", payee.addr, 1000)
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
	ch, lane := payer.fund("d", payee.addr, 1000)
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
	ch, lane := payer.fund("d", payee.addr, 1000)
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
	ch, lane := payer.fund("d", payee.addr, 1000)
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
	next := payer.channel("d", payee.addr, 10)
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
		c, lane := payer.fund(fmt.Sprint(i), payee.addr, deposit/lanes)
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
	ch, lane := payer.fund("a", payee.addr, 100)
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
	ch, lane := payer.fund("d", payee.addr, 1000)
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

// TestKeysDoNotPrint: no format shows a secret.
func TestKeysDoNotPrint(t *testing.T) {
	keys, addr := newKeyring(t)
	k := keys[addr]
	for _, f := range []string{"%v", "%+v", "%#v", "%s"} {
		require.Equal(t, addr.String(), fmt.Sprintf(f, k), f)
	}
}
