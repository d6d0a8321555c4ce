package clientstates

import (
	"context"
	"errors"
	"fmt"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/fsm"
	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/internal/reason"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/shared"
)

// ClientDealEnvironment is what the entry functions need.
type ClientDealEnvironment interface {
	Node() rm.RetrievalClientNode
	OpenDataTransfer(ctx context.Context, to peer.ID, proposal *rm.DealProposal, legacy bool) (datatransfer.ChannelID, error)
	SendDataTransferVoucher(ctx context.Context, chid datatransfer.ChannelID, payment *rm.DealPayment, legacy bool) error
	CloseDataTransfer(ctx context.Context, chid datatransfer.ChannelID) error
}

// BuyerFacts is optional on an environment: what the owner of a deal knows beside its record. Without it the record is all there is.
type BuyerFacts interface {
	// Facts are the facts of a deal for the decision to pay; those of its record come from the record that is passed in.
	Facts(deal rm.ClientDealState) accounting.BuyerFacts
	// Completed reports whether the provider said that it is done.
	Completed(deal rm.DealID) bool
	// Rechecks counts how often a voucher is tried again that the node would not sign, and reports whether it may be.
	Rechecks(deal rm.DealID) bool
}

// ClientStateEntryFuncs are the entry functions by state.
var ClientStateEntryFuncs = fsm.StateEntryFuncs{
	rm.DealStatusNew:                              ProposeDeal,
	rm.DealStatusRetryLegacy:                      ProposeDeal,
	rm.DealStatusAccepted:                         SetupPaymentChannelStart,
	rm.DealStatusPaymentChannelCreating:           WaitPaymentChannelReady,
	rm.DealStatusPaymentChannelAddingInitialFunds: WaitPaymentChannelReady,
	rm.DealStatusPaymentChannelAddingFunds:        WaitPaymentChannelReady,
	rm.DealStatusPaymentChannelAllocatingLane:     AllocateLane,
	rm.DealStatusOngoing:                          Ongoing,
	rm.DealStatusBlocksComplete:                   Ended,
	rm.DealStatusClientWaitingForLastBlocks:       LastBlocks,
	rm.DealStatusFinalizing:                       Ended,
	rm.DealStatusFundsNeeded:                      ProcessPaymentRequested,
	rm.DealStatusFundsNeededLastPayment:           ProcessPaymentRequested,
	rm.DealStatusSendFunds:                        SendFunds,
	rm.DealStatusSendFundsLastPayment:             SendFunds,
	rm.DealStatusCheckFunds:                       CheckFunds,
	rm.DealStatusCheckComplete:                    CheckComplete,
	rm.DealStatusFailing:                          CancelDeal,
	rm.DealStatusCancelling:                       CancelDeal,
}

// ProposeDeal opens the transfer with the proposal as its voucher.
func ProposeDeal(ctx fsm.Context, env ClientDealEnvironment, deal rm.ClientDealState) error {
	chid, err := env.OpenDataTransfer(ctx.Context(), deal.Sender, &deal.DealProposal, deal.LegacyProtocol)
	if errors.Is(err, context.Canceled) { // this side stops, and the next start proposes; or the deal is cancelled
		return nil
	}
	if err != nil {
		return ctx.Trigger(rm.ClientEventWriteDealProposalErrored, err)
	}
	return ctx.Trigger(rm.ClientEventDealProposed, chid)
}

// Ongoing looks at what was recorded while the deal was busy.
func Ongoing(ctx fsm.Context, env ClientDealEnvironment, deal rm.ClientDealState) error {
	switch {
	case deal.PaymentRequested.GreaterThan(big.Zero()) && deal.LastPaymentRequested:
		return ctx.Trigger(rm.ClientEventLastPaymentRequested, big.Zero())
	case deal.PaymentRequested.GreaterThan(big.Zero()):
		return ctx.Trigger(rm.ClientEventPaymentRequested, big.Zero())
	case deal.AllBlocksReceived:
		return ctx.Trigger(rm.ClientEventAllBlocksReceived)
	}
	return Ended(ctx, env, deal)
}

// Ended goes on when the provider said earlier that it is done.
func Ended(ctx fsm.Context, env ClientDealEnvironment, deal rm.ClientDealState) error {
	if p, ok := env.(BuyerFacts); ok && p.Completed(deal.ID) {
		return ctx.Trigger(rm.ClientEventComplete)
	}
	return nil
}

// DemandOf is what the provider of a deal waits for, as far as the deal has heard.
func DemandOf(d *rm.ClientDealState) accounting.DemandKind {
	due := Terms(d).Due(d.TotalReceived)
	switch {
	case d.PaymentRequested.IsZero() && (!d.LastPaymentRequested || due.LessThanEqual(d.FundsSpent)):
		return accounting.DemandNothing
	case d.LastPaymentRequested:
		return accounting.DemandLast
	case d.TotalReceived == 0 && d.FundsSpent.LessThan(d.UnsealPrice):
		return accounting.DemandUnseal
	}
	return accounting.DemandInterval
}

