package clientstates_test

import (
	"errors"
	"testing"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cartage-dev/cartage/fsm"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestE1Relative and the next ones are the worked examples of 3.7.
func TestE1Relative(t *testing.T) {
	r := start(t, rm.DealStatusOngoing, 1000, 500, 2, 0)
	r.blocks(600)
	r.blocks(1200)
	r.row(r.asked(2400), 2400, 1200, 1500, 2400)
	r.blocks(2400)
	r.blocks(3000)
	r.row(r.asked(3600), 6000, 3000, 2000, 2400, 6000)
	r.blocks(4800)
	r.send(rm.ClientEventAllBlocksReceived)
	d := r.askedLast(3600)
	r.row(d, 9600, 4800, 2000, 2400, 6000, 9600)
	require.Equal(t, rm.DealStatusFinalizing, d.Status)
	require.Equal(t, rm.DealStatusCompleted, r.send(rm.ClientEventComplete).Status)
}

func TestE1Absolute(t *testing.T) {
	r := start(t, rm.DealStatusOngoing, 1000, 500, 2, 0)
	r.blocks(1200)
	r.asked(2400)
	r.blocks(3000)
	r.asked(3600)
	r.blocks(4800)
	d := r.asked(3600)
	r.row(d, 9600, 4800, 2000, 2400, 6000, 9600)
	require.Equal(t, rm.DealStatusOngoing, d.Status)
	r.send(rm.ClientEventAllBlocksReceived)
	require.Equal(t, rm.DealStatusCompleted, r.send(rm.ClientEventComplete).Status)
}

func TestE2Unseal(t *testing.T) {
	r := start(t, rm.DealStatusOngoing, 1000, 500, 2, 100)
	d := r.asked(100)
	r.row(d, 100, 0, 1000, 100)
	require.EqualValues(t, 100, d.UnsealFundsPaid.Int64())
	r.blocks(1200)
	r.row(r.asked(2400), 2500, 1200, 1500, 100, 2500)
	r.blocks(3000)
	r.row(r.asked(3600), 6100, 3000, 2000, 100, 2500, 6100)
	r.blocks(4800)
	r.send(rm.ClientEventAllBlocksReceived)
	r.row(r.askedLast(3600), 9700, 4800, 2000, 100, 2500, 6100, 9700)
}

func TestE3NothingOwedAtTheEnd(t *testing.T) {
	r := start(t, rm.DealStatusOngoing, 1000, 500, 2, 0)
	r.blocks(1000)
	r.row(r.asked(2000), 2000, 1000, 1500, 2000)
	r.blocks(2500)
	r.row(r.asked(3000), 5000, 2500, 2000, 2000, 5000)
	r.send(rm.ClientEventAllBlocksReceived)
	require.Equal(t, rm.DealStatusCompleted, r.send(rm.ClientEventComplete).Status)
	require.Len(t, r.env.vouchers, 2)
}

func TestE4UnsealOnly(t *testing.T) {
	r := start(t, rm.DealStatusOngoing, 1000, 500, 0, 1000, func(d *rm.ClientDealState, _ *fakeEnv) { d.TotalFunds = big.NewInt(1000) })
	r.row(r.asked(1000), 1000, 0, 1000, 1000)
	r.blocks(5000)
	require.Equal(t, rm.DealStatusClientWaitingForLastBlocks, r.send(rm.ClientEventComplete).Status)
	require.Equal(t, rm.DealStatusCompleted, r.send(rm.ClientEventAllBlocksReceived).Status)
	require.Len(t, r.env.vouchers, 1)
}

func TestE5Free(t *testing.T) {
	r := start(t, rm.DealStatusWaitForAcceptance, 0, 0, 0, 0, func(d *rm.ClientDealState, _ *fakeEnv) { d.TotalFunds, d.PaymentInfo = big.Zero(), nil })
	require.Equal(t, rm.DealStatusOngoing, r.send(rm.ClientEventDealAccepted).Status)
	r.blocks(100)
	r.send(rm.ClientEventAllBlocksReceived)
	require.Equal(t, rm.DealStatusCompleted, r.send(rm.ClientEventComplete).Status)
	require.Empty(t, r.env.vouchers)
}

func TestE6Reference(t *testing.T) {
	for name, tc := range map[string]struct {
		interval, increase uint64
		unseal             int64
		first, last        int64
	}{
		"plain": {10000, 1000, 0, 10136000, 9784000}, "unseal": {10000, 1000, 1000, 10136000, 9784000}, "at the end": {9000, 1250, 0, 9112000, 10808000},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, rm.DealStatusOngoing, tc.interval, tc.increase, 1000, tc.unseal)
			var want []int64
			if tc.unseal > 0 {
				r.asked(tc.unseal)
				want = append(want, tc.unseal)
			}
			r.blocks(uint64(tc.first / 1000))
			r.asked(tc.first)
			r.blocks(19920)
			r.send(rm.ClientEventAllBlocksReceived)
			d := r.askedLast(tc.last)
			require.Equal(t, append(want, tc.unseal+tc.first, tc.unseal+19920000), r.env.vouchers)
			require.EqualValues(t, 19920, d.BytesPaidFor)
		})
	}
}

