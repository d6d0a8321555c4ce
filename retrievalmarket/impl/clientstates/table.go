// Package clientstates is the client's deal as a table: events, transitions and what is done on entering a state
// (docs/protocol/retrievalmarket.md 3).
//
// Progress is accepted in every non-final state: an event that arrives while the deal is busy is recorded, and Ongoing looks
// at what was recorded (3.3). Every failure passes through Failing or Cancelling, which close the transfer.
package clientstates

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/fsm"
	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/internal/reason"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

// PaymentNotSent says that a request needed no payment. Its number is that of later releases.
const PaymentNotSent rm.ClientEvent = 36

// NotUnderstood is a refusal without any answer of the market: the provider may know the first generation of vouchers only, and
// is asked once more in that one. Listeners see ClientEventDealRejected.
const NotUnderstood rm.ClientEvent = 1000

// TooLarge says that the payload is larger than the caller wants, whatever else is well with it. Listeners see
// ClientEventDataTransferError.
const TooLarge rm.ClientEvent = 1001

// ProposedAgain takes a proposal back that may never have arrived: it is made once more. Listeners see nothing of it.
const ProposedAgain rm.ClientEvent = 1002

// Overasked says that a provider goes on asking although everything is here and paid: the deal is over, and its message names what was asked for.
// Listeners see ClientEventComplete.
const Overasked rm.ClientEvent = 1003

// FundsRaised gives a deal that used up its funds more of them. Listeners see nothing of it.
const FundsRaised rm.ClientEvent = 1004

// ClientFinalityStates are the states in which nothing happens any more.
var ClientFinalityStates = []fsm.StateKey{
	rm.DealStatusErrored, rm.DealStatusCompleted, rm.DealStatusCancelled, rm.DealStatusRejected, rm.DealStatusDealNotFound,
}

// IsFinal tells whether nothing happens any more in a state.
func IsFinal(s rm.DealStatus) bool { return IsFinalityState(s) }

// IsFinalityState is IsFinal for the state of a machine, by the published name.
func IsFinalityState(s fsm.StateKey) bool { return slices.Contains(ClientFinalityStates, s) }

// Terms are the terms of a deal as accounting knows them.
func Terms(d *rm.ClientDealState) accounting.Terms {
	return accounting.Terms{Price: d.PricePerByte, Unseal: d.UnsealPrice, Interval: d.PaymentInterval, Increase: d.PaymentIntervalIncrease}
}

// message keeps the text of an error, and its reason: that of the error, or otherwise where it has none.
func message(format string, otherwise reason.Reason) func(*rm.ClientDealState, error) error {
	return func(d *rm.ClientDealState, err error) error {
		r := reason.From(err)
		if r == reason.Unknown || r == reason.Interrupted {
			r = otherwise
		}
		because(d, r)
		keepMessage(d, fmt.Sprintf(format, err))
		return nil
	}
}

// because keeps the first reason of an end.
func because(d *rm.ClientDealState, r reason.Reason) {
	if d.Status != rm.DealStatusFailing && d.Status != rm.DealStatusCancelling || d.Reason == "" {
		d.Reason = r.String()
	}
}

// ReasonOf is why a deal failed or stands still.
func ReasonOf(d *rm.ClientDealState) reason.Reason {
	if d.Reason == "" {
		return reason.None
	}
	r, _ := reason.Parse(d.Reason)
	return r
}

// keepMessage keeps the first cause of a failure and appends later ones; what comes after a cancel says nothing new.
func keepMessage(d *rm.ClientDealState, msg string) {
	switch {
	case d.Status == rm.DealStatusCancelling:
		return
	case d.Status == rm.DealStatusFailing && strings.Contains(d.Message, msg):
		return
	case d.Status == rm.DealStatusFailing && d.Message != "":
		msg = d.Message + "; " + msg
	}
	d.Message = msg[:min(len(msg), maxMessage)]
}

// maxMessage bounds the stored message of a deal.
const maxMessage = 2048