// RecordFacts are the facts of a deal that its record holds.
func RecordFacts(d *rm.ClientDealState) accounting.BuyerFacts {
	return accounting.BuyerFacts{
		Verified: d.TotalReceived, Whole: d.AllBlocksReceived, Vouchered: d.FundsSpent, Budget: d.TotalFunds,
		Requested: big.Add(d.FundsSpent, d.PaymentRequested), Demand: DemandOf(d),
	}
}

func factsOf(env ClientDealEnvironment, d *rm.ClientDealState) accounting.BuyerFacts {
	if p, ok := env.(BuyerFacts); ok {
		return p.Facts(*d)
	}
	return RecordFacts(d)
}

func rechecks(env ClientDealEnvironment, deal rm.ClientDealState) bool {
	p, ok := env.(BuyerFacts)
	return ok && p.Rechecks(deal.ID)
}

const tooMuch = "too much money requested for bytes sent"

// ProcessPaymentRequested acts on a request for payment: it pays, waits, or ends the deal.
func ProcessPaymentRequested(ctx fsm.Context, env ClientDealEnvironment, deal rm.ClientDealState) error {
	f := factsOf(env, &deal)
	if f.Verified > deal.TotalReceived {
		return ctx.Trigger(rm.ClientEventBlocksReceived, f.Verified)
	}
	switch act := accounting.Decide(Terms(&deal), f); act.Kind {
	case accounting.ActionPay, accounting.ActionRepeat, accounting.ActionTopUp:
		return ctx.Trigger(rm.ClientEventSendFunds)
	case accounting.ActionRefuse:
		return ctx.Trigger(rm.ClientEventBadPaymentRequested, tooMuch)
	case accounting.ActionOverpaid:
		return ctx.Trigger(Overasked, deal.PaymentRequested)
	case accounting.ActionWait:
		if act.For == accounting.WaitForNothing { // nothing is due: do not wait for what nobody asks
			return ctx.Trigger(PaymentNotSent)
		}
	}
	return nil // blocks, an answer, or the owner's clock bring it here again
}

var errNoChannel = errors.New("the deal has no payment channel")

// SendFunds signs and sends a voucher. The book stores it before it leaves; the same amount again is the same voucher.
func SendFunds(ctx fsm.Context, env ClientDealEnvironment, deal rm.ClientDealState) error {
	act := accounting.Decide(Terms(&deal), factsOf(env, &deal))
	total := act.Amount
	switch act.Kind {
	case accounting.ActionPay:
	case accounting.ActionTopUp:
		return ctx.Trigger(rm.ClientEventFundsExpended, act.Amount)
	default: // the decision that led here was to send the last voucher again
		if total = deal.FundsSpent; total.IsZero() {
			return ctx.Trigger(PaymentNotSent)
		}
	}
	if deal.PaymentInfo == nil {
		return ctx.Trigger(rm.ClientEventCreateVoucherFailed, errNoChannel)
	}
	err := sendVoucher(ctx.Context(), env, &deal, total)
	if mayNotSpend(err) || err != nil && ctx.Context().Err() != nil {
		return nil
	}
	if short, ok := shortfall(err); ok {
		return ctx.Trigger(rm.ClientEventVoucherShortfall, short)
	}
	var gone *undeliverable
	switch {
	case errors.As(err, &gone):
		return ctx.Trigger(rm.ClientEventWriteDealPaymentErrored, gone.error)
	case err != nil:
		return ctx.Trigger(rm.ClientEventCreateVoucherFailed, err)
	}
	return ctx.Trigger(rm.ClientEventPaymentSent, total)
}

// undeliverable is the error of a voucher that exists and whose channel does not.
type undeliverable struct{ error }

// sendVoucher makes the voucher of a total and sends it. A voucher that exists counts as spent although it may have to be sent again (M-37): only
// that the channel is unknown is an error then.
func sendVoucher(ctx context.Context, env ClientDealEnvironment, deal *rm.ClientDealState, total abi.TokenAmount) error {
	var voucher *paych.SignedVoucher
	err := whileLedgerAway(ctx, func() (err error) {
		voucher, err = CreateVoucher(ctx, env.Node(), *deal, total)
		return err
	})
	if err != nil {
		return err
	}
	err = env.SendDataTransferVoucher(ctx, deal.ChannelID, &rm.DealPayment{
		ID: deal.ID, PaymentChannel: deal.PaymentInfo.PayCh, PaymentVoucher: voucher,
	}, deal.LegacyProtocol)
	if ctx.Err() == nil && errors.Is(err, datatransfer.ErrChannelNotFound) {
		return &undeliverable{err}
	}
	return nil
}

