package paych_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/stretchr/testify/require"

	cpaych "github.com/cartage-dev/cartage/paych"
)

// TestReleaseInFlight: a deal that ends while its deposit is on its way, or while it waits for its turn, leaves the money free.
func TestReleaseInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chain, payer, payee := two(t)
		gate := make(chan struct{})
		chain.set(func() { chain.gate = gate })
		r, err := payer.GetOrCreate(t.Context(), "d", payer.addr, payee.addr, big.NewInt(100))
		require.NoError(t, err)
		queued := make(chan error, 1)
		go func() {
			_, err := payer.GetOrCreate(t.Context(), "e", payer.addr, payee.addr, big.NewInt(70))
			queued <- err
		}()
		synctest.Wait()
		require.NoError(t, payer.ReleaseDeal(t.Context(), "d"))
		require.NoError(t, payer.ReleaseDeal(t.Context(), "e"))
		close(gate)
		_, err = payer.WaitReady(t.Context(), r.Wait)
		require.NoError(t, err)
		<-queued
		require.EqualValues(t, 100, payer.Free(payer.addr, payee.addr).Int64())
		require.Zero(t, chain.sent(cpaych.OpAddFunds))
	})
}

// TestSettledWhileQueued: the payee closes the channel while a deposit is in flight: what waits behind it goes to a new channel, whether the
// old one has room or not, and no money is put into one that is being closed.
func TestSettledWhileQueued(t *testing.T) {
	for name, amount := range map[string]int64{"what is free would do": 40, "a deposit would be needed": 4000} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				chain, payer, payee := two(t)
				ch, _ := payer.fund("a", payee.addr, 100)
				gate := make(chan struct{})
				chain.set(func() { chain.gate = gate })
				_, err := payer.GetOrCreate(t.Context(), "b", payer.addr, payee.addr, big.NewInt(50))
				require.NoError(t, err)
				got := make(chan cpaych.Ready, 1)
				go func() {
					r, err := payer.GetOrCreate(context.WithoutCancel(t.Context()), "c", payer.addr, payee.addr, big.NewInt(amount))
					if err != nil {
						t.Error(err)
					}
					got <- r
				}()
				synctest.Wait()
				require.NoError(t, payer.ReleaseDeal(t.Context(), "a"))
				chain.set(func() { chain.channels[ch].SettlingAt = chain.epoch + 1440 })
				require.NoError(t, payer.Maintain(t.Context()))
				close(gate)
				next, err := payer.WaitReady(t.Context(), (<-got).Wait)
				require.NoError(t, err)
				require.NotEqual(t, ch, next)
				require.LessOrEqual(t, chain.channels[ch].Balance.Int64(), int64(150))
				require.Equal(t, amount, chain.channels[next].Balance.Int64())
			})
		})
	}
}

// TestReservationsStand: a deal without a reservation cannot spend that of another, and what it takes of the free money is its own then.
func TestReservationsStand(t *testing.T) {
	_, payer, payee := two(t)
	ch, a := payer.fund("a", payee.addr, 100)
	b, err := payer.AllocateLane(t.Context(), "b", ch, big.NewInt(60))
	require.NoError(t, err)
	var short *cpaych.ShortfallError
	_, _, err = payer.CreateVoucher(t.Context(), "b", ch, b, big.NewInt(60), 0)
	require.ErrorAs(t, err, &short)
	require.EqualValues(t, 60, short.Missing.Int64())
	payee.mustTake("a", payer.pay("a", ch, a, 40), 40)
	require.NoError(t, payer.ReleaseDeal(t.Context(), "a"))
	payee.mustTake("b", payer.pay("b", ch, b, 60), 60)
	require.Zero(t, payer.Free(payer.addr, payee.addr).Sign())
}

// TestOnlyOursIsEarned: what a payer pays is not its earning, and channels that nobody knows are not remembered for being asked about.
func TestOnlyOursIsEarned(t *testing.T) {
	_, payer, payee := two(t)
	ch, lane := payer.fund("d", payee.addr, 100)
	payee.mustTake("d", payer.pay("d", ch, lane, 70), 70)
	require.NoError(t, payer.Settle(t.Context(), ch))
	require.NoError(t, payee.Maintain(t.Context()))
	require.NoError(t, payer.Maintain(t.Context()))
	e, err := payer.Earnings(t.Context())
	require.NoError(t, err)
	require.Empty(t, e.Days)
	e, err = payee.Earnings(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 70, e.Days[0].Redeemed.Int64())

	nowhere, err := address.NewActorAddress([]byte("nowhere"))
	require.NoError(t, err)
	require.ErrorIs(t, payer.Redeem(t.Context(), nowhere), cpaych.ErrUnknownChannel)
	require.NoError(t, payer.Maintain(t.Context()))
}

// TestNotThePayersFault: a voucher that needs a top-up which the payee cannot see, because its chain is away, is asked for again later.
func TestNotThePayersFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chain, payer, payee := two(t)
		ch, lane := payer.fund("d", payee.addr, 100)
		payee.mustTake("d", payer.pay("d", ch, lane, 10), 10)
		_, second := payer.fund("e", payee.addr, 100)
		v := payer.pay("e", ch, second, 100)
		time.Sleep(time.Minute)
		gone := errors.New("the node does not answer")
		chain.set(func() { chain.away = gone })
		_, err := payee.take("e", v)
		require.ErrorIs(t, err, gone)
		require.False(t, cpaych.IsVoucherFault(err))
		chain.set(func() { chain.away = nil })
		payee.mustTake("e", v, 100)
	})
}

// TestPlan: what would be done is what is done, and nothing is promised that comes too late.
func TestPlan(t *testing.T) {
	chain, payer, payee := two(t)
	ch, lane := payer.fund("d", payee.addr, 100)
	payee.mustTake("d", payer.pay("d", ch, lane, 70), 70)
	p, err := payee.Plan(t.Context(), ch)
	require.NoError(t, err)
	require.EqualValues(t, []int64{70, 70, 30, 0}, []int64{p.Adds.Int64(), p.ToPayee.Int64(), p.ToPayer.Int64(), p.Redeemed.Int64()})
	p, err = payer.Plan(t.Context(), ch)
	require.NoError(t, err)
	require.Empty(t, p.Redeem, "the payer has nothing to redeem")
	chain.set(func() {
		chain.channels[ch].SettlingAt = chain.epoch
		chain.epoch += 10
	})
	p, err = payee.Plan(t.Context(), ch)
	require.NoError(t, err)
	require.Zero(t, p.ToPayee.Int64(), "nothing was redeemed in time")
	require.EqualValues(t, 100, p.ToPayer.Int64())
}
