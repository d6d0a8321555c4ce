package clientstates

import (
	"context"
	"errors"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/fsm"
	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/reason"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

// SetupPaymentChannelStart makes the funds of the deal available; a deal without a price needs none.
func SetupPaymentChannelStart(ctx fsm.Context, env ClientDealEnvironment, deal rm.ClientDealState) error {
	if deal.TotalFunds.IsZero() || Terms(&deal).Free() {
		return ctx.Trigger(rm.ClientEventPaymentChannelSkip)
	}
	var ch address.Address
	var msg cid.Cid
	err := whileLedgerAway(ctx.Context(), func() (err error) {
		ch, msg, err = makeAvailable(ctx.Context(), env.Node(), deal)
		return err
	})
	switch {
	case err != nil && ctx.Context().Err() != nil: // this side stops, and the next start goes on here; or the deal is cancelled
		return nil
	case mayNotSpend(err): // the deal stands still until its order goes on
		return nil
	case err != nil:
		return ctx.Trigger(rm.ClientEventPaymentChannelErrored, err)
	case ch == address.Undef:
		return ctx.Trigger(rm.ClientEventPaymentChannelCreateInitiated, msg)
	case !msg.Defined():
		return ctx.Trigger(rm.ClientEventPaymentChannelReady, ch)
	}
	return ctx.Trigger(rm.ClientEventPaymentChannelAddingFunds, msg, ch)
}

// whileLedgerAway tries f again, with growing pauses, while the ledger cannot be reached. A deal does not fail of that: who waits for it parks it or
// cancels it, which ends ctx, and its provider has a deadline.
func whileLedgerAway(ctx context.Context, f func() error) error {
	return lifecycle.Retry(ctx, lifecycle.Backoff{Min: 100 * time.Millisecond, Max: 5 * time.Second}, func() (bool, error) {
		err := f()
		return err != nil && reason.From(err) == reason.LedgerAway, err
	})
}

func makeAvailable(ctx context.Context, node rm.RetrievalClientNode, deal rm.ClientDealState) (address.Address, cid.Cid, error) {
	if r, ok := node.(rm.ClientReserver); ok {
		return r.GetOrCreateForDeal(ctx, DealKey(deal.ID), deal.ClientWallet, deal.MinerWallet, deal.TotalFunds)
	}
	tok, _, err := node.GetChainHead(ctx)
	if err != nil {
		return address.Undef, cid.Undef, err
	}
	return node.GetOrCreatePaymentChannel(ctx, deal.ClientWallet, deal.MinerWallet, deal.TotalFunds, tok)
}

func allocateLane(ctx context.Context, node rm.RetrievalClientNode, deal rm.ClientDealState, ch address.Address) (lane uint64, err error) {
	err = whileLedgerAway(ctx, func() error {
		if r, ok := node.(rm.ClientReserver); ok {
			lane, err = r.AllocateDealLane(ctx, DealKey(deal.ID), ch, deal.TotalFunds)
		} else {
			lane, err = node.AllocateLane(ctx, ch)
		}
		return err
	})
	return lane, err
}

// WaitPaymentChannelReady waits for the message on the ledger.
func WaitPaymentChannelReady(ctx fsm.Context, env ClientDealEnvironment, deal rm.ClientDealState) error {
	ch, err := waitReady(ctx, env, deal)
	switch {
	case err != nil && ctx.Context().Err() != nil: // the next start waits again
		return nil
	case err != nil:
		return ctx.Trigger(rm.ClientEventPaymentChannelErrored, err)
	}
	return ctx.Trigger(rm.ClientEventPaymentChannelReady, ch)
}

func waitReady(ctx fsm.Context, env ClientDealEnvironment, deal rm.ClientDealState) (ch address.Address, err error) {
	if deal.WaitMsgCID == nil {
		return address.Undef, errors.New("nothing to wait for")
	}
	err = whileLedgerAway(ctx.Context(), func() error {
		ch, err = env.Node().WaitForPaymentChannelReady(ctx.Context(), *deal.WaitMsgCID)
		return err
	})
	return ch, err
}

// AllocateLane takes a lane for the deal.
func AllocateLane(ctx fsm.Context, env ClientDealEnvironment, deal rm.ClientDealState) error {
	lane, err := allocateLane(ctx.Context(), env.Node(), deal, deal.PaymentInfo.PayCh)
	switch {
	case err != nil && ctx.Context().Err() != nil: // the next start takes one
		return nil
	case err != nil:
		return ctx.Trigger(rm.ClientEventAllocateLaneErrored, err)
	}
	return ctx.Trigger(rm.ClientEventLaneAllocated, lane)
}

// WaitForPaymentChannelCreate is the name of 0.5 for waiting for a new channel and taking a lane on it.
func WaitForPaymentChannelCreate(ctx fsm.Context, env ClientDealEnvironment, deal rm.ClientDealState) error {
	ch, err := waitReady(ctx, env, deal)
	if err != nil {
		return ctx.Trigger(rm.ClientEventPaymentChannelErrored, err)
	}
	lane, err := allocateLane(ctx.Context(), env.Node(), deal, ch)
	if err != nil {
		return ctx.Trigger(rm.ClientEventAllocateLaneErrored, err)
	}
	if err := ctx.Trigger(rm.ClientEventPaymentChannelReady, ch); err != nil {
		return err
	}
	return ctx.Trigger(rm.ClientEventLaneAllocated, lane)
}

// WaitForPaymentChannelAddFunds is the name of 0.5 for WaitPaymentChannelReady.
func WaitForPaymentChannelAddFunds(ctx fsm.Context, env ClientDealEnvironment, deal rm.ClientDealState) error {
	return WaitPaymentChannelReady(ctx, env, deal)
}

// CheckFunds looks whether money is coming.
func CheckFunds(ctx fsm.Context, env ClientDealEnvironment, deal rm.ClientDealState) error {
	if deal.PaymentInfo == nil {
		return ctx.Trigger(rm.ClientEventPaymentChannelErrored, errNoChannel)
	}
	if deal.WaitMsgCID != nil {
		return ctx.Trigger(rm.ClientEventPaymentChannelAddingFunds, *deal.WaitMsgCID, deal.PaymentInfo.PayCh)
	}
	var f rm.ChannelAvailableFunds
	err := whileLedgerAway(ctx.Context(), func() (err error) {
		f, err = env.Node().CheckAvailableFunds(ctx.Context(), deal.PaymentInfo.PayCh)
		return err
	})
	switch {
	case err != nil && ctx.Context().Err() != nil: // the next start looks again
		return nil
	case err != nil:
		return ctx.Trigger(rm.ClientEventPaymentChannelErrored, err)
	}
	needed := deal.PaymentRequested
	if act := accounting.Decide(Terms(&deal), factsOf(env, &deal)); act.Kind == accounting.ActionPay {
		needed = big.Max(needed, big.Sub(act.Amount, deal.FundsSpent))
	}
	short := big.Sub(needed, big.Sub(f.ConfirmedAmt, f.VoucherReedeemedAmt))
	switch {
	case short.GreaterThan(big.Zero()):
	case deal.VoucherShortfall.GreaterThan(big.Zero()) && !rechecks(env, deal):
		// The node says that there is enough and signs nothing: asking on and on would not change that (M-36).
		return ctx.Trigger(rm.ClientEventFundsExpended, deal.VoucherShortfall)
	default:
		return ctx.Trigger(rm.ClientEventPaymentChannelReady, deal.PaymentInfo.PayCh)
	}
	inflight := big.Add(f.PendingAmt, f.QueuedAmt)
	if inflight.LessThan(short) || f.PendingWaitSentinel == nil {
		return replenish(ctx, env, deal, big.Sub(short, inflight))
	}
	return ctx.Trigger(rm.ClientEventPaymentChannelAddingFunds, *f.PendingWaitSentinel, deal.PaymentInfo.PayCh)
}

// replenish makes available again what a deal may spend: what a message brought for it may be with another deal since a crash. What is missing beyond
// that is for its user to give.
func replenish(ctx fsm.Context, env ClientDealEnvironment, deal rm.ClientDealState, short abi.TokenAmount) error {
	added := false
	err := whileLedgerAway(ctx.Context(), func() (err error) {
		if node, ok := env.Node().(rm.ClientReplenisher); ok {
			added, err = node.ReplenishDeal(ctx.Context(), DealKey(deal.ID), deal.ClientWallet, deal.MinerWallet, deal.TotalFunds)
		}
		return err
	})
	switch {
	case err != nil && ctx.Context().Err() != nil: // the next start looks again
		return nil
	case mayNotSpend(err):
		return nil
	case err != nil || !added:
		return ctx.Trigger(rm.ClientEventFundsExpended, short)
	}
	return ctx.Trigger(rm.ClientEventPaymentChannelReady, deal.PaymentInfo.PayCh)
}
