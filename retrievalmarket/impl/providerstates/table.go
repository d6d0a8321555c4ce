// Package providerstates is the provider's deal as a table: events, transitions and what is done on entering a state
// (docs/protocol/retrievalmarket.md 4). Every failure passes through Failing or Cancelling, which close the transfer first
// and then give the piece back.
package providerstates

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"

	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/fsm"
	"github.com/cartage-dev/cartage/internal/accounting"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/shared"
)

// ProviderCancelled says that the provider itself ends the deal. It is beyond the published events and never leaves the
// node.
const ProviderCancelled rm.ProviderEvent = 64

// ProviderFinalityStates are the states in which nothing happens any more.
var ProviderFinalityStates = []fsm.StateKey{rm.DealStatusErrored, rm.DealStatusCompleted, rm.DealStatusCancelled}

// Terms are the terms of a deal as accounting knows them.
func Terms(d *rm.ProviderDealState) accounting.Terms {
	return accounting.Terms{Price: d.PricePerByte, Unseal: d.UnsealPrice, Interval: d.PaymentInterval, Increase: d.PaymentIntervalIncrease}
}

// DealKey is the key of a deal in the voucher book.
func DealKey(id rm.ProviderDealIdentifier) string { return "p" + id.String() }

func sent(d *rm.ProviderDealState, total uint64) error {
	d.TotalSent = max(d.TotalSent, total)
	return nil
}

// credit takes over the total that the book holds for the deal, and what was sent by then: a client that pays ahead never lets the deal ask.
func credit(d *rm.ProviderDealState, total abi.TokenAmount, position uint64) error {
	d.TotalSent = max(d.TotalSent, position)
	d.FundsReceived = big.Max(d.FundsReceived, total)
	d.CurrentInterval = Terms(d).CurrentInterval(Terms(d).PaidBytes(d.FundsReceived))
	return nil
}

func message(d *rm.ProviderDealState, err error) error {
	if d.Status != rm.DealStatusFailing {
		d.Message = err.Error()[:min(len(err.Error()), 2048)]
	}
	return nil
}

