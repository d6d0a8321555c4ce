package batch

import (
	"errors"

	"github.com/cartage-dev/cartage/gateway/x402"
	"github.com/cartage-dev/cartage/paych/book"
	"github.com/cartage-dev/cartage/paych/evm"
	"github.com/cartage-dev/cartage/paych/evm/relay"
)

// codes are the names of the errors of payments.
func codes() []struct {
	err  error
	name string
} {
	return []struct {
		err  error
		name string
	}{
		{evm.ErrChannelID, "channel_id_mismatch"}, {evm.ErrReceiver, "receiver_mismatch"}, {evm.ErrReceiverAuthorizer, "receiver_authorizer_mismatch"}, {evm.ErrToken, "token_mismatch"},
		{evm.ErrDelay, "withdraw_delay_mismatch"}, {evm.ErrVoucherSignature, "voucher_signature"}, {evm.ErrMismatch, "cumulative_amount_mismatch"}, {evm.ErrBelowClaimed, "cumulative_below_claimed"},
		{evm.ErrExceedsBalance, "cumulative_exceeds_balance"}, {evm.ErrWithdrawing, "cumulative_exceeds_balance"}, {evm.ErrNoChannel, "channel_not_found"},
	}
}

// CodeMismatch is the code of a voucher that does not add exactly what was asked for to what the book has.
const CodeMismatch = codePrefix + "cumulative_amount_mismatch"

// refusal names why a payment was not taken, with what the book has where that helps.
func (d *draft) refusal(e book.Entry, err error) error {
	for _, c := range codes() {
		if !errors.Is(err, c.err) {
			continue
		}
		r := refuse(c.name, "the payment was not taken: %v", c.err)
		if errors.Is(err, evm.ErrMismatch) || errors.Is(err, evm.ErrBelowClaimed) {
			r.State = map[string]any{"channelState": channelState(e)}
			if v := voucherState(e); v != nil {
				r.State["voucherState"] = v
			}
		}
		return r
	}
	var refused *book.RefusedError
	switch {
	case errors.Is(err, relay.ErrBusy), errors.Is(err, evm.ErrRefunding):
		return passes(codePrefix+"channel_busy", "too much is asked of the channel at once", 1)
	case errors.Is(err, book.ErrUnavailable), errors.Is(err, evm.ErrUnproven):
		return passes(codePrefix+"verification_state_unavailable", "the chain cannot be asked about the channel at present", 10)
	case errors.As(err, &refused):
		return refuse("channel_not_found", "the channel is refused: %s", refused.Text)
	}
	return err
}

// committed is the error of a commit as clients are told it.
func (d *draft) committed(err error) error {
	if errors.Is(err, book.ErrConflict) {
		return passes(codePrefix+"channel_busy", "another payment of the channel was taken just now", 1)
	}
	return err
}

var _ error = (*x402.Refusal)(nil)
