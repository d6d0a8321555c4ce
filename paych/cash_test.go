package paych_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/filecoin-project/go-state-types/exitcode"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/stretchr/testify/require"

	cpaych "github.com/cartage-dev/cartage/paych"
)

// TestPayeeCloses: scenario 43: the payee settles; a voucher that comes after is redeemed at once; the next deal gets a new channel by itself.
func TestPayeeCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chain, payer, payee := two(t)
		ch, lane := payer.fund("d", payee.addr, 100)
		payee.mustTake("d", payer.pay("d", ch, lane, 10), 10)
		require.NoError(t, payee.Settle(t.Context(), ch))
		payee.mustTake("d", payer.pay("d", ch, lane, 20), 10)
		require.EqualValues(t, 20, chain.channels[ch].ToSend.Int64(), "it counts because the chain has it")
		time.Sleep(time.Minute)
		next, lane2 := payer.fund("e", payee.addr, 30)
		require.NotEqual(t, ch, next)
		payee.mustTake("e", payer.pay("e", next, lane2, 30), 30)
	})
}

// TestTend: scenarios 27 and 28: the payer settles in the middle; the payee redeems its best by itself, a voucher that was
// accepted before it saw that too, and collects in time.
func TestTend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chain, payer, payee := two(t)
		ch, lane := payer.fund("d", payee.addr, 100)
		payee.mustTake("d", payer.pay("d", ch, lane, 10), 10)
		late := payer.pay("d", ch, lane, 25)
		require.NoError(t, payee.Maintain(t.Context()))
		require.Zero(t, chain.sent(cpaych.OpRedeem), "an open channel is left alone")
		require.NoError(t, payer.Settle(t.Context(), ch))
		payee.mustTake("d", late, 15) // the cached state is not older than its limit
		require.NoError(t, payee.Maintain(t.Context()))
		require.NoError(t, payee.Maintain(t.Context()))
		require.Equal(t, 1, chain.sent(cpaych.OpRedeem))
		require.EqualValues(t, 25, chain.channels[ch].ToSend.Int64())
		payee.mustTake("d", payer.resign(paych.SignedVoucher{ChannelAddr: ch, Lane: lane, Nonce: 9, Amount: big.NewInt(30), Merges: []paych.Merge{}}), 5)
		require.EqualValues(t, 30, chain.channels[ch].ToSend.Int64(), "one that comes later is redeemed at once")
		chain.set(func() { chain.epoch += 1440 })
		require.NoError(t, payee.Maintain(t.Context()))
		require.NoError(t, payer.Maintain(t.Context()))
		require.Equal(t, 1, chain.sent(cpaych.OpCollect))
	})
}

// TestRedeemGoesOn: a lane that cannot be redeemed does not keep the others back, and the largest comes first.
func TestRedeemGoesOn(t *testing.T) {
	chain, payer, payee := two(t)
	var ch address.Address
	for i, amount := range []int64{10, 30, 20} {
		deal := fmt.Sprint(i)
		c, lane := payer.fund(deal, payee.addr, 100)
		ch = c
		payee.mustTake(deal, payer.pay(deal, c, lane, amount), amount)
	}
	chain.set(func() {
		chain.code = func(op cpaych.Op) exitcode.ExitCode {
			if op.Kind == cpaych.OpRedeem && op.Voucher.Lane == 1 {
				return exitcode.SysErrOutOfGas
			}
			return 0
		}
	})
	require.ErrorContains(t, payee.Redeem(t.Context(), ch), "lane 1")
	require.EqualValues(t, 30, chain.channels[ch].ToSend.Int64())
	require.EqualValues(t, 1, chain.ops[len(chain.ops)-3].Voucher.Lane, "the largest first")
	chain.set(func() { chain.code = nil })
	require.NoError(t, payee.Redeem(t.Context(), ch), "scenario 54: a message that failed is sent again")
	require.EqualValues(t, 60, chain.channels[ch].ToSend.Int64())
}

