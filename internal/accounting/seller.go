package accounting

import (
	"math"

	"github.com/filecoin-project/go-state-types/abi"
)

// SellerFacts is what a provider knows of a deal when it decides whether more may leave.
type SellerFacts struct {
	// Paid is the total in the voucher book, in attoFIL.
	Paid abi.TokenAmount
	// Loan is how far the deal may go beyond what is paid, in bytes. Without a loan the deal is paid in advance.
	Loan uint64
	// Position is the bytes that the deal has released, each block once.
	Position uint64
	// Whole says that Position is all of it.
	Whole bool
	// Size is an upper bound of the payload in bytes, 0 if it is not known: nobody is asked to pay in advance beyond it.
	Size uint64
	// Next is the size of the block that waits, 0 if it is not known yet.
	Next uint64
}

// DemandKind is what a provider waits for.
type DemandKind uint8

// What a provider may wait for.
const (
	DemandNothing DemandKind = iota
	DemandUnseal
	DemandInterval
	DemandLast
)

// Verdict is a provider's decision to release data. It is a conclusion from facts and is stored nowhere.
type Verdict struct {
	// Limit is the position at which sending stops. The block that reaches it may go beyond, if something is lent for it.
	Limit uint64
	// Exact says that nothing is lent: a block leaves only if the limit covers it whole. The sender reads it to see. Once all of the payload is paid no
	// block can be too large, and a sender that does not know their sizes goes on too.
	Exact bool
	// Send reports whether more may leave now.
	Send bool
	// Demand is what the provider waits for, and Total the cumulative amount that would satisfy it, in attoFIL.
	Demand DemandKind
	Total  abi.TokenAmount
}

// Owed is what is missing to the demand, in attoFIL: the relative number of the published messages.
func (v Verdict) Owed(paid abi.TokenAmount) abi.TokenAmount { return Missing(v.Total, paid) }

// MaySend is the provider's only decision to release data: blocks leave while the position is below what is paid plus what is lent, and without a
// loan while what is paid covers them whole. What this deal handed to its transport before goes out again whatever is owed; the transport knows
// which blocks these are.
func MaySend(t Terms, f SellerFacts) Verdict {
	paid, priced := orZero(f.Paid), orZero(t.Price).Sign() > 0
	covered := t.PaidBytes(paid)
	switch {
	case priced && f.Loan == 0 && f.Position == 0 && covered == 0: // nothing was lent
		return Verdict{Exact: true, Demand: DemandUnseal, Total: t.Due(advance(t, f))}
	case paid.LessThan(orZero(t.Unseal)):
		return Verdict{Demand: DemandUnseal, Total: orZero(t.Unseal)}
	case !priced:
		return Verdict{Limit: math.MaxUint64, Send: !f.Whole, Total: orZero(t.Unseal)}
	}
	v := Verdict{Limit: add(covered, min(f.Loan, t.CurrentInterval(covered))), Exact: f.Loan == 0, Total: t.Due(f.Position)}
	if v.Exact && f.Size > 0 && covered >= f.Size { // all there is
		v.Exact, v.Limit = false, math.MaxUint64
	}
	below := f.Position < v.Limit
	if v.Exact {
		below = add(f.Position, f.next()) <= v.Limit
	}
	switch {
	case f.Whole && f.Position > covered:
		v.Demand = DemandLast
	case !f.Whole && below:
		v.Send = true
	case !f.Whole:
		v.Demand, v.Total = DemandInterval, t.Due(advance(t, f))
	}
	return v
}

// advance is the position that a deal at its limit asks payment for: what was released, or without a loan one interval more, and at least the
// block that waits. What is paid in advance does not grow with the interval.
func advance(t Terms, f SellerFacts) uint64 {
	if f.Loan > 0 {
		return f.Position
	}
	to := add(f.Position, t.Interval)
	if f.Size > 0 {
		to = min(to, f.Size)
	}
	return max(to, add(f.Position, max(1, f.next())))
}

// next is the size of the block that waits: no larger than what is left of the payload.
func (f SellerFacts) next() uint64 {
	if f.Size > f.Position {
		return min(f.Next, f.Size-f.Position)
	}
	return f.Next
}

// Settled reports whether a deal that has released bytes is paid in full.
func Settled(t Terms, paid abi.TokenAmount, bytes uint64) bool {
	return orZero(paid).GreaterThanEqual(t.Due(bytes))
}
