package paych_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/exitcode"
	"github.com/stretchr/testify/require"

	cpaych "github.com/cartage-dev/cartage/paych"
)

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
			r, err := payer.GetOrCreate(t.Context(), fmt.Sprint(i), payer.addr, payee.addr, big.NewInt(int64(i+1)))
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
	for i := range n {
		_, err := payer.AllocateLane(t.Context(), fmt.Sprint(i), ch, big.Zero())
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
	first, err := payer.GetOrCreate(t.Context(), "d", payer.addr, payee.addr, big.NewInt(100))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			_, err := payer.GetOrCreate(ctx, fmt.Sprint("c", i), payer.addr, payee.addr, big.NewInt(1000))
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
	r, err := payer.GetOrCreate(t.Context(), "d", payer.addr, payee.addr, big.NewInt(100))
	require.NoError(t, err)
	_, err = payer.WaitReady(t.Context(), r.Wait)
	require.ErrorContains(t, err, "the ledger refused message")
	chain.set(func() { chain.code = nil })
	ch, lane := payer.fund("d", payee.addr, 100)
	require.NotNil(t, payer.pay("d", ch, lane, 100))
	_, err = payer.GetOrCreate(t.Context(), "d", payer.addr, payee.addr, big.NewInt(1<<40))
	require.ErrorIs(t, err, cpaych.ErrWalletFunds)
}

// TestLostAnswer: scenario 47: the answer to a message gets lost, or the process dies in between: it is found by its intent and
// never sent twice.
func TestLostAnswer(t *testing.T) {
	chain, payer, payee := two(t)
	lost := errors.New("connection lost")
	chain.lose = func(cpaych.Op) error { return lost }
	_, err := payer.GetOrCreate(t.Context(), "d", payer.addr, payee.addr, big.NewInt(100))
	require.ErrorIs(t, err, lost)
	chain.set(func() { chain.lose = nil })
	payer.reopen()
	ch := payer.channel("d", payee.addr, 100)
	require.Equal(t, 1, chain.sent(cpaych.OpCreate))
	require.Zero(t, chain.sent(cpaych.OpAddFunds))
	require.Contains(t, chain.channels, ch)
}

// TestRelease: what a deal reserved and did not spend is free for the next one; what it spent is not.
func TestRelease(t *testing.T) {
	chain, payer, payee := two(t)
	ch, lane := payer.fund("d", payee.addr, 100)
	payer.pay("d", ch, lane, 30)
	for range 2 {
		require.NoError(t, payer.ReleaseDeal(t.Context(), "d"))
	}
	require.EqualValues(t, 70, payer.Free(payer.addr, payee.addr).Int64())
	payer.reopen()
	require.EqualValues(t, 70, payer.Free(payer.addr, payee.addr).Int64())
	ch2, lane2 := payer.fund("e", payee.addr, 70)
	require.Equal(t, ch, ch2)
	require.Zero(t, chain.sent(cpaych.OpAddFunds))
	payer.pay("e", ch2, lane2, 70)
}

// TestReleaseBeforeVoucher: a deal that ends before its first voucher gives everything back, with a lane and without.
func TestReleaseBeforeVoucher(t *testing.T) {
	_, payer, payee := two(t)
	payer.fund("lane", payee.addr, 100)
	payer.channel("none", payee.addr, 50)
	require.Zero(t, payer.Free(payer.addr, payee.addr).Int64())
	require.NoError(t, payer.ReleaseDeal(t.Context(), "lane"))
	require.NoError(t, payer.ReleaseDeal(t.Context(), "none"))
	require.EqualValues(t, 150, payer.Free(payer.addr, payee.addr).Int64())
	payer.reopen()
	require.EqualValues(t, 150, payer.Free(payer.addr, payee.addr).Int64())
}

// TestReservations: a lane spends what its deal reserved and what is free, never what another deal reserved; after a restart
// a deal takes its own amount and not all that is there.
func TestReservations(t *testing.T) {
	_, payer, payee := two(t)
	ch, a := payer.fund("a", payee.addr, 100)
	_, b := payer.fund("b", payee.addr, 900)
	payer.pay("a", ch, a, 100)
	var short *cpaych.ShortfallError
	_, _, err := payer.CreateVoucher(t.Context(), "a", ch, a, big.NewInt(101), 0)
	require.ErrorAs(t, err, &short)
	require.EqualValues(t, 1, short.Missing.Int64())
	payer.pay("b", ch, b, 900)

	payer.channel("c", payee.addr, 60)
	payer.channel("d", payee.addr, 40)
	payer.reopen()
	_, err = payer.AllocateLane(t.Context(), "c", ch, big.NewInt(60))
	require.NoError(t, err)
	require.EqualValues(t, 40, payer.Free(payer.addr, payee.addr).Int64())
}