// refused keeps the provider's words; the bare refusal of the transfer that follows an error adds nothing to them. A refusal without a word
// of a deal that was accepted says that the provider does not know it any more.
func refused(what string, why reason.Reason) func(*rm.ClientDealState, string) error {
	return func(d *rm.ClientDealState, words string) error {
		if d.Status == rm.DealStatusFailing || d.Status == rm.DealStatusCancelling {
			return nil
		}
		r := why
		if words == "" && (!Proposing(d.Status) || d.TotalReceived > 0) {
			r = reason.DealLost
		}
		if words == "" {
			words = "rejected for unknown reasons"
		}
		because(d, r)
		d.Message = (what + words)[:min(len(what)+len(words), maxMessage)]
		return nil
	}
}

// request sets what is asked for: a level, not a sum; zero asks to look again. One that comes while a payment is under way
// was made after the provider had it, and adds to what the payment takes away.
func request(d *rm.ClientDealState, owed abi.TokenAmount) error {
	if owed.Nil() || owed.LessThan(big.Zero()) {
		return fmt.Errorf("payment request of %s", owed)
	}
	switch {
	case owed.IsZero():
	case paying(d):
		d.PaymentRequested = big.Add(d.PaymentRequested, owed)
	default:
		d.PaymentRequested = owed
	}
	return nil
}

func paying(d *rm.ClientDealState) bool {
	return d.Status == rm.DealStatusSendFunds || d.Status == rm.DealStatusSendFundsLastPayment
}

func lastRequest(d *rm.ClientDealState, owed abi.TokenAmount) error {
	d.LastPaymentRequested = true
	return request(d, owed)
}

func received(d *rm.ClientDealState, total uint64) error {
	d.TotalReceived = max(d.TotalReceived, total)
	return nil
}

func ready(d *rm.ClientDealState, ch address.Address) error {
	if d.PaymentInfo == nil {
		d.PaymentInfo = &rm.PaymentInfo{PayCh: ch}
	}
	d.WaitMsgCID, d.Message = nil, ""
	return nil
}

// paid accounts for a voucher of the cumulative amount.
func paid(d *rm.ClientDealState, amount abi.TokenAmount) error {
	if amount.LessThan(d.FundsSpent) {
		return nil
	}
	t := Terms(d)
	before := d.BytesPaidFor
	if amount.Equals(d.FundsSpent) { // sent once more: the request is answered, and so will be one that came meanwhile
		d.PaymentRequested = big.Zero()
	}
	d.PaymentRequested = big.Max(big.Zero(), big.Sub(d.PaymentRequested, big.Sub(amount, d.FundsSpent)))
	d.FundsSpent = amount
	d.UnsealFundsPaid = big.Min(d.UnsealPrice, amount)
	d.BytesPaidFor = t.PaidBytes(amount)
	if d.BytesPaidFor-before >= d.CurrentInterval && d.CurrentInterval > 0 {
		d.CurrentInterval += d.PaymentIntervalIncrease
	}
	if d.Status == rm.DealStatusCancelling && d.Message == providerCancelled { // it cancelled while the voucher was on its way
		nameLostUnseal(d)
	}
	return nil
}

const providerCancelled = "Provider cancelled retrieval"

// nameLostUnseal adds to the message of a deal that the provider cancelled what was paid for nothing (M-28).
func nameLostUnseal(d *rm.ClientDealState) {
	if d.TotalReceived == 0 && d.UnsealFundsPaid.GreaterThan(big.Zero()) {
		d.Message += fmt.Sprintf(" (unseal price %s was paid)", d.UnsealFundsPaid)
	}
}

// proposing are the states before a provider has answered.
var proposing = []fsm.StateKey{rm.DealStatusNew, rm.DealStatusWaitForAcceptance, rm.DealStatusRetryLegacy, rm.DealStatusWaitForAcceptanceLegacy}

// Proposing tells whether a deal waits for the answer to its proposal.
func Proposing(s rm.DealStatus) bool { return slices.Contains(proposing, fsm.StateKey(s)) }