// ProviderEvents is the transition table.
var ProviderEvents = fsm.Events{
	fsm.Event(rm.ProviderEventOpen).From(rm.DealStatusNew).ToNoChange().
		Action(func(d *rm.ProviderDealState) error {
			d.TotalSent, d.FundsReceived, d.CurrentInterval = 0, big.Zero(), d.PaymentInterval
			return nil
		}),
	fsm.Event(rm.ProviderEventDealAccepted).From(rm.DealStatusNew).To(rm.DealStatusUnsealing).
		From(rm.DealStatusUnsealed).ToNoChange(). // the payment came first: now there is a channel to resume
		FromAny().ToJustRecord().
		Action(func(d *rm.ProviderDealState, chid datatransfer.ChannelID) error {
			d.ChannelID = chid
			return nil
		}),
	fsm.Event(rm.ProviderEventPaymentRequested).From(rm.DealStatusNew).To(rm.DealStatusFundsNeededUnseal).
		FromMany(rm.DealStatusOngoing, rm.DealStatusUnsealed).To(rm.DealStatusFundsNeeded).
		FromMany(rm.DealStatusBlocksComplete, rm.DealStatusFinalizing).To(rm.DealStatusFundsNeededLastPayment).
		FromAny().ToJustRecord().Action(sent),
	fsm.Event(rm.ProviderEventUnsealError).From(rm.DealStatusUnsealing).To(rm.DealStatusFailing).Action(message),
	fsm.Event(rm.ProviderEventUnsealComplete).From(rm.DealStatusUnsealing).To(rm.DealStatusUnsealed),
	fsm.Event(rm.ProviderEventBlockSent).From(rm.DealStatusOngoing).ToNoChange().
		From(rm.DealStatusUnsealed).To(rm.DealStatusOngoing).FromAny().ToJustRecord().Action(sent),
	fsm.Event(rm.ProviderEventBlocksCompleted).FromMany(rm.DealStatusOngoing, rm.DealStatusUnsealed, rm.DealStatusFundsNeeded).To(rm.DealStatusBlocksComplete).
		FromAny().ToJustRecord(),
	fsm.Event(rm.ProviderEventSaveVoucherFailed).FromAny().To(rm.DealStatusFailing).Action(message),
	fsm.Event(rm.ProviderEventPartialPaymentReceived).FromAny().ToJustRecord().Action(credit),
	fsm.Event(rm.ProviderEventPaymentReceived).From(rm.DealStatusFundsNeeded).To(rm.DealStatusOngoing).
		FromMany(rm.DealStatusFundsNeededLastPayment).To(rm.DealStatusFinalizing).From(rm.DealStatusFundsNeededUnseal).To(rm.DealStatusUnsealing).
		FromAny().ToJustRecord().Action(credit),
	fsm.Event(rm.ProviderEventComplete).FromMany(rm.DealStatusFailing, rm.DealStatusCancelling, rm.DealStatusCompleting).ToJustRecord().
		FromAny().To(rm.DealStatusCompleting),
	fsm.Event(rm.ProviderEventCleanupComplete).From(rm.DealStatusCompleting).To(rm.DealStatusCompleted),
	fsm.Event(rm.ProviderEventClientCancelled).FromMany(rm.DealStatusFailing, rm.DealStatusCancelling, rm.DealStatusCompleting).ToJustRecord().
		FromAny().To(rm.DealStatusCancelling).
		Action(func(d *rm.ProviderDealState) error {
			if d.Message == "" {
				d.Message = "Client cancelled retrieval"
			}
			return nil
		}),
	fsm.Event(ProviderCancelled).FromMany(rm.DealStatusFailing, rm.DealStatusCancelling, rm.DealStatusCompleting).ToJustRecord().
		FromAny().To(rm.DealStatusCancelling).
		Action(func(d *rm.ProviderDealState) error {
			d.Message = "Provider cancelled retrieval"
			return nil
		}),
	fsm.Event(rm.ProviderEventCancelComplete).From(rm.DealStatusCancelling).To(rm.DealStatusCancelled).From(rm.DealStatusFailing).To(rm.DealStatusErrored),
	fsm.Event(rm.ProviderEventDataTransferError).FromMany(rm.DealStatusCancelling, rm.DealStatusCompleting).ToJustRecord().
		FromAny().To(rm.DealStatusFailing).Action(message),
	fsm.Event(rm.ProviderEventMultiStoreError).FromAny().To(rm.DealStatusFailing).Action(message),
}

// ProviderDealEnvironment is what the entry functions need.
type ProviderDealEnvironment interface {
	// Unseal makes the piece of a deal readable and checks that it holds the payload.
	Unseal(ctx context.Context, deal rm.ProviderDealState) error
	// Release gives the piece back; it may be called again.
	Release(deal rm.ProviderDealState) error
	ResumeDataTransfer(ctx context.Context, chid datatransfer.ChannelID) error
	CloseDataTransfer(ctx context.Context, chid datatransfer.ChannelID) error
}

// ProviderStateEntryFuncs are the entry functions by state.
var ProviderStateEntryFuncs = fsm.StateEntryFuncs{
	rm.DealStatusUnsealing:  UnsealData,
	rm.DealStatusUnsealed:   UnpauseDeal,
	rm.DealStatusFailing:    CancelDeal,
	rm.DealStatusCancelling: CancelDeal,
	rm.DealStatusCompleting: CleanupDeal,
}

// UnsealData opens the piece.
func UnsealData(ctx fsm.Context, env ProviderDealEnvironment, deal rm.ProviderDealState) error {
	if err := env.Unseal(ctx.Context(), deal); err != nil {
		if !deal.UnsealPrice.IsZero() {
			err = fmt.Errorf("%w (unseal price %s was paid)", err, deal.UnsealPrice)
		}
		return ctx.Trigger(rm.ProviderEventUnsealError, err)
	}
	return ctx.Trigger(rm.ProviderEventUnsealComplete)
}

func hasChannel(d rm.ProviderDealState) bool {
	return d.ChannelID.Initiator != "" && d.ChannelID.Responder != ""
}