// TestE7AskTooHigh: of one unit above what is due what is due is paid; a provider that goes on asking for more has ended the deal, and the file is
// delivered.
func TestE7AskTooHigh(t *testing.T) {
	deal := func(t *testing.T) *run {
		return start(t, rm.DealStatusOngoing, 1000, 500, 2, 0, func(d *rm.ClientDealState, _ *fakeEnv) {
			d.TotalReceived, d.BytesPaidFor, d.FundsSpent, d.AllBlocksReceived = 2000, 1000, big.NewInt(2000), true
			d.Status = rm.DealStatusBlocksComplete
		})
	}
	r := deal(t)
	r.env.quiet = true
	r.asked(2001)
	d := r.settle()
	for range 20 { // the owner's clock
		if clientstates.IsFinal(d.Status) {
			break
		}
		d = r.asked(1)
	}
	require.Equal(t, rm.DealStatusCompleted, d.Status)
	require.Equal(t, "the provider asked for 1 more than is due", d.Message)
	require.EqualValues(t, 4000, d.FundsSpent.Int64())
	require.Equal(t, int64(4000), r.env.vouchers[len(r.env.vouchers)-1])
	r = deal(t)
	r.asked(2000)
	require.Equal(t, []int64{4000}, r.env.vouchers)
}

// TestE8PartialAsk: what is due is paid, not what is asked for.
func TestE8PartialAsk(t *testing.T) {
	r := start(t, rm.DealStatusOngoing, 1000, 500, 2, 0, func(d *rm.ClientDealState, _ *fakeEnv) {
		d.TotalReceived, d.BytesPaidFor, d.FundsSpent = 2200, 1000, big.NewInt(2000)
	})
	r.row(r.asked(1500), 4400, 2200, 1500, 4400)
}

// TestE9MixedGenerations: a provider with absolute boundaries asks where a relative client would wait for ever.
func TestE9MixedGenerations(t *testing.T) {
	r := start(t, rm.DealStatusOngoing, 10000, 1000, 1, 0)
	r.blocks(10136)
	r.asked(10136)
	r.blocks(21000)
	r.asked(10864)
	require.Equal(t, []int64{10136, 21000}, r.env.vouchers)
}

func TestE10TopUp(t *testing.T) {
	deal := func(t *testing.T, short []int64, funds ...rm.ChannelAvailableFunds) *run {
		return start(t, rm.DealStatusOngoing, 1<<20, 0, 1, 0, func(d *rm.ClientDealState, e *fakeEnv) {
			d.TotalReceived, e.short, e.funds = 410000, short, funds
		})
	}
	funds := func(confirmed, pending, queued int64, wait *cid.Cid) rm.ChannelAvailableFunds {
		return rm.ChannelAvailableFunds{ConfirmedAmt: big.NewInt(confirmed), PendingAmt: big.NewInt(pending), QueuedAmt: big.NewInt(queued),
			VoucherReedeemedAmt: big.Zero(), PendingWaitSentinel: wait}
	}
	t.Run("arrives in two messages", func(t *testing.T) {
		one, two := sentinel(t, "1"), sentinel(t, "2")
		r := deal(t, []int64{410000, 210000, 0}, funds(0, 200000, 210000, one), funds(200000, 210000, 0, two))
		d := r.asked(410000)
		require.Equal(t, rm.DealStatusOngoing, d.Status, d.Message)
		require.Equal(t, []int64{410000}, r.env.vouchers)
		require.Equal(t, []cid.Cid{*one, *two}, r.env.waited)
	})
	t.Run("nothing is coming", func(t *testing.T) {
		d := deal(t, []int64{410000}, funds(0, 0, 0, nil)).asked(410000)
		require.Equal(t, rm.DealStatusInsufficientFunds, d.Status)
		require.EqualValues(t, 410000, d.VoucherShortfall.Int64())
	})
	t.Run("too little is coming", func(t *testing.T) {
		d := deal(t, []int64{410000}, funds(0, 100000, 0, sentinel(t, "1"))).asked(410000)
		require.Equal(t, rm.DealStatusInsufficientFunds, d.Status)
		require.EqualValues(t, 310000, d.VoucherShortfall.Int64())
	})
}