// ClientEvents is the transition table.
var ClientEvents = fsm.Events{
	fsm.Event(rm.ClientEventOpen).From(rm.DealStatusNew).ToNoChange(),
	fsm.Event(rm.ClientEventWriteDealProposalErrored).From(rm.DealStatusCancelling).ToJustRecord().FromAny().To(rm.DealStatusFailing).Action(message("proposing deal: %s", reason.PeerUnreachable)),
	fsm.Event(rm.ClientEventDealProposed).From(rm.DealStatusNew).To(rm.DealStatusWaitForAcceptance).
		From(rm.DealStatusRetryLegacy).To(rm.DealStatusWaitForAcceptanceLegacy).
		FromMany(rm.DealStatusCancelling, rm.DealStatusFailing).ToNoChange().FromAny().ToJustRecord().
		Action(func(d *rm.ClientDealState, chid datatransfer.ChannelID) error {
			d.ChannelID = chid
			if d.Status == rm.DealStatusRetryLegacy {
				d.Message = ""
			}
			return nil
		}),
	fsm.Event(ProposedAgain).From(rm.DealStatusWaitForAcceptance).To(rm.DealStatusNew).
		From(rm.DealStatusWaitForAcceptanceLegacy).To(rm.DealStatusRetryLegacy).FromAny().ToJustRecord(),
	fsm.Event(NotUnderstood).FromMany(rm.DealStatusNew, rm.DealStatusWaitForAcceptance).To(rm.DealStatusRetryLegacy).
		FromMany(rm.DealStatusRetryLegacy, rm.DealStatusWaitForAcceptanceLegacy).To(rm.DealStatusRejected).
		FromMany(rm.DealStatusFailing, rm.DealStatusCancelling).ToJustRecord().FromAny().To(rm.DealStatusFailing).
		Action(func(d *rm.ClientDealState, words string) error {
			d.LegacyProtocol = d.LegacyProtocol || d.Status == rm.DealStatusNew || d.Status == rm.DealStatusWaitForAcceptance
			return refused("deal rejected: ", reason.PeerRefused)(d, words)
		}),
	fsm.Event(rm.ClientEventDealRejected).FromMany(proposing...).To(rm.DealStatusRejected).
		FromMany(rm.DealStatusFailing, rm.DealStatusCancelling).ToJustRecord().FromAny().To(rm.DealStatusFailing).Action(refused("deal rejected: ", reason.PeerRefused)),
	fsm.Event(rm.ClientEventDealNotFound).FromMany(proposing...).To(rm.DealStatusDealNotFound).
		FromMany(rm.DealStatusFailing, rm.DealStatusCancelling).ToJustRecord().FromAny().To(rm.DealStatusFailing).Action(refused("deal not found: ", reason.RootUnknown)),
	fsm.Event(rm.ClientEventDealAccepted).FromMany(proposing...).To(rm.DealStatusAccepted).FromAny().ToJustRecord(),
	fsm.Event(rm.ClientEventUnsealPaymentRequested).FromMany(proposing...).To(rm.DealStatusAccepted).
		FromAny().ToJustRecord().Action(request),
	fsm.Event(rm.ClientEventUnknownResponseReceived).From(rm.DealStatusCancelling).ToJustRecord().FromAny().To(rm.DealStatusFailing).
		Action(func(d *rm.ClientDealState, status rm.DealStatus, msg string) error {
			text := "Unexpected deal response status: " + status.String()
			if msg != "" {
				text += ": " + msg
			}
			because(d, unexpected(d, status, msg))
			keepMessage(d, text)
			return nil
		}),
	fsm.Event(rm.ClientEventProviderCancelled).FromMany(rm.DealStatusFailing, rm.DealStatusCancelling).ToJustRecord().
		FromAny().To(rm.DealStatusCancelling).
		Action(func(d *rm.ClientDealState) error {
			if d.Status != rm.DealStatusFailing && d.Status != rm.DealStatusCancelling {
				because(d, reason.PeerCancelled)
				d.Message = providerCancelled
				nameLostUnseal(d)
			}
			return nil
		}),
	fsm.Event(rm.ClientEventCancel).FromAny().To(rm.DealStatusCancelling).
		Action(func(d *rm.ClientDealState) error {
			d.Reason = reason.Cancelled.String()
			d.Message = "Client cancelled retrieval"
			return nil
		}),
	fsm.Event(rm.ClientEventCancelComplete).From(rm.DealStatusFailing).To(rm.DealStatusErrored).From(rm.DealStatusCancelling).To(rm.DealStatusCancelled),

	fsm.Event(rm.ClientEventPaymentChannelSkip).From(rm.DealStatusAccepted).To(rm.DealStatusOngoing),
	fsm.Event(rm.ClientEventPaymentChannelErrored).FromMany(rm.DealStatusAccepted, rm.DealStatusPaymentChannelCreating,
		rm.DealStatusPaymentChannelAddingFunds, rm.DealStatusPaymentChannelAddingInitialFunds, rm.DealStatusCheckFunds,
		rm.DealStatusPaymentChannelAllocatingLane).To(rm.DealStatusFailing).Action(message("error from payment channel: %s", reason.LedgerRefused)),
	fsm.Event(rm.ClientEventPaymentChannelCreateInitiated).From(rm.DealStatusAccepted).To(rm.DealStatusPaymentChannelCreating).
		Action(func(d *rm.ClientDealState, c cid.Cid) error {
			d.WaitMsgCID = &c
			return nil
		}),
	fsm.Event(rm.ClientEventPaymentChannelAddingFunds).From(rm.DealStatusAccepted).To(rm.DealStatusPaymentChannelAddingInitialFunds).
		From(rm.DealStatusCheckFunds).To(rm.DealStatusPaymentChannelAddingFunds).
		Action(func(d *rm.ClientDealState, c cid.Cid, ch address.Address) error {
			d.WaitMsgCID = &c
			if d.PaymentInfo == nil {
				d.PaymentInfo = &rm.PaymentInfo{PayCh: ch}
			}
			return nil
		}),
	fsm.Event(rm.ClientEventPaymentChannelReady).FromMany(rm.DealStatusPaymentChannelCreating, rm.DealStatusPaymentChannelAddingInitialFunds,
		rm.DealStatusAccepted).To(rm.DealStatusPaymentChannelAllocatingLane).
		FromMany(rm.DealStatusPaymentChannelAddingFunds, rm.DealStatusCheckFunds).To(rm.DealStatusOngoing).Action(ready),
	fsm.Event(rm.ClientEventPaymentChannelAddFundsErrored).FromMany(rm.DealStatusPaymentChannelAddingFunds, rm.DealStatusPaymentChannelAddingInitialFunds).
		To(rm.DealStatusFailing).Action(message("wait for add funds: %s", reason.LedgerRefused)),
	fsm.Event(rm.ClientEventAllocateLaneErrored).From(rm.DealStatusPaymentChannelAllocatingLane).To(rm.DealStatusFailing).Action(message("allocating payment lane: %s", reason.LedgerRefused)),
	fsm.Event(rm.ClientEventLaneAllocated).From(rm.DealStatusPaymentChannelAllocatingLane).To(rm.DealStatusOngoing).
		Action(func(d *rm.ClientDealState, lane uint64) error {
			d.PaymentInfo = &rm.PaymentInfo{PayCh: d.PaymentInfo.PayCh, Lane: lane}
			return nil
		}),

	fsm.Event(rm.ClientEventPaymentRequested).FromMany(rm.DealStatusOngoing, rm.DealStatusBlocksComplete, rm.DealStatusFundsNeeded,
		rm.DealStatusFundsNeededLastPayment).To(rm.DealStatusFundsNeeded).From(rm.DealStatusFinalizing).To(rm.DealStatusFundsNeededLastPayment).
		From(rm.DealStatusCheckComplete).ToNoChange().
		FromAny().ToJustRecord().Action(request),
	fsm.Event(rm.ClientEventLastPaymentRequested).FromMany(rm.DealStatusOngoing, rm.DealStatusFundsNeeded, rm.DealStatusFundsNeededLastPayment,
		rm.DealStatusBlocksComplete, rm.DealStatusFinalizing).To(rm.DealStatusFundsNeededLastPayment).
		From(rm.DealStatusCheckComplete).ToNoChange().FromAny().ToJustRecord().Action(lastRequest),
	fsm.Event(rm.ClientEventBlocksReceived).FromMany(rm.DealStatusOngoing, rm.DealStatusFundsNeeded, rm.DealStatusFundsNeededLastPayment,
		rm.DealStatusCheckComplete, rm.DealStatusClientWaitingForLastBlocks).ToNoChange().FromAny().ToJustRecord().Action(received),
	fsm.Event(rm.ClientEventAllBlocksReceived).FromMany(rm.DealStatusOngoing, rm.DealStatusBlocksComplete).To(rm.DealStatusBlocksComplete).
		FromMany(rm.DealStatusFundsNeeded, rm.DealStatusFundsNeededLastPayment, rm.DealStatusCheckComplete).ToNoChange().
		From(rm.DealStatusClientWaitingForLastBlocks).To(rm.DealStatusCompleted).FromAny().ToJustRecord().
		Action(func(d *rm.ClientDealState) error {
			d.AllBlocksReceived = true
			return nil
		}),
	fsm.Event(rm.ClientEventSendFunds).From(rm.DealStatusFundsNeeded).To(rm.DealStatusSendFunds).
		From(rm.DealStatusFundsNeededLastPayment).To(rm.DealStatusSendFundsLastPayment),
	fsm.Event(rm.ClientEventBadPaymentRequested).From(rm.DealStatusCancelling).ToJustRecord().FromAny().To(rm.DealStatusFailing).
		Action(func(d *rm.ClientDealState, msg string) error {
			because(d, reason.Overasked)
			keepMessage(d, msg)
			return nil
		}),
	fsm.Event(rm.ClientEventCreateVoucherFailed).FromMany(rm.DealStatusSendFunds, rm.DealStatusSendFundsLastPayment, rm.DealStatusCheckComplete).To(rm.DealStatusFailing).
		Action(message("creating payment voucher: %s", reason.LedgerRefused)),
	fsm.Event(rm.ClientEventVoucherShortfall).FromMany(rm.DealStatusSendFunds, rm.DealStatusSendFundsLastPayment).To(rm.DealStatusCheckFunds).
		Action(func(d *rm.ClientDealState, short abi.TokenAmount) error {
			d.VoucherShortfall = short
			return nil
		}),
	fsm.Event(rm.ClientEventWriteDealPaymentErrored).From(rm.DealStatusCancelling).ToJustRecord().FromAny().To(rm.DealStatusFailing).Action(message("writing deal payment: %s", reason.DealLost)),
	fsm.Event(rm.ClientEventPaymentSent).From(rm.DealStatusSendFunds).To(rm.DealStatusOngoing).
		From(rm.DealStatusSendFundsLastPayment).To(rm.DealStatusFinalizing).
		FromMany(rm.DealStatusFundsNeeded, rm.DealStatusFundsNeededLastPayment, rm.DealStatusCheckComplete).ToNoChange().
		FromAny().ToJustRecord().Action(paid),
	fsm.Event(PaymentNotSent).FromMany(rm.DealStatusSendFunds, rm.DealStatusFundsNeeded).To(rm.DealStatusOngoing).
		FromMany(rm.DealStatusSendFundsLastPayment, rm.DealStatusFundsNeededLastPayment).To(rm.DealStatusFinalizing).
		FromAny().ToJustRecord().
		Action(func(d *rm.ClientDealState) error {
			d.PaymentRequested = big.Zero()
			return nil
		}),
	fsm.Event(rm.ClientEventFundsExpended).FromMany(rm.DealStatusCheckFunds, rm.DealStatusSendFunds, rm.DealStatusSendFundsLastPayment,
		rm.DealStatusCheckComplete).To(rm.DealStatusInsufficientFunds).
		Action(func(d *rm.ClientDealState, short abi.TokenAmount) error {
			d.Reason = reason.WalletShort.String()
			if paying(d) {
				d.Reason = reason.BudgetUsed.String()
			}
			d.VoucherShortfall = short
			d.Message = fmt.Sprintf("not enough current or pending funds in payment channel, shortfall of %s", short)
			return nil
		}),
	fsm.Event(rm.ClientEventRecheckFunds).From(rm.DealStatusInsufficientFunds).To(rm.DealStatusCheckFunds).
		Action(func(d *rm.ClientDealState) error {
			d.Reason = ""
			return nil
		}),

	fsm.Event(FundsRaised).From(rm.DealStatusInsufficientFunds).To(rm.DealStatusOngoing).
		Action(func(d *rm.ClientDealState, total abi.TokenAmount) error {
			if total.LessThan(d.TotalFunds) {
				return fmt.Errorf("%s attoFIL are less than the %s that the deal had", total, d.TotalFunds)
			}
			d.TotalFunds, d.VoucherShortfall, d.Reason, d.Message = total, big.Zero(), "", ""
			return nil
		}),

	fsm.Event(rm.ClientEventComplete).From(rm.DealStatusAccepted).ToJustRecord().
		FromMany(rm.DealStatusFailing, rm.DealStatusCancelling, rm.DealStatusClientWaitingForLastBlocks).ToJustRecord().
		FromMany(rm.DealStatusPaymentChannelCreating, rm.DealStatusPaymentChannelAddingInitialFunds, rm.DealStatusPaymentChannelAllocatingLane).ToJustRecord().
		FromAny().To(rm.DealStatusCheckComplete),
	fsm.Event(Overasked).FromMany(rm.DealStatusFundsNeeded, rm.DealStatusFundsNeededLastPayment).To(rm.DealStatusCheckComplete).FromAny().ToJustRecord().
		Action(func(d *rm.ClientDealState, more abi.TokenAmount) error {
			because(d, reason.Overasked)
			keepMessage(d, fmt.Sprintf("the provider asked for %s more than is due", more))
			return nil
		}),
	fsm.Event(rm.ClientEventCompleteVerified).From(rm.DealStatusCheckComplete).To(rm.DealStatusCompleted),
	fsm.Event(rm.ClientEventEarlyTermination).From(rm.DealStatusCheckComplete).To(rm.DealStatusFailing).
		Action(func(d *rm.ClientDealState) error {
			because(d, reason.DataMissing)
			keepMessage(d, "Provider sent complete status without sending all data")
			return nil
		}),
	fsm.Event(rm.ClientEventWaitForLastBlocks).From(rm.DealStatusCheckComplete).To(rm.DealStatusClientWaitingForLastBlocks),
	// A provider that never says that it is done does not make a deal a failure whose blocks are all here (T61). CheckComplete knows
	// whether they are, and ends by itself.
	fsm.Event(rm.ClientEventDataTransferError).FromMany(rm.DealStatusBlocksComplete, rm.DealStatusFinalizing).To(rm.DealStatusCheckComplete).
		FromMany(rm.DealStatusCancelling, rm.DealStatusCheckComplete).ToJustRecord().FromAny().To(rm.DealStatusFailing).
		Action(message("error generated by data transfer: %s", reason.PeerFailed)),
	fsm.Event(TooLarge).From(rm.DealStatusCancelling).ToJustRecord().FromAny().To(rm.DealStatusFailing).
		Action(func(d *rm.ClientDealState, limit uint64) error {
			because(d, reason.PeerClaims)
			keepMessage(d, fmt.Sprintf("the payload is larger than the limit of %d bytes", limit))
			return nil
		}),
}

