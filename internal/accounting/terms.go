// Package accounting is the interval arithmetic of a deal: what a client owes and how far a provider may go. It is pure, and
// both sides use it, so that they cannot disagree.
package accounting

import (
	"math"
	stdbig "math/big"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
)

// Terms are the agreed terms of a deal: amounts in attoFIL, intervals in bytes.
type Terms struct {
	Price    abi.TokenAmount // per byte
	Unseal   abi.TokenAmount
	Interval uint64
	Increase uint64
}

func orZero(a abi.TokenAmount) abi.TokenAmount {
	if a.Nil() {
		return big.Zero()
	}
	return a
}

// Free tells whether the deal costs nothing at all.
func (t Terms) Free() bool { return orZero(t.Price).Sign() == 0 && orZero(t.Unseal).Sign() == 0 }

// Due is what the client owes in all for verified bytes: unseal price + price x bytes. Nobody ever pays more.
func (t Terms) Due(bytes uint64) abi.TokenAmount {
	return big.Add(orZero(t.Unseal), big.Mul(orZero(t.Price), big.NewIntUnsigned(bytes)))
}

// PaidBytes is how many whole bytes an amount pays for, after the unseal price; never rounded up. With price zero
// nothing is metered and it is 0.
func (t Terms) PaidBytes(amount abi.TokenAmount) uint64 {
	rest := big.Sub(orZero(amount), orZero(t.Unseal))
	if orZero(t.Price).Sign() == 0 || rest.LessThanEqual(big.Zero()) {
		return 0
	}
	q := big.Div(rest, t.Price)
	if !q.IsUint64() {
		return math.MaxUint64
	}
	return q.Uint64()
}

// Boundary is B(n) = n P + I n (n-1)/2, the total at which the n-th payment is due, or the largest number if it is above.
func (t Terms) Boundary(n uint64) uint64 {
	x := stdbig.NewInt(0).SetUint64(n)
	b := stdbig.NewInt(0).Mul(x, stdbig.NewInt(0).SetUint64(t.Interval))
	if n > 1 {
		y := stdbig.NewInt(0).Mul(x, stdbig.NewInt(0).SetUint64(n-1))
		y.Rsh(y.Mul(y, stdbig.NewInt(0).SetUint64(t.Increase)), 1)
		b.Add(b, y)
	}
	if !b.IsUint64() {
		return math.MaxUint64
	}
	return b.Uint64()
}

// Payments is the largest n with B(n) <= bytes, in closed form.
func (t Terms) Payments(bytes uint64) uint64 {
	if t.Increase == 0 {
		if t.Interval == 0 {
			return 0
		}
		return bytes / t.Interval
	}
	// I n^2 + (2P - I) n - 2x <= 0
	i := stdbig.NewInt(0).SetUint64(t.Increase)
	b := stdbig.NewInt(0).Sub(stdbig.NewInt(0).Lsh(stdbig.NewInt(0).SetUint64(t.Interval), 1), i)
	d := stdbig.NewInt(0).Mul(b, b)
	e := stdbig.NewInt(0).Mul(i, stdbig.NewInt(0).SetUint64(bytes))
	d.Add(d, e.Lsh(e, 3))
	n := d.Sub(d.Sqrt(d), b)
	n.Div(n, i.Lsh(i, 1))
	if n.Sign() < 0 {
		return 0
	}
	if !n.IsUint64() {
		return math.MaxUint64
	}
	return n.Uint64()
}

// Vouchers is how many payments bytes take, the last one included, and how long the last interval is: the smallest n with
// B(n) >= bytes, and P + (n-1) I.
func (t Terms) Vouchers(bytes uint64) (n, last uint64) {
	if bytes == 0 || t.Interval == 0 {
		return 0, 0
	}
	n = add(t.Payments(bytes-1), 1)
	return n, add(t.Interval, mul(n-1, t.Increase))
}

// CurrentInterval is the interval after bytes were paid for: P + k I.
func (t Terms) CurrentInterval(paid uint64) uint64 {
	return add(t.Interval, mul(t.Payments(paid), t.Increase))
}

// Owed is what is still to be paid for bytes; never negative: an overpaid amount is credit.
func (t Terms) Owed(bytes uint64, amount abi.TokenAmount) abi.TokenAmount {
	return Missing(t.Due(bytes), amount)
}

// Missing is what is missing from paid to total, never negative: the relative number of the published messages.
func Missing(total, paid abi.TokenAmount) abi.TokenAmount {
	return big.Max(big.Zero(), big.Sub(orZero(total), orZero(paid)))
}

func add(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}

func mul(a, b uint64) uint64 {
	if a != 0 && b > math.MaxUint64/a {
		return math.MaxUint64
	}
	return a * b
}
