package accounting

import (
	"fmt"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"

	"github.com/cartage-dev/cartage/internal/reason"
)

// CreditLimits are what a provider risks on whom, in bytes. Nothing of it is per identity alone: a new identity costs nothing.
type CreditLimits struct {
	// Allowance is what all strangers together may have out unpaid; it is refilled by Refill an hour. 0 lends nothing to strangers.
	Allowance, Refill uint64
	// Block is what each loan is larger than an interval, in bytes: the last block of a deal may go beyond its limit.
	Block uint64
	// PerPeer is how many deals of one peer may draw on the allowance at once.
	PerPeer uint64
	// RecordCap bounds what one payer with a record may have out unpaid; RecordShare is the part of what is secured by that payer's
	// payments: 16 is a sixteenth. 0 lends nothing on a record.
	RecordCap, RecordShare uint64
	// Memory is how long an ended deal with unpaid bytes holds its loan, and how long a debt bars credit.
	Memory time.Duration
}

// DefaultCredit is in force where an operator sets nothing else.
func DefaultCredit() CreditLimits {
	return CreditLimits{Allowance: 16 << 20, Refill: 16 << 20, PerPeer: 1, Block: 1 << 20, RecordCap: 64 << 20, RecordShare: 16, Memory: 24 * time.Hour}
}

// Origin is where a stranger comes from, as far as that costs something: a prefix of addresses, and how many intervals all of it may
// have out unpaid.
type Origin struct {
	Key       string
	Intervals uint64
}

// Applicant asks for credit for one deal.
type Applicant struct {
	Deal    string
	Peer    string
	Origins []Origin
	Terms   Terms
	// Size is an upper bound of the payload in bytes: nobody is lent more.
	Size uint64
	// Prepays says that the peer pays in advance when it gets no credit: its deal has a loan of nothing then.
	Prepays bool
	// Deposit is what is paid before the first byte beyond the unseal price of the provider, in attoFIL.
	Deposit abi.TokenAmount
}

// interval is what a deal needs to begin: a whole interval and the block that goes beyond it, or the payload if that is smaller.
func (a Applicant) interval(l CreditLimits) uint64 {
	return min(add(a.Terms.CurrentInterval(0), l.Block), a.Size)
}

// Loan is what one deal may have out unpaid. It is stored before the first byte that it covers, and counts as used in full
// until the deal says otherwise.
type Loan struct {
	Deal    string          `json:"deal"`
	Peer    string          `json:"peer"`
	Payer   string          `json:"payer,omitempty"`
	Origins []Origin        `json:"origins,omitempty"`
	Price   abi.TokenAmount `json:"price"` // attoFIL a byte
	// The bytes lent: out of the strangers' allowance, on the record of the payer, and covered by a deposit.
	Strangers uint64 `json:"strangers,omitempty"`
	Record    uint64 `json:"record,omitempty"`
	Deposit   uint64 `json:"deposit,omitempty"`
	// Peers of markets pay in whole intervals only; an interval is what this deal was lent at its start.
	Interval uint64 `json:"interval"`
	// Overshoot is the part of the loan that is kept for the block which goes beyond the limit.
	Overshoot uint64    `json:"overshoot,omitempty"`
	Since     time.Time `json:"since"`
	End       *LoanEnd  `json:"end,omitempty"`
}

// LoanEnd is what a deal left unpaid.
type LoanEnd struct {
	Unpaid uint64       `json:"unpaid"` // bytes
	Blame  reason.Blame `json:"blame"`
	At     time.Time    `json:"at"`
}

// Bytes is what a deal may have out unpaid.
func (l Loan) Bytes() uint64 { return add(add(l.Strangers, l.Record), l.Deposit) }

// Reach is how far beyond what is paid a deal goes before it stops: the block that it stops behind may go farther.
func (l Loan) Reach() uint64 { return l.Bytes() - min(l.Bytes(), l.Overshoot) }

// unpaid is what counts against the payer: the loan while the deal runs, what is left of it afterwards.
func (l *Loan) unpaid() uint64 {
	if l.End != nil {
		return l.End.Unpaid
	}
	return add(l.Strangers, l.Record)
}

// amount is unpaid in attoFIL.
func (l *Loan) amount() abi.TokenAmount {
	return big.Mul(orZero(l.Price), big.NewIntUnsigned(l.unpaid()))
}

// NoCreditError says that a deal gets no credit, and what its payer can do.
type NoCreditError struct {
	Need uint64 // bytes of one interval
	Debt bool   // because of what was not paid before
}

func (e *NoCreditError) Error() string {
	if e.Debt {
		return fmt.Sprintf("bytes of earlier deals are not paid: pay %d bytes in advance", e.Need)
	}
	return fmt.Sprintf("no credit for %d bytes at the moment: pay them in advance", e.Need)
}

// bucket is the strangers' allowance: a level that is refilled with time and by what was paid after all.
type bucket struct {
	Level uint64    `json:"level"`
	At    time.Time `json:"at"`
}

// refilled is the bucket at a later time.
func (b bucket) refilled(l CreditLimits, now time.Time) bucket {
	if b.At.IsZero() {
		return bucket{l.Allowance, now}
	}
	passed := max(0, now.Sub(b.At))
	if passed >= time.Hour*24*365 {
		return bucket{l.Allowance, now}
	}
	more := mul(l.Refill, uint64(passed/time.Second)) / 3600
	if more == 0 && b.Level < l.Allowance {
		return bucket{min(b.Level, l.Allowance), b.At} // what has passed counts next time
	}
	return bucket{min(add(b.Level, more), l.Allowance), now}
}

// recordRoom is how many bytes at a price may be lent on what is secured while out is unpaid already.
func recordRoom(l CreditLimits, secured, out, price abi.TokenAmount, outBytes uint64) uint64 {
	if l.RecordShare == 0 || orZero(price).Sign() <= 0 {
		return 0
	}
	left := big.Sub(big.Div(orZero(secured), big.NewIntUnsigned(l.RecordShare)), orZero(out))
	if left.Sign() <= 0 {
		return 0
	}
	room := l.RecordCap - min(l.RecordCap, outBytes)
	if q := big.Div(left, price); q.IsUint64() {
		room = min(room, q.Uint64())
	}
	return room
}
