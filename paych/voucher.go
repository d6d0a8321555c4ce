// Package paych keeps payment channels on both sides: vouchers, lanes, the books that remember them, and settling. It is
// pure of any chain: what it needs of one is the interface Chain.
//
// Amounts are integers of the chain's smallest unit (attoFIL). A voucher is the type of go-state-types
// builtin/v8/paych; a lane's amount is cumulative.
package paych

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"

	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/internal/wire"
)

// Errors of vouchers and channels, named as in the rules of the payment channel actor (docs/protocol/payments.md).
var (
	ErrDecode                    = errors.New("voucher does not decode")
	ErrNotParty                  = errors.New("caller is not a party of the channel")
	ErrNoSignature               = errors.New("voucher has no signature")
	ErrBadSignature              = errors.New("signature does not verify")
	ErrChannelSettled            = errors.New("channel is settled")
	ErrChannelSettling     error = reason.ChannelSettling.Errorf("channel is settling")
	ErrSecretTooLong             = errors.New("secret is longer than 256 bytes")
	ErrWrongChannel              = errors.New("voucher is for another channel")
	ErrTooEarly                  = errors.New("voucher is not valid yet")
	ErrExpired                   = errors.New("voucher has expired")
	ErrNegativeAmount            = errors.New("amount is negative")
	ErrAmount                    = errors.New("amount must be positive")
	ErrBadSecret                 = errors.New("secret does not match")
	ErrExtraUnsupported          = errors.New("extra verification is not supported")
	ErrLaneLimit                 = errors.New("lane is above the limit")
	ErrStaleNonce                = errors.New("nonce is not above the lane's")
	ErrMergeSelf                 = errors.New("a lane cannot be merged into itself")
	ErrMergeUnknownLane          = errors.New("merged lane does not exist")
	ErrMergeStale                = errors.New("merged lane has a newer nonce")
	ErrMergesUnsupported         = errors.New("merges are not accepted")
	ErrNegativeBalance           = errors.New("voucher would make the balance negative")
	ErrInsufficientChannel       = errors.New("not enough funds in channel to cover voucher")
	ErrAlreadySettling           = errors.New("channel is settling already")
	ErrNotSettled                = errors.New("channel is not settled yet")
	ErrLocked                    = errors.New("voucher has a lock")
	ErrUnknownChannel            = errors.New("payment channel does not exist")
	ErrUnconfirmed               = errors.New("payment channel is not deep enough in the chain")
	ErrWrongPayee                = errors.New("payment channel pays somebody else")
	ErrAmountNotIncreasing       = errors.New("amount does not grow")
	ErrTooSmall                  = errors.New("voucher adds less than expected")
	ErrLaneBound                 = errors.New("lane is bound to another deal")
	ErrWalletFunds         error = reason.WalletShort.Errorf("not enough funds in wallet")
	ErrRefused                   = errors.New("message refused by the chain")
	ErrOverReservation           = errors.New("more than the deal has reserved")
	ErrLost                      = errors.New("vouchers were not redeemed before the channel was settled")
	ErrFee                       = errors.New("the fee of a message is above what it may cost")
	ErrPending                   = errors.New("message is not on the chain yet")
	ErrNoKey               error = reason.KeyMissing.Errorf("wallet has no key for the address")
)

// IsVoucherFault tells whether an error is the payer's: another voucher is needed. Everything else may pass.
func IsVoucherFault(err error) bool {
	for _, f := range []error{
		ErrDecode, ErrNoSignature, ErrBadSignature, ErrChannelSettled, ErrChannelSettling, ErrWrongChannel, ErrAmount, ErrLaneLimit, ErrStaleNonce,
		ErrMergesUnsupported, ErrInsufficientChannel, ErrLocked, ErrUnknownChannel, ErrUnconfirmed, ErrWrongPayee, ErrAmountNotIncreasing, ErrTooSmall,
		ErrLaneBound, ErrSettleWindow,
	} {
		if errors.Is(err, f) {
			return true
		}
	}
	return false
}

// MaxLane is the highest lane of a channel.
const MaxLane = 1<<63 - 1