// flightWait is how long bytes that are asked for may be on their way; completeWait how long blocks may come after the
// provider said that it is done (3.6).
const (
	flightWait   = 5 * time.Minute
	confirmWait  = 15 * time.Second // for a provider that has its last voucher to say so
	completeWait = 30 * time.Second
)

// late is what it means that nothing happened in a state.
func late(s rm.DealStatus) reason.Reason {
	switch s {
	case rm.DealStatusNew, rm.DealStatusWaitForAcceptance, rm.DealStatusRetryLegacy, rm.DealStatusWaitForAcceptanceLegacy:
		return reason.AcceptLate
	case rm.DealStatusAccepted, rm.DealStatusCheckFunds, rm.DealStatusPaymentChannelCreating, rm.DealStatusPaymentChannelAddingFunds,
		rm.DealStatusPaymentChannelAddingInitialFunds, rm.DealStatusPaymentChannelAllocatingLane:
		return reason.LedgerAway
	}
	return reason.Idle
}

// unexpected is what a status that answers nothing says of its sender. The end of a deal that had begun, without a word, was some time ago: this side
// was away, and another deal may be made.
func unexpected(d *rm.ClientDealState, s rm.DealStatus, words string) reason.Reason {
	if words == "" && !Proposing(d.Status) && (s == rm.DealStatusErrored || s == rm.DealStatusCancelled) {
		return reason.DealLost
	}
	switch s {
	case rm.DealStatusErrored, rm.DealStatusFailing:
		return reason.PeerFailed
	case rm.DealStatusCancelled, rm.DealStatusCancelling:
		return reason.PeerCancelled
	}
	return reason.PeerClaims
}