// mayNotSpend tells whether money was refused because nobody asks for the deal at the moment.
func mayNotSpend(err error) bool {
	return err != nil && reason.From(err).Parked() && !errors.Is(err, context.Canceled)
}

// CreateVoucher uses the node's voucher book if it has one.
func CreateVoucher(ctx context.Context, node rm.RetrievalClientNode, deal rm.ClientDealState, amount abi.TokenAmount) (*paych.SignedVoucher, error) {
	if b, ok := node.(rm.ClientBook); ok {
		v, _, err := b.CreateDealVoucher(ctx, DealKey(deal.ID), deal.PaymentInfo.PayCh, deal.PaymentInfo.Lane, amount, Terms(&deal).PaidBytes(amount))
		return v, err
	}
	var tok shared.TipSetToken
	tok, _, err := node.GetChainHead(ctx)
	if err != nil {
		return nil, err
	}
	return node.CreatePaymentVoucher(ctx, deal.PaymentInfo.PayCh, amount, deal.PaymentInfo.Lane, tok)
}

// DealKey is the key of a client's deal in the voucher book.
func DealKey(id rm.DealID) string { return "c" + id.String() }

func shortfall(err error) (abi.TokenAmount, bool) {
	var s rm.ShortfallError
	if errors.As(err, &s) {
		return s.Shortfall(), true
	}
	return big.Zero(), false
}

// CheckComplete believes a completion only when all blocks are in; blocks in flight get time (M-16). What is due for them is paid first, asked for
// or not: a deal that is complete is paid.
func CheckComplete(ctx fsm.Context, env ClientDealEnvironment, deal rm.ClientDealState) error {
	f := factsOf(env, &deal)
	if f.Verified > deal.TotalReceived {
		return ctx.Trigger(rm.ClientEventBlocksReceived, f.Verified)
	}
	t := Terms(&deal)
	switch {
	case deal.AllBlocksReceived && !neverAsked(&deal) && !accounting.Settled(t, deal.FundsSpent, deal.TotalReceived):
		return payRest(ctx, env, deal, t.Due(deal.TotalReceived))
	case deal.AllBlocksReceived:
		return ctx.Trigger(rm.ClientEventCompleteVerified)
	case deal.PricePerByte.IsZero():
		return ctx.Trigger(rm.ClientEventWaitForLastBlocks)
	}
	return nil
}

// neverAsked reports whether everything was here already: nothing came from the provider, which has not heard of the deal, and its unseal price is not due.
func neverAsked(d *rm.ClientDealState) bool {
	return d.TotalReceived == 0 && d.FundsSpent.IsZero() && d.PaymentRequested.IsZero()
}

// payRest pays what a provider that says that it is done has not asked for.
func payRest(ctx fsm.Context, env ClientDealEnvironment, deal rm.ClientDealState, due abi.TokenAmount) error {
	short := big.Sub(due, deal.TotalFunds)
	if short.Sign() > 0 || deal.PaymentInfo == nil {
		return ctx.Trigger(rm.ClientEventFundsExpended, big.Max(short, big.Sub(due, deal.FundsSpent)))
	}
	err := sendVoucher(ctx.Context(), env, &deal, due)
	var gone *undeliverable
	if err != nil && ctx.Context().Err() != nil {
		return nil
	}
	if err != nil && !errors.As(err, &gone) { // one that cannot be delivered any more is in the book, and is kept
		return ctx.Trigger(rm.ClientEventCreateVoucherFailed, err)
	}
	return ctx.Trigger(rm.ClientEventPaymentSent, due)
}

// LastBlocks ends the wait if the last block came between the decision to wait and the wait.
func LastBlocks(ctx fsm.Context, _ ClientDealEnvironment, deal rm.ClientDealState) error {
	if deal.AllBlocksReceived {
		return ctx.Trigger(rm.ClientEventAllBlocksReceived)
	}
	return nil
}

// CancelDeal closes the transfer and ends the deal.
func CancelDeal(ctx fsm.Context, env ClientDealEnvironment, deal rm.ClientDealState) error {
	if deal.ChannelID.Initiator != "" && deal.ChannelID.Responder != "" {
		cctx, cancel := context.WithTimeout(ctx.Context(), shared.CloseDataTransferTimeout)
		defer cancel()
		if err := env.CloseDataTransfer(cctx, deal.ChannelID); err != nil && ctx.Context().Err() != nil {
			return fmt.Errorf("close data transfer: %w", err)
		}
	}
	return ctx.Trigger(rm.ClientEventCancelComplete)
}
