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
	chain cpaych.Chain
	keys  keyring
	addr  address.Address
}

func newSide(t *testing.T, chain *fakeChain) *side {
	keys, addr := newKeyring(t)
	chain.balances[addr] = big.NewInt(1_000_000)
	return newSideOn(t, chain, keys, addr)
}

// newSideOn is a side with a key that has money.
func newSideOn(t *testing.T, chain cpaych.Chain, keys keyring, addr address.Address) *side {
	s := &side{t: t, ds: dssync.MutexWrap(datastore.NewMapDatastore()), chain: chain, keys: keys, addr: addr}
	s.open(nil)
	t.Cleanup(func() { s.close() })
	return s
}

func (s *side) open(sw *faults.Switch, options ...cpaych.Option) {
	s.t.Helper()
	if sw == nil {
		sw = &faults.Switch{}
	}
	m, err := cpaych.Open(s.t.Context(), faults.Store{Batching: s.ds, Switch: sw}, s.chain, s.keys, options...)
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

// TestT06SameAmountAgain: scenario 40 and D8: asking again for what was signed is the same voucher.
func TestT06SameAmountAgain(t *testing.T) {
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