// Deadlines bound the time in each state without any event. A zero duration switches one off.
func Deadlines(accept, chain, idle, last time.Duration) map[fsm.StateKey]fsm.Deadline {
	out := map[fsm.StateKey]fsm.Deadline{}
	set := func(d time.Duration, states ...rm.DealStatus) {
		for _, s := range states {
			out[s] = fsm.Deadline{After: d, Event: rm.ClientEventDataTransferError, Args: []any{late(s).Errorf("nothing happened in %s for %s", s, d)}}
		}
	}
	set(accept, rm.DealStatusNew, rm.DealStatusWaitForAcceptance, rm.DealStatusRetryLegacy, rm.DealStatusWaitForAcceptanceLegacy, rm.DealStatusAccepted)
	set(chain, rm.DealStatusPaymentChannelCreating, rm.DealStatusPaymentChannelAddingFunds, rm.DealStatusPaymentChannelAddingInitialFunds,
		rm.DealStatusPaymentChannelAllocatingLane, rm.DealStatusCheckFunds)
	set(idle, rm.DealStatusOngoing, rm.DealStatusSendFunds, rm.DealStatusSendFundsLastPayment, rm.DealStatusBlocksComplete)
	set(min(idle, confirmWait), rm.DealStatusFinalizing)
	set(min(idle, flightWait), rm.DealStatusFundsNeeded, rm.DealStatusFundsNeededLastPayment)
	set(last, rm.DealStatusClientWaitingForLastBlocks)
	out[rm.DealStatusCheckComplete] = fsm.Deadline{After: min(last, completeWait), Event: rm.ClientEventEarlyTermination}
	out[rm.DealStatusFailing] = fsm.Deadline{After: time.Minute, Event: rm.ClientEventCancelComplete}
	out[rm.DealStatusCancelling] = fsm.Deadline{After: time.Minute, Event: rm.ClientEventCancelComplete}
	out[rm.DealStatusInsufficientFunds] = fsm.Never("the user has to add funds; the provider ends the deal after its own payment wait")
	return out
}

