package evm

import (
	"bytes"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	fbig "github.com/filecoin-project/go-state-types/big"

	"github.com/cartage-dev/cartage/paych/book"
)

// Kind is that of the instrument.
const Kind = "evm.batch"

// Bounds of the delay of a withdrawal, in seconds: those of the contract.
const (
	MinDelay = 900
	MaxDelay = 30 * 24 * 3600
)

// Errors of payments: what is wrong with one.
var (
	ErrChannelID          = errors.New("the channel id is not that of the configuration")
	ErrReceiver           = errors.New("the channel pays another receiver than the offer")
	ErrReceiverAuthorizer = errors.New("the channel has another receiverAuthorizer than the offer")
	ErrToken              = errors.New("the channel holds another token than the offer")
	ErrDelay              = errors.New("the channel has another withdrawDelay than the offer")
	ErrVoucherSignature   = errors.New("the voucher is not signed by the payerAuthorizer of the channel")
	ErrBelowClaimed       = errors.New("the voucher is not above what was claimed")
	ErrMismatch           = errors.New("the voucher does not add exactly what was asked for")
	ErrExceedsBalance     = errors.New("the channel does not hold so much")
	ErrWithdrawing        = errors.New("a withdrawal of the channel was begun")
	ErrRefunding          = errors.New("the channel is being refunded")
	ErrNoChannel          = errors.New("the channel holds nothing")
	ErrUnproven           = errors.New("it is not known what the channel holds now")
)

// Batch is the instrument of channels for an offer. It implements book.Instrument.
type Batch struct {
	Domain                      Domain
	Token, Receiver, Authorizer Address
	Delay                       uint64 // seconds
}

var _ book.Instrument = Batch{}

// Kind implements book.Instrument.
func (Batch) Kind() string { return Kind }

// Check implements book.Instrument.
func (b Batch) Check(p book.Payment, w book.Want, have book.Entry, now time.Time) (book.Entry, book.Outcome, error) {
	c, err := b.identify(p, have)
	if err != nil {
		return have, book.Foreign, err
	}
	if have.SeenAt.IsZero() {
		return have, book.Unproven, ErrUnproven
	}
	if outcome, err := checkAmount(p.Maximum, w, have); err != nil {
		return have, outcome, err
	}
	if now.Sub(have.SeenAt) > Trust(c) {
		return have, book.Unproven, ErrUnproven
	}
	next := have
	next.Earned, next.Spare, next.Bytes = fbig.Add(have.Earned, w.Charge), w.Spare, have.Bytes+w.Bytes
	next.Config = p.Config
	if p.Maximum.GreaterThanEqual(have.Secured) {
		next.Secured = p.Maximum
		next.Proof = append(p.Maximum.Int.FillBytes(make([]byte, amountLength)), p.Raw...)
	}
	return next, book.Applied, nil
}

// Trust is how long what the chain showed of a channel holds: until then nobody who began a withdrawal can end it.
func Trust(c ChannelConfig) time.Duration { return time.Duration(c.WithdrawDelay) * time.Second / 3 }

// identify compares a payment with the offer, or with the entry that is there, and its signature with its payer.
func (b Batch) identify(p book.Payment, have book.Entry) (ChannelConfig, error) {
	c, err := DecodeConfig(p.Config)
	if err != nil {
		return c, err
	}
	switch {
	case have.Version > 0 && bytes.Equal(have.Config, p.Config):
	case c.Receiver != b.Receiver:
		return c, ErrReceiver
	case c.ReceiverAuthorizer != b.Authorizer:
		return c, ErrReceiverAuthorizer
	case c.Token != b.Token:
		return c, ErrToken
	case c.WithdrawDelay != b.Delay:
		return c, ErrDelay
	}
	id := b.Domain.ChannelID(c)
	if id.String() != p.Key.Channel {
		return c, ErrChannelID
	}
	return c, b.Domain.VerifyVoucher(c, Voucher{Channel: id, Maximum: p.Maximum.Int, Signature: p.Raw})
}

// VerifyVoucher compares the signature of a voucher with the authorizer of the payer. Channels of contract wallets, which have none, are not served.
func (d Domain) VerifyVoucher(c ChannelConfig, v Voucher) error {
	digest, err := d.VoucherDigest(v.Channel, v.Maximum)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrVoucherSignature, err)
	}
	who, err := Recover(digest, v.Signature)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrVoucherSignature, err)
	}
	if who != c.PayerAuthorizer || who.IsZero() {
		return ErrVoucherSignature
	}
	return nil
}

func checkAmount(maximum abi.TokenAmount, w book.Want, have book.Entry) (book.Outcome, error) {
	base := fbig.Max(have.Earned, have.Claimed)
	due := fbig.Add(base, w.Amount)
	switch {
	case maximum.LessThan(have.Claimed), w.Amount.Sign() > 0 && maximum.Equals(have.Claimed):
		return book.Stale, ErrBelowClaimed
	case !maximum.Equals(due):
		return book.Stale, ErrMismatch
	case have.State == book.Refunding:
		return book.Short, ErrRefunding
	case !have.WithdrawAt.IsZero() || have.State == book.Withdrawing:
		return book.Short, ErrWithdrawing
	case have.Deposit.Sign() == 0:
		return book.Short, ErrNoChannel
	case due.GreaterThan(have.Deposit):
		return book.Short, ErrExceedsBalance
	}
	return book.Applied, nil
}

// amountLength is that of an amount in a proof.
const amountLength = 16

// ClaimOf is what an entry claims: what was earned, by the last voucher.
func ClaimOf(e book.Entry) (Claim, error) {
	c, err := DecodeConfig(e.Config)
	if err != nil {
		return Claim{}, err
	}
	v, err := ProofOf(e)
	return Claim{Config: c, Maximum: v.Maximum, Signature: v.Signature, TotalClaimed: e.Earned.Int}, err
}

// ProofOf is the last voucher of an entry.
func ProofOf(e book.Entry) (Voucher, error) {
	id, err := ParseHash(e.Key.Channel)
	if err != nil {
		return Voucher{}, err
	}
	if len(e.Proof) != amountLength+SignatureSize {
		return Voucher{}, fmt.Errorf("the proof of channel %s has %d bytes, not %d", e.Key.Channel, len(e.Proof), amountLength+SignatureSize)
	}
	return Voucher{Channel: id, Maximum: new(big.Int).SetBytes(e.Proof[:amountLength]), Signature: e.Proof[amountLength:]}, nil
}