// TestLostBook: the payee lost its book. What the chain has redeemed is not credited again, and counts for the sum.
func TestLostBook(t *testing.T) {
	chain, payer, payee := two(t)
	ch, lane := payer.fund("d", payee.addr, 1000)
	v := payer.pay("d", ch, lane, 600)
	payee.mustTake("d", v, 600)
	require.NoError(t, payee.Redeem(t.Context(), ch))
	payee.close()
	payee.ds = dssync.MutexWrap(datastore.NewMapDatastore())
	payee.open(nil)
	_, err := payee.take("new", v)
	require.ErrorIs(t, err, cpaych.ErrStaleNonce, "a redeemed voucher pays for nothing more")
	over := payer.resign(paych.SignedVoucher{ChannelAddr: ch, Lane: 7, Nonce: 1, Amount: big.NewInt(401), Merges: []paych.Merge{}})
	_, err = payee.take("new", over)
	require.ErrorIs(t, err, cpaych.ErrInsufficientChannel)
	require.ErrorContains(t, err, "short by 1")
	payee.mustTake("old", payer.pay("d", ch, lane, 700), 100)
	best, err := payee.Best(t.Context(), true, "old")
	require.NoError(t, err)
	require.EqualValues(t, 100, best.Credit.Int64(), "only what came on top is the deal's")
	_ = chain
}

// TestDealHasOneLane: a deal is paid on one lane.
func TestDealHasOneLane(t *testing.T) {
	_, payer, payee := two(t)
	ch, a := payer.fund("x", payee.addr, 100)
	_, b := payer.fund("y", payee.addr, 100)
	payee.mustTake("d", payer.pay("x", ch, a, 50), 50)
	_, err := payee.take("d", payer.pay("y", ch, b, 60))
	require.ErrorIs(t, err, cpaych.ErrLaneBound)
	payee.reopen()
	_, err = payee.take("d", payer.pay("y", ch, b, 60))
	require.ErrorIs(t, err, cpaych.ErrLaneBound)
}

// TestChainAway: while the chain is away for an hour the deals on a channel that was seen go on, within its deposit; nothing new is begun,
// and what was waiting is done when it is back.
func TestChainAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chain, payer, payee := two(t)
		chain.depth = 5
		ch, lane := payer.fund("d", payee.addr, 100)
		chain.set(func() { chain.epoch += 5 })
		payee.mustTake("d", payer.pay("d", ch, lane, 10), 10)
		gone := errors.New("connection refused")
		chain.set(func() { chain.away = gone })
		for minute := range int64(60) {
			time.Sleep(time.Minute)
			payee.mustTake("d", payer.pay("d", ch, lane, 11+minute), 1)
			require.ErrorIs(t, payee.Maintain(t.Context()), gone)
		}
		_, err := payee.take("d", payer.resign(paych.SignedVoucher{ChannelAddr: ch, Lane: lane, Nonce: 99, Amount: big.NewInt(101), Merges: []paych.Merge{}}))
		require.ErrorIs(t, err, gone, "more than the deposit that was seen: nobody knows whether it was raised")
		_, err = payee.take("new", payer.resign(paych.SignedVoucher{ChannelAddr: payee.otherChannel(), Lane: 0, Nonce: 1, Amount: big.NewInt(1), Merges: []paych.Merge{}}))
		require.ErrorIs(t, err, gone, "of a channel that was never seen nothing is known")
		require.False(t, cpaych.IsVoucherFault(err))
		e, err := payee.Earnings(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 70, e.Claims[0].Redeemable.Int64())
		chain.set(func() { chain.away = nil })
		require.NoError(t, payee.Settle(t.Context(), ch))
		require.EqualValues(t, 70, chain.channels[ch].ToSend.Int64())
	})
}

// otherChannel is the address of a channel that nobody has seen.
func (s *side) otherChannel() address.Address {
	a, err := address.NewActorAddress([]byte("never seen"))
	require.NoError(s.t, err)
	return a
}