// TestM36CheckFundsGivesUp: a node that says there is enough and signs nothing is not asked for ever.
func TestM36CheckFundsGivesUp(t *testing.T) {
	r := start(t, rm.DealStatusOngoing, 1<<20, 0, 1, 0, func(d *rm.ClientDealState, e *fakeEnv) {
		d.TotalReceived, e.short = 1000, []int64{7}
		e.funds = []rm.ChannelAvailableFunds{{ConfirmedAmt: big.NewInt(5000), PendingAmt: big.Zero(), QueuedAmt: big.Zero(), VoucherReedeemedAmt: big.Zero()}}
	})
	d := r.asked(1000)
	require.Equal(t, rm.DealStatusInsufficientFunds, d.Status)
	require.Less(t, r.env.attempts, 12)
	require.Contains(t, d.Message, "shortfall of 7")
}

// TestM06BytesInFlight: an ask that overtakes its last block waits for it.
func TestM06BytesInFlight(t *testing.T) {
	r := start(t, rm.DealStatusOngoing, 1000, 0, 2, 0)
	r.blocks(900)
	d := r.asked(2000)
	require.Equal(t, rm.DealStatusFundsNeeded, d.Status)
	require.Empty(t, r.env.vouchers)
	r.blocks(1000)
	require.Equal(t, []int64{2000}, r.env.vouchers)
}

// TestM07TotalFundsIsACap: no voucher above it is signed.
func TestM07TotalFundsIsACap(t *testing.T) {
	r := start(t, rm.DealStatusOngoing, 1000, 0, 2, 0, func(d *rm.ClientDealState, _ *fakeEnv) { d.TotalFunds = big.NewInt(1999) })
	r.blocks(1000)
	d := r.asked(2000)
	require.Equal(t, rm.DealStatusInsufficientFunds, d.Status)
	require.EqualValues(t, 1, d.VoucherShortfall.Int64())
	require.Zero(t, r.env.attempts)
}

// TestNothingDue: an ask for nothing does not leave the deal waiting.
func TestNothingDue(t *testing.T) {
	r := start(t, rm.DealStatusOngoing, 1000, 0, 2, 0)
	require.Equal(t, rm.DealStatusOngoing, r.asked(0).Status)
}

// TestM27CancelInterrupts: a cancel while the proposal is on its way ends Cancelled at once and says who wanted it.
func TestM27CancelInterrupts(t *testing.T) {
	r := start(t, rm.DealStatusNew, 1000, 0, 2, 0, func(_ *rm.ClientDealState, e *fakeEnv) { e.openWait = true })
	require.NoError(t, r.Send(rm.ClientEventOpen))
	d := r.send(rm.ClientEventCancel)
	require.Equal(t, rm.DealStatusCancelled, d.Status, d.Message)
	require.Equal(t, "Client cancelled retrieval", d.Message)
}

