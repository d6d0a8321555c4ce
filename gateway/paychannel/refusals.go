package paychannel

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"

	"github.com/cartage-dev/cartage/gateway/x402"
	"github.com/cartage-dev/cartage/paych"
)

// codePrefix begins the codes of this scheme.
const codePrefix = "cartage_paych_"

// CodeMismatch is the code of a voucher that does not add exactly what was asked for to what the book has.
const CodeMismatch = codePrefix + "cumulative_amount_mismatch"

// codes are the names of the errors of vouchers.
func codes() []struct {
	err  error
	name string
} {
	return []struct {
		err  error
		name string
	}{
		{paych.ErrDecode, "decode"}, {paych.ErrNoSignature, "no_signature"}, {paych.ErrBadSignature, "bad_signature"},
		{paych.ErrChannelSettled, "channel_settled"}, {paych.ErrChannelSettling, "channel_settling"}, {paych.ErrWrongChannel, "wrong_channel"},
		{paych.ErrAmount, "amount"}, {paych.ErrLaneLimit, "lane_limit"}, {paych.ErrMergesUnsupported, "merges_unsupported"},
		{paych.ErrInsufficientChannel, "insufficient_channel"}, {paych.ErrLocked, "locked"}, {paych.ErrUnknownChannel, "unknown_channel"},
		{paych.ErrUnconfirmed, "unconfirmed"}, {paych.ErrWrongPayee, "wrong_payee"}, {paych.ErrLaneBound, "lane_bound"}, {paych.ErrSettleWindow, "settle_window"},
		{paych.ErrNotExact, "cumulative_amount_mismatch"},
	}
}

// refusal names why a voucher was not taken. What is no fault of the voucher passes: the same payment may be taken later.
func refusal(err error) error {
	for _, c := range codes() {
		if errors.Is(err, c.err) {
			return refuse(codePrefix+c.name, "the payment was not taken: %v", c.err)
		}
	}
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case paych.IsVoucherFault(err):
		return refuse(codePrefix+"voucher", "the payment was not taken: %v", err)
	}
	return away()
}

// away is the refusal while no payment can be checked. It passes.
func away() *x402.Refusal {
	return &x402.Refusal{Code: "chain_unreachable", Message: "payments cannot be checked at present", Status: http.StatusServiceUnavailable, RetryAfter: 10}
}

// refused is refusal, with what the book has where that helps.
func (d *draft) refused(c *paych.Checked, err error) error {
	if errors.Is(err, paych.ErrNotExact) {
		return d.mismatch(c)
	}
	return refusal(err)
}

// mismatch says what the book has: the payer compares it with its own signature and goes on from there.
func (d *draft) mismatch(c *paych.Checked) error {
	lane := c.Lane()
	r := refuse(CodeMismatch, "the voucher does not add exactly %s to what was paid so far", d.accepted.Amount)
	r.State = map[string]any{"channelState": map[string]any{"channel": d.voucher.ChannelAddr.String(), "lane": d.voucher.Lane, "balance": c.Deposit().String(), "chargedCumulativeAmount": lane.Amount.String()}}
	if lane.Voucher != nil {
		if data, err := paych.EncodeVoucher(lane.Voucher); err == nil {
			r.State["voucherState"] = map[string]any{"voucher": base64.RawURLEncoding.EncodeToString(data)}
		}
	}
	return r
}
