package clientstates

import (
	"context"
	"errors"
	"fmt"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/fsm"
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

// Progress is optional on an environment: what the transfer really has at the moment, whether the client pays all that is
// due at once, because the provider may have lost count, and whether the provider said that it is done.
type Progress interface {
	Received(deal rm.DealID) uint64
	PaysInFull(deal rm.DealID) bool
	Completed(deal rm.DealID) bool
	// Denied tells whether the provider asks for money, has all that it asked for before, and sends nothing.
	Denied(deal rm.DealID) bool
	// Troubled tells whether requests and payments may have crossed each other: what is asked for may be an older state.
	Troubled(deal rm.DealID) bool
	// Crossed tells whether a request for more than what was verified may be answered by a voucher that was sent unasked.
	Crossed(deal rm.DealID) bool
	// Resends tells whether the last voucher may be sent once more: a provider may deny to have it a few times.
	Resends(deal rm.DealID) bool
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

// SetupPaymentChannelStart makes the funds of the deal available; a deal without a price needs none.
func SetupPaymentChannelStart(ctx fsm.Context, env ClientDealEnvironment, deal rm.ClientDealState) error {
	if deal.TotalFunds.IsZero() || Terms(&deal).Free() {
		return ctx.Trigger(rm.ClientEventPaymentChannelSkip)
	}
	ch, msg, err := makeAvailable(ctx.Context(), env.Node(), deal)
	switch {
	case err != nil:
		return ctx.Trigger(rm.ClientEventPaymentChannelErrored, err)
	case ch == address.Undef:
		return ctx.Trigger(rm.ClientEventPaymentChannelCreateInitiated, msg)
	case !msg.Defined():
		return ctx.Trigger(rm.ClientEventPaymentChannelReady, ch)
	}
	return ctx.Trigger(rm.ClientEventPaymentChannelAddingFunds, msg, ch)
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

func allocateLane(ctx context.Context, node rm.RetrievalClientNode, deal rm.ClientDealState, ch address.Address) (uint64, error) {
	if r, ok := node.(rm.ClientReserver); ok {
		return r.AllocateDealLane(ctx, DealKey(deal.ID), ch, deal.TotalFunds)
	}
	return node.AllocateLane(ctx, ch)
}

// WaitPaymentChannelReady waits for the message on the ledger.
func WaitPaymentChannelReady(ctx fsm.Context, env ClientDealEnvironment, deal rm.ClientDealState) error {
	ch, err := waitReady(ctx, env, deal)
	if err != nil {
		return ctx.Trigger(rm.ClientEventPaymentChannelErrored, err)
	}
	return ctx.Trigger(rm.ClientEventPaymentChannelReady, ch)
}

func waitReady(ctx fsm.Context, env ClientDealEnvironment, deal rm.ClientDealState) (address.Address, error) {
	if deal.WaitMsgCID == nil {
		return address.Undef, errors.New("nothing to wait for")
	}
	return env.Node().WaitForPaymentChannelReady(ctx.Context(), *deal.WaitMsgCID)
}

// AllocateLane takes a lane for the deal.
func AllocateLane(ctx fsm.Context, env ClientDealEnvironment, deal rm.ClientDealState) error {
	lane, err := allocateLane(ctx.Context(), env.Node(), deal, deal.PaymentInfo.PayCh)
	if err != nil {
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
	if p, ok := env.(Progress); ok && p.Completed(deal.ID) {
		return ctx.Trigger(rm.ClientEventComplete)
	}
	return nil
}

func progress(env ClientDealEnvironment, deal rm.ClientDealState) (received uint64, inFull bool) {
	if p, ok := env.(Progress); ok {
		return max(deal.TotalReceived, p.Received(deal.ID)), p.PaysInFull(deal.ID)
	}
	return deal.TotalReceived, false
}

// amount is the cumulative voucher for a request: what the provider asks for, and never more than is due for verified
// bytes (3.7). When everything is in, or the provider may have lost count, it is all that is due.
func amount(deal *rm.ClientDealState, inFull bool) abi.TokenAmount {
	due := Terms(deal).Due(deal.TotalReceived)
	if inFull || deal.LastPaymentRequested && deal.AllBlocksReceived {
		return due
	}
	return big.Min(big.Add(deal.FundsSpent, deal.PaymentRequested), due)
}

// ProcessPaymentRequested decides whether to pay now: not before something is due for what was received.
func ProcessPaymentRequested(ctx fsm.Context, env ClientDealEnvironment, deal rm.ClientDealState) error {
	got, inFull := progress(env, deal)
	if got > deal.TotalReceived {
		return ctx.Trigger(rm.ClientEventBlocksReceived, got)
	}
	asked := big.Add(deal.FundsSpent, deal.PaymentRequested)
	due := Terms(&deal).Due(deal.TotalReceived)
	last := deal.Status == rm.DealStatusFundsNeededLastPayment
	switch {
	case asked.GreaterThan(due) && due.GreaterThan(deal.FundsSpent) && (denied(env, deal) || deal.AllBlocksReceived && troubled(env, deal)):
		return ctx.Trigger(rm.ClientEventSendFunds) // all that is due
	case asked.GreaterThan(due) && paidAll(&deal) && !denied(env, deal):
		return nil // the last voucher is on its way, or more bytes are
	case asked.GreaterThan(due) && paidAll(&deal) && resends(env, deal):
		return ctx.Trigger(rm.ClientEventSendFunds) // the last voucher once more
	case tooMuch(env, &deal, inFull) || asked.GreaterThan(due) && !inFull && unsealTooDear(&deal):
		return ctx.Trigger(rm.ClientEventBadPaymentRequested, "too much money requested for bytes sent")
	case asked.GreaterThan(due) && inFull && !last && !deal.AllBlocksReceived && crossed(env, deal):
		return nil // a voucher is on its way, or a step of bytes is
	case asked.GreaterThan(due) && !inFull, last && !deal.AllBlocksReceived && !denied(env, deal):
		return nil // the bytes that are asked for are on their way; with all of them, all that is due is paid
	case amount(&deal, inFull).GreaterThan(deal.FundsSpent), last && deal.AllBlocksReceived:
		return ctx.Trigger(rm.ClientEventSendFunds)
	case deal.PaymentRequested.IsZero(): // nothing is due: do not wait for what nobody asks
		return ctx.Trigger(PaymentNotSent)
	}
	return nil // the bytes that are asked for are on their way
}

// tooMuch tells whether more is asked for than is due although all blocks are in, and no message that is still on its way can
// explain it.
func tooMuch(env ClientDealEnvironment, d *rm.ClientDealState, inFull bool) bool {
	due := Terms(d).Due(d.TotalReceived)
	if !big.Add(d.FundsSpent, d.PaymentRequested).GreaterThan(due) || inFull {
		return false
	}
	if paidAll(d) {
		return denied(env, *d) // for the last time
	}
	return d.AllBlocksReceived && !troubled(env, *d)
}

// paidAll tells whether everything that is due was paid for, in a deal that has paid.
func paidAll(d *rm.ClientDealState) bool {
	return d.FundsSpent.GreaterThan(big.Zero()) && d.FundsSpent.Equals(Terms(d).Due(d.TotalReceived))
}

func troubled(env ClientDealEnvironment, deal rm.ClientDealState) bool {
	p, ok := env.(Progress)
	return ok && p.Troubled(deal.ID)
}

func denied(env ClientDealEnvironment, deal rm.ClientDealState) bool {
	p, ok := env.(Progress)
	return ok && p.Denied(deal.ID)
}

func crossed(env ClientDealEnvironment, deal rm.ClientDealState) bool {
	p, ok := env.(Progress)
	return ok && p.Crossed(deal.ID)
}

func resends(env ClientDealEnvironment, deal rm.ClientDealState) bool {
	p, ok := env.(Progress)
	return ok && !deal.FundsSpent.IsZero() && p.Resends(deal.ID)
}

// rechecks bounds how often a shortfall that the node does not see is tried again.
func rechecks(env ClientDealEnvironment, deal rm.ClientDealState) bool {
	p, ok := env.(Progress)
	return ok && p.Resends(deal.ID)
}

var errNoChannel = errors.New("the deal has no payment channel")

// unsealTooDear tells whether more is asked before the first byte than was agreed: no bytes can be in flight then.
func unsealTooDear(d *rm.ClientDealState) bool {
	return d.TotalReceived == 0 && d.FundsSpent.IsZero() && d.UnsealPrice.Sign() > 0
}

// SendFunds signs and sends a voucher. The book stores it before it leaves; the same amount again is the same voucher.
func SendFunds(ctx fsm.Context, env ClientDealEnvironment, deal rm.ClientDealState) error {
	_, inFull := progress(env, deal)
	if tooMuch(env, &deal, inFull) && !paidAll(&deal) {
		return ctx.Trigger(rm.ClientEventBadPaymentRequested, "too much money requested for bytes sent")
	}
	v := amount(&deal, inFull)
	if v.LessThan(deal.FundsSpent) || deal.FundsSpent.IsZero() && v.IsZero() {
		return ctx.Trigger(PaymentNotSent)
	}
	if v.GreaterThan(deal.TotalFunds) {
		return ctx.Trigger(rm.ClientEventFundsExpended, big.Sub(v, deal.TotalFunds))
	}
	if deal.PaymentInfo == nil {
		return ctx.Trigger(rm.ClientEventCreateVoucherFailed, errNoChannel)
	}
	voucher, err := CreateVoucher(ctx.Context(), env.Node(), deal, v)
	if short, ok := shortfall(err); ok {
		return ctx.Trigger(rm.ClientEventVoucherShortfall, short)
	}
	if err != nil {
		return ctx.Trigger(rm.ClientEventCreateVoucherFailed, err)
	}
	// The voucher exists: it counts as spent although it may have to be sent again (M-37).
	if err := env.SendDataTransferVoucher(ctx.Context(), deal.ChannelID, &rm.DealPayment{
		ID: deal.ID, PaymentChannel: deal.PaymentInfo.PayCh, PaymentVoucher: voucher,
	}, deal.LegacyProtocol); err != nil && ctx.Context().Err() == nil {
		if errors.Is(err, datatransfer.ErrChannelNotFound) {
			return ctx.Trigger(rm.ClientEventWriteDealPaymentErrored, err)
		}
	}
	return ctx.Trigger(rm.ClientEventPaymentSent, v)
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

// CheckFunds looks whether money is coming.
func CheckFunds(ctx fsm.Context, env ClientDealEnvironment, deal rm.ClientDealState) error {
	if deal.PaymentInfo == nil {
		return ctx.Trigger(rm.ClientEventPaymentChannelErrored, errNoChannel)
	}
	if deal.WaitMsgCID != nil {
		return ctx.Trigger(rm.ClientEventPaymentChannelAddingFunds, *deal.WaitMsgCID, deal.PaymentInfo.PayCh)
	}
	f, err := env.Node().CheckAvailableFunds(ctx.Context(), deal.PaymentInfo.PayCh)
	if err != nil {
		return ctx.Trigger(rm.ClientEventPaymentChannelErrored, err)
	}
	_, inFull := progress(env, deal)
	needed := big.Max(deal.PaymentRequested, big.Sub(amount(&deal, inFull), deal.FundsSpent))
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
		return ctx.Trigger(rm.ClientEventFundsExpended, big.Sub(short, inflight))
	}
	return ctx.Trigger(rm.ClientEventPaymentChannelAddingFunds, *f.PendingWaitSentinel, deal.PaymentInfo.PayCh)
}

// CheckComplete believes a completion only when all blocks are in; blocks in flight get time (M-16).
func CheckComplete(ctx fsm.Context, env ClientDealEnvironment, deal rm.ClientDealState) error {
	if got, _ := progress(env, deal); got > deal.TotalReceived {
		return ctx.Trigger(rm.ClientEventBlocksReceived, got)
	}
	switch {
	case deal.AllBlocksReceived:
		return ctx.Trigger(rm.ClientEventCompleteVerified)
	case deal.PricePerByte.IsZero():
		return ctx.Trigger(rm.ClientEventWaitForLastBlocks)
	}
	return nil
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