// TestM12FailuresCloseTheTransfer: whatever goes wrong, the transfer is closed before the deal is over, and the first cause
// is what the user reads.
func TestM12FailuresCloseTheTransfer(t *testing.T) {
	for name, tc := range map[string]struct {
		events []func(r *run) rm.ClientDealState
		says   string
	}{
		"transfer error": {[]func(*run) rm.ClientDealState{func(r *run) rm.ClientDealState {
			return r.send(rm.ClientEventDataTransferError, errors.New("disk on fire"))
		}}, "error generated by data transfer: disk on fire"},
		"unexpected answer": {[]func(*run) rm.ClientDealState{func(r *run) rm.ClientDealState {
			return r.send(rm.ClientEventUnknownResponseReceived, rm.DealStatusErrored, "M-10")
		}}, "Unexpected deal response status: DealStatusErrored: M-10"},
		"complete without the data": {[]func(*run) rm.ClientDealState{func(r *run) rm.ClientDealState {
			r.send(rm.ClientEventComplete)
			return r.send(rm.ClientEventEarlyTermination)
		}}, "Provider sent complete status without sending all data"},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, rm.DealStatusOngoing, 1000, 0, 2, 0)
			var d rm.ClientDealState
			for _, e := range tc.events {
				d = e(r)
			}
			require.Equal(t, rm.DealStatusErrored, d.Status)
			require.Equal(t, tc.says, d.Message)
			require.Equal(t, 1, r.env.closed)
		})
	}
}

// TestReasonIsKept: the refusal of the transfer that follows an error does not hide it.
func TestReasonIsKept(t *testing.T) {
	table, err := fsm.Compile(clientstates.Spec(clientstates.Deadlines(0, 0, 0, 0)))
	require.NoError(t, err)
	d := rm.ClientDealState{Status: rm.DealStatusWaitForAcceptance, PaymentRequested: big.Zero()}
	_, err = table.Apply(&d, rm.ClientEventUnknownResponseReceived, rm.DealStatusErrored, "disk on fire")
	require.NoError(t, err)
	_, err = table.Apply(&d, rm.ClientEventDealRejected, "rejected for unknown reasons")
	require.NoError(t, err)
	require.Equal(t, rm.DealStatusFailing, d.Status)
	require.Equal(t, "Unexpected deal response status: DealStatusErrored: disk on fire", d.Message)
}

// TestM28LateVoucher: an unseal fee is named in the message also if its voucher left while the provider cancelled.
func TestM28LateVoucher(t *testing.T) {
	table, err := fsm.Compile(clientstates.Spec(clientstates.Deadlines(0, 0, 0, 0)))
	require.NoError(t, err)
	d := rm.ClientDealState{Status: rm.DealStatusSendFunds, PaymentRequested: big.NewInt(7), FundsSpent: big.Zero(), UnsealFundsPaid: big.Zero()}
	d.PricePerByte, d.UnsealPrice = big.NewInt(2), big.NewInt(7)
	_, err = table.Apply(&d, rm.ClientEventProviderCancelled)
	require.NoError(t, err)
	require.Equal(t, "Provider cancelled retrieval", d.Message)
	_, err = table.Apply(&d, rm.ClientEventPaymentSent, big.NewInt(7))
	require.NoError(t, err)
	require.Equal(t, rm.DealStatusCancelling, d.Status)
	require.Equal(t, "Provider cancelled retrieval (unseal price 7 was paid)", d.Message)
}