// UnpauseDeal lets the data flow.
func UnpauseDeal(ctx fsm.Context, env ProviderDealEnvironment, deal rm.ProviderDealState) error {
	if !hasChannel(deal) {
		return nil
	}
	if err := env.ResumeDataTransfer(ctx.Context(), deal.ChannelID); err != nil {
		return ctx.Trigger(rm.ProviderEventDataTransferError, err)
	}
	return nil
}

// CancelDeal closes the transfer first and then gives the piece back (M-12).
func CancelDeal(ctx fsm.Context, env ProviderDealEnvironment, deal rm.ProviderDealState) error {
	var err error
	if hasChannel(deal) {
		cctx, cancel := context.WithTimeout(ctx.Context(), shared.CloseDataTransferTimeout)
		defer cancel()
		err = env.CloseDataTransfer(cctx, deal.ChannelID)
	}
	if err = errors.Join(err, env.Release(deal)); err != nil && ctx.Context().Err() != nil {
		return err
	}
	return ctx.Trigger(rm.ProviderEventCancelComplete)
}

// CleanupDeal gives the piece back after success.
func CleanupDeal(ctx fsm.Context, env ProviderDealEnvironment, deal rm.ProviderDealState) error {
	if err := env.Release(deal); err != nil {
		return err
	}
	return ctx.Trigger(rm.ProviderEventCleanupComplete)
}

// finalWait is how long a deal that is sent and paid waits for the client to hear of it.
const finalWait = 10 * time.Minute

// Deadlines bound the time in each state without any event.
func Deadlines(accept, unseal, payment, idle time.Duration) map[fsm.StateKey]fsm.Deadline {
	out := map[fsm.StateKey]fsm.Deadline{}
	set := func(d time.Duration, states ...rm.DealStatus) {
		for _, s := range states {
			out[s] = fsm.Deadline{After: d, Event: rm.ProviderEventDataTransferError, Args: []any{fmt.Errorf("nothing happened in %s for %s", s, d)}}
		}
	}
	out[rm.DealStatusNew] = fsm.Deadline{After: accept, Event: rm.ProviderEventClientCancelled}
	set(unseal, rm.DealStatusUnsealing)
	set(payment, rm.DealStatusFundsNeeded, rm.DealStatusFundsNeededUnseal, rm.DealStatusFundsNeededLastPayment)
	set(idle, rm.DealStatusUnsealed, rm.DealStatusOngoing, rm.DealStatusBlocksComplete)
	// Everything is sent and paid: a client that does not come back to hear it does not make the deal a failure.
	out[rm.DealStatusFinalizing] = fsm.Deadline{After: min(idle, finalWait), Event: rm.ProviderEventComplete}
	for _, s := range []rm.DealStatus{rm.DealStatusFailing, rm.DealStatusCancelling} {
		out[s] = fsm.Deadline{After: time.Minute, Event: rm.ProviderEventCancelComplete}
	}
	out[rm.DealStatusCompleting] = fsm.Deadline{After: time.Minute, Event: rm.ProviderEventCleanupComplete}
	return out
}

// Spec is the machine of the provider.
func Spec(deadlines map[fsm.StateKey]fsm.Deadline) fsm.Spec[rm.ProviderDealState] {
	return fsm.Spec[rm.ProviderDealState]{
		Name: "provider deal", Events: ProviderEvents, Entry: ProviderStateEntryFuncs, Final: ProviderFinalityStates, Deadlines: deadlines,
		State:      func(d *rm.ProviderDealState) fsm.StateKey { return d.Status },
		SetState:   func(d *rm.ProviderDealState, s fsm.StateKey) { d.Status = s.(rm.DealStatus) },
		Interrupts: []fsm.EventName{rm.ProviderEventClientCancelled, ProviderCancelled},
		StateName:  func(s fsm.StateKey) string { return s.(rm.DealStatus).String() },
		EventName: func(e fsm.EventName) string {
			if e == ProviderCancelled {
				return "ProviderEventCancelled"
			}
			return e.(rm.ProviderEvent).String()
		},
	}
}