// TestAmounts: no money comes out of strange amounts, and none is sent for nothing.
func TestAmounts(t *testing.T) {
	chain, payer, payee := two(t)
	for _, amount := range []abi.TokenAmount{{}, big.NewInt(-1), big.NewInt(-500)} {
		_, err := payer.GetOrCreate(t.Context(), "d", payer.addr, payee.addr, amount)
		require.ErrorIs(t, err, cpaych.ErrAmount)
	}
	r, err := payer.GetOrCreate(t.Context(), "d", payer.addr, payee.addr, big.Zero())
	require.NoError(t, err)
	require.Equal(t, cpaych.Ready{}, r)
	require.Empty(t, chain.ops)
}

// TestSubmitAgain: scenario 47: a message whose fate is unknown is submitted again under its intent, never forgotten.
func TestSubmitAgain(t *testing.T) {
	chain, payer, payee := two(t)
	late := errors.New("timed out")
	var held []cpaych.Op
	chain.refuse = func(op cpaych.Op) error { // the chain has it in its queue and applies it later
		held = append(held, op)
		return late
	}
	_, err := payer.GetOrCreate(t.Context(), "d", payer.addr, payee.addr, big.NewInt(100))
	require.ErrorIs(t, err, late)
	payer.close()
	chain.set(func() { chain.refuse = nil })
	payer.open(nil)
	ch := payer.channel("d", payee.addr, 100)
	for _, op := range held { // now the old ones arrive
		_, err := chain.Submit(t.Context(), op)
		require.NoError(t, err)
	}
	require.Equal(t, 1, chain.sent(cpaych.OpCreate))
	info, err := chain.Channel(t.Context(), ch)
	require.NoError(t, err)
	require.EqualValues(t, 100, info.Balance.Int64())
	require.Zero(t, chain.sent(cpaych.OpAddFunds))

	chain.set(func() { chain.refuse = func(cpaych.Op) error { return cpaych.ErrRefused } })
	_, err = payer.GetOrCreate(t.Context(), "e", payer.addr, payee.addr, big.NewInt(500))
	require.ErrorIs(t, err, cpaych.ErrRefused)
	chain.set(func() { chain.refuse = nil })
	payer.fund("e", payee.addr, 500)
}

// TestReplenish: what a message brought for one deal is with another one since the process was started again. The first one gets it again, and nothing
// beyond what it may spend.
func TestReplenish(t *testing.T) {
	chain, payer, payee := two(t)
	ch := payer.channel("a", payee.addr, 100)
	payer.reopen()
	_, lane := payer.fund("b", payee.addr, 100)
	require.NotNil(t, payer.pay("b", ch, lane, 100))
	require.Zero(t, chain.sent(cpaych.OpAddFunds))
	lane, err := payer.AllocateLane(t.Context(), "a", ch, big.NewInt(100))
	require.NoError(t, err)
	_, _, err = payer.CreateVoucher(t.Context(), "a", ch, lane, big.NewInt(60), 0)
	var short *cpaych.ShortfallError
	require.ErrorAs(t, err, &short)
	for _, missing := range []bool{true, false} {
		added, err := payer.Replenish(t.Context(), "a", payer.addr, payee.addr, big.NewInt(100))
		require.NoError(t, err)
		require.Equal(t, missing, added)
	}
	require.Equal(t, 1, chain.sent(cpaych.OpAddFunds))
	require.NotNil(t, payer.pay("a", ch, lane, 100))
	_, err = payer.Replenish(t.Context(), "c", payer.addr, payee.addr, big.NewInt(100))
	require.ErrorIs(t, err, cpaych.ErrUnknownChannel)
}

// TestFreeMoneyIsNotPromisedTwice: a message brings what a deal lacks beyond what is free. A deal that has forgotten its share of that since a start gets
// none of it meanwhile.
func TestFreeMoneyIsNotPromisedTwice(t *testing.T) {
	chain, payer, payee := two(t)
	ch := payer.channel("a", payee.addr, 100)
	payer.reopen()
	gate := make(chan struct{})
	chain.set(func() { chain.gate = gate })
	ready, err := payer.GetOrCreate(t.Context(), "b", payer.addr, payee.addr, big.NewInt(150))
	require.NoError(t, err)
	require.True(t, ready.Wait.Defined())
	a, err := payer.AllocateLane(t.Context(), "a", ch, big.NewInt(100))
	require.NoError(t, err)
	close(gate)
	_, err = payer.WaitReady(t.Context(), ready.Wait)
	require.NoError(t, err)
	b, err := payer.AllocateLane(t.Context(), "b", ch, big.NewInt(150))
	require.NoError(t, err)
	require.NotNil(t, payer.pay("b", ch, b, 150))
	added, err := payer.Replenish(t.Context(), "a", payer.addr, payee.addr, big.NewInt(100))
	require.NoError(t, err)
	require.True(t, added)
	require.NotNil(t, payer.pay("a", ch, a, 100))
	f, err := payer.Available(t.Context(), ch)
	require.NoError(t, err)
	require.EqualValues(t, 250, f.Confirmed.Int64())
	require.True(t, f.Free.IsZero())
}
