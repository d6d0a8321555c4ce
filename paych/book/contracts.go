package book

import (
	"context"
	"errors"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
)

// Outcome is what a check comes to.
type Outcome uint8

// Outcomes. Of all but Applied the book stays as it is.
const (
	Applied  Outcome = iota + 1
	Stale            // it does not add to the book what was asked for
	Foreign          // it is not of this offer, this channel or this payer
	Short            // the deposit does not cover it, or is being withdrawn
	Unproven         // what the book knows of the chain is too old: ask the chain, and check once more
)

// ErrUnavailable means that the chain cannot be read or written now. It passes.
var ErrUnavailable = errors.New("the chain does not answer")

// Payment is one payment of a channel.
type Payment struct {
	Key     ChannelKey
	Config  []byte          // what the channel is
	Maximum abi.TokenAmount // that may be claimed in all
	Raw     []byte          // the signature
}

// Want is what is asked for: what a payment has to add to what was earned.
type Want struct {
	Amount abi.TokenAmount
	// Charge is what is taken of it, and Spare what is taken too much so far.
	Charge abi.TokenAmount
	Spare  uint64
	Bytes  uint64
}

// Instrument turns one payment into secured money. Check is pure: no I/O, no clock, no mutation; safe for concurrent use. It returns the next
// entry if the outcome is Applied, and else an error that says why.
type Instrument interface {
	Kind() string
	Check(p Payment, w Want, have Entry, now time.Time) (Entry, Outcome, error)
}

// Settled is what a redemption came to.
type Settled struct {
	Balances []Balance // of the entries, as the chain shows them afterwards
	Tx       []string
}

// Escrow is the chain side. Every method is idempotent: a repeat after a crash has no second effect. Errors that pass wrap ErrUnavailable.
type Escrow interface {
	// Fund relays the deposit of an intent and waits until the chain shows it. It returns the balance afterwards and the transaction.
	Fund(ctx context.Context, i Intent) (Balance, string, error)
	// State is what the chain has of channels: one round trip for many.
	State(ctx context.Context, e []Entry) ([]Balance, error)
	// Redeem claims what was earned, and has it paid to the receiver. The entries are of one receiver, authorizer and token.
	Redeem(ctx context.Context, e []Entry) (Settled, error)
	// Release claims what was earned and gives an amount back to the payer. The entry has the nonce of the refund.
	Release(ctx context.Context, e Entry, amount abi.TokenAmount) (string, error)
}

// RefusedError is what the chain or a facilitator says of something that it will not do. It does not pass: the same will be refused again.
type RefusedError struct {
	Code string // as the other side names it; empty: it has none
	Text string
}

// Error implements error.
func (e *RefusedError) Error() string {
	if e.Code == "" {
		return "refused: " + e.Text
	}
	return "refused: " + e.Code + ": " + e.Text
}