// TestM08ErrorsHaveAWay: every error event has a transition from every state whose entry function can raise it, and progress is
// recorded in every state that is not final.
func TestM08ErrorsHaveAWay(t *testing.T) {
	table, err := fsm.Compile(clientstates.Spec(clientstates.Deadlines(0, 0, 0, 0)))
	require.NoError(t, err)
	boom := errors.New("boom")
	raise := map[rm.DealStatus][]func(d *rm.ClientDealState) error{}
	on := func(e rm.ClientEvent, args []any, states ...rm.DealStatus) {
		for _, s := range states {
			raise[s] = append(raise[s], func(d *rm.ClientDealState) error {
				_, err := table.Apply(d, e, args...)
				return err
			})
		}
	}
	var open []rm.DealStatus
	for s := rm.DealStatusNew; s <= rm.DealStatusCancelled; s++ {
		if _, known := rm.DealStatuses[s]; known && !clientstates.IsFinal(s) && clientState(s) {
			open = append(open, s)
		}
	}
	on(rm.ClientEventBlocksReceived, []any{uint64(7)}, open...)
	on(rm.ClientEventAllBlocksReceived, nil, open...)
	on(rm.ClientEventPaymentRequested, []any{big.NewInt(1)}, open...)
	on(rm.ClientEventLastPaymentRequested, []any{big.NewInt(1)}, open...)
	on(rm.ClientEventComplete, nil, open...)
	on(rm.ClientEventDataTransferError, []any{boom}, open...)
	on(rm.ClientEventCancel, nil, open...)
	on(rm.ClientEventProviderCancelled, nil, open...)
	on(rm.ClientEventWriteDealProposalErrored, []any{boom}, rm.DealStatusNew, rm.DealStatusCancelling)
	on(rm.ClientEventPaymentChannelErrored, []any{boom}, rm.DealStatusAccepted, rm.DealStatusPaymentChannelCreating,
		rm.DealStatusPaymentChannelAddingInitialFunds, rm.DealStatusPaymentChannelAddingFunds, rm.DealStatusCheckFunds)
	on(rm.ClientEventAllocateLaneErrored, []any{boom}, rm.DealStatusPaymentChannelAllocatingLane)
	on(rm.ClientEventCreateVoucherFailed, []any{boom}, rm.DealStatusSendFunds, rm.DealStatusSendFundsLastPayment)
	on(rm.ClientEventWriteDealPaymentErrored, []any{boom}, rm.DealStatusSendFunds, rm.DealStatusSendFundsLastPayment, rm.DealStatusCancelling)
	on(rm.ClientEventFundsExpended, []any{big.NewInt(1)}, rm.DealStatusCheckFunds, rm.DealStatusSendFunds, rm.DealStatusSendFundsLastPayment)
	on(rm.ClientEventBadPaymentRequested, []any{"x"}, rm.DealStatusFundsNeeded, rm.DealStatusFundsNeededLastPayment, rm.DealStatusSendFunds)
	for s, list := range raise {
		for i, f := range list {
			d := rm.ClientDealState{Status: s, PaymentRequested: big.Zero()}
			require.NoError(t, f(&d), "%s, event %d", s, i)
		}
	}
}

// clientState tells whether a status is one of the client's.
func clientState(s rm.DealStatus) bool {
	switch s {
	case rm.DealStatusUnsealing, rm.DealStatusUnsealed, rm.DealStatusFundsNeededUnseal, rm.DealStatusCompleting:
		return false
	}
	return true
}

// TestCrossedRequest: a request that crossed a voucher is not answered with one for the few bytes since; what is due in full, what a
// provider asks for at the end, and what it asks for while nothing comes is paid.
func TestCrossedRequest(t *testing.T) {
	ongoing := func() *run {
		r := start(t, rm.DealStatusOngoing, 1000, 0, 2, 0)
		r.blocks(1000)
		r.row(r.asked(2000), 2000, 1000, 1000, 2000)
		r.blocks(1200)
		return r
	}
	r := ongoing()
	d := r.asked(2000)
	require.Equal(t, rm.DealStatusFundsNeeded, d.Status)
	require.Equal(t, []int64{2000}, r.env.vouchers)
	r.blocks(2000)
	d, _ = r.State()
	r.row(d, 4000, 2000, 1000, 2000, 4000)

	r = ongoing()
	r.row(r.asked(400), 2400, 1200, 1000, 2000, 2400)

	r = ongoing()
	r.asked(2000)
	r.env.quiet = true
	require.NoError(t, r.Reenter())
	r.settle()
	require.Equal(t, []int64{2000, 2400}, r.env.vouchers[:2])

	r = ongoing()
	r.send(rm.ClientEventAllBlocksReceived)
	r.askedLast(400)
	require.Equal(t, []int64{2000, 2400}, r.env.vouchers)
}

// TestCompletedIsPaid: a provider that says that it is done before it asked for the rest is paid it, and one that pays ahead of its count too.
func TestCompletedIsPaid(t *testing.T) {
	r := start(t, rm.DealStatusOngoing, 1000, 0, 2, 0)
	r.blocks(1000)
	r.asked(2000)
	r.blocks(1700)
	r.send(rm.ClientEventAllBlocksReceived)
	d := r.send(rm.ClientEventComplete)
	require.Equal(t, rm.DealStatusCompleted, d.Status)
	require.Equal(t, []int64{2000, 3400}, r.env.vouchers)
	require.EqualValues(t, 3400, d.FundsSpent.Int64())
}