// Spec is the machine of the client.
func Spec(deadlines map[fsm.StateKey]fsm.Deadline) fsm.Spec[rm.ClientDealState] {
	return fsm.Spec[rm.ClientDealState]{
		Name: "client deal", Events: ClientEvents, Entry: ClientStateEntryFuncs, Final: ClientFinalityStates, Deadlines: deadlines,
		State:      func(d *rm.ClientDealState) fsm.StateKey { return d.Status },
		SetState:   func(d *rm.ClientDealState, s fsm.StateKey) { d.Status = s.(rm.DealStatus) },
		Interrupts: []fsm.EventName{rm.ClientEventCancel, rm.ClientEventProviderCancelled},
		StateName:  func(s fsm.StateKey) string { return s.(rm.DealStatus).String() },
		EventName: func(e fsm.EventName) string {
			switch e {
			case PaymentNotSent:
				return "ClientEventPaymentNotSent"
			case NotUnderstood:
				return "ClientEventNotUnderstood"
			case TooLarge:
				return "ClientEventTooLarge"
			case ProposedAgain:
				return "ClientEventProposedAgain"
			case Overasked:
				return "ClientEventOverasked"
			case FundsRaised:
				return "ClientEventFundsRaised"
			}
			return e.(rm.ClientEvent).String()
		},
	}
}