// DecodeVoucher reads a voucher strictly: nothing may follow it, and it must be in its only canonical form.
func DecodeVoucher(data []byte) (*paych.SignedVoucher, error) {
	var v paych.SignedVoucher
	if err := wire.CheckClaims(data); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDecode, err)
	}
	r := bytes.NewReader(data)
	if err := v.UnmarshalCBOR(r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDecode, err)
	}
	if r.Len() > 0 {
		return nil, fmt.Errorf("%w: %d bytes after its end", ErrDecode, r.Len())
	}
	again, err := EncodeVoucher(&v)
	if err != nil || !bytes.Equal(again, data) {
		return nil, fmt.Errorf("%w: not in canonical form", ErrDecode)
	}
	return &v, nil
}

// EncodeVoucher returns the tuple of 11.
func EncodeVoucher(v *paych.SignedVoucher) ([]byte, error) {
	c := normal(*v)
	var b bytes.Buffer
	err := c.MarshalCBOR(&b)
	return b.Bytes(), err
}

// normal replaces a nil amount by zero.
func normal(v paych.SignedVoucher) paych.SignedVoucher {
	if v.Amount.Nil() {
		v.Amount = big.Zero()
	}
	return v
}

// VoucherText is the form that people copy: base64url without padding.
func VoucherText(v *paych.SignedVoucher) (string, error) {
	data, err := EncodeVoucher(v)
	return base64.RawURLEncoding.EncodeToString(data), err
}

// ParseVoucherText reads VoucherText.
func ParseVoucherText(s string) (*paych.SignedVoucher, error) {
	data, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDecode, err)
	}
	return DecodeVoucher(data)
}

// SigningBytes are what the payer signs.
func SigningBytes(v *paych.SignedVoucher) ([]byte, error) {
	c := normal(*v)
	return c.SigningBytes()
}

// SameVoucher tells whether two vouchers make the same promise; the bytes of a signature do not count.
func SameVoucher(a, b *paych.SignedVoucher) bool {
	x, err1 := SigningBytes(a)
	y, err2 := SigningBytes(b)
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

// CheckStateless makes the checks that need no chain (3.5, rows 1 to 9).
func CheckStateless(v *paych.SignedVoucher, ch address.Address) error {
	switch {
	case v == nil:
		return fmt.Errorf("%w: there is none", ErrDecode)
	case v.ChannelAddr != ch || ch.Protocol() != address.Actor:
		return fmt.Errorf("%w: %s, want %s", ErrWrongChannel, v.ChannelAddr, ch)
	case v.Extra != nil:
		return fmt.Errorf("%w: extra verification", ErrLocked)
	case v.TimeLockMin != 0 || v.TimeLockMax != 0:
		return fmt.Errorf("%w: time locks %d, %d", ErrLocked, v.TimeLockMin, v.TimeLockMax)
	case len(v.SecretHash) != 0:
		return fmt.Errorf("%w: secret", ErrLocked)
	case v.MinSettleHeight != 0:
		return fmt.Errorf("%w: minimum settle height %d", ErrLocked, v.MinSettleHeight)
	case len(v.Merges) != 0:
		return ErrMergesUnsupported
	case v.Lane > MaxLane:
		return fmt.Errorf("%w: %d", ErrLaneLimit, v.Lane)
	case v.Nonce == 0:
		return fmt.Errorf("%w: nonce 0", ErrStaleNonce)
	case v.Amount.Nil() || !v.Amount.GreaterThan(big.Zero()):
		return ErrAmount
	case v.Signature == nil:
		return ErrNoSignature
	}
	return nil
}

// VerifyVoucher checks the signature of the payer.
func VerifyVoucher(v *paych.SignedVoucher, payer address.Address) error {
	if v.Signature == nil {
		return ErrNoSignature
	}
	msg, err := SigningBytes(v)
	if err != nil {
		return err
	}
	return Verify(v.Signature, payer, msg)
}

// SignVoucher signs in place.
func SignVoucher(key *Key, v *paych.SignedVoucher) error {
	msg, err := SigningBytes(v)
	if err != nil {
		return err
	}
	sig, err := key.Sign(msg)
	v.Signature = sig
	return err
}
