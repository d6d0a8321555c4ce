package accounting

import (
	stdbig "math/big"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
)

// tib is the binary logarithm of the bytes that a rate is the price of.
const tib = 40

// Rate is a price as the HTTP gateway asks for it: whole units of an asset for 2^40 bytes. The zero value is free.
type Rate struct{ PerTiB abi.TokenAmount }

// Rate is the price of the bytes of a deal: its price per byte is a whole number, so that no part of a unit is ever owed.
func (t Terms) Rate() Rate { return Rate{big.NewFromGo(new(stdbig.Int).Lsh(orZero(t.Price).Int, tib))} }

// exact is what n bytes cost, in 2^-40 of a unit.
func (r Rate) exact(n uint64) *stdbig.Int {
	return new(stdbig.Int).Mul(orZero(r.PerTiB).Int, new(stdbig.Int).SetUint64(n))
}

// roundUp is a number of 2^-40 units as whole ones, rounded up; nothing for a negative number.
func roundUp(v *stdbig.Int) *stdbig.Int {
	if v.Sign() <= 0 {
		return new(stdbig.Int)
	}
	one := stdbig.NewInt(1)
	v = new(stdbig.Int).Add(v, new(stdbig.Int).Sub(new(stdbig.Int).Lsh(one, tib), one))
	return v.Rsh(v, tib)
}

// Ceiling is what n bytes cost by themselves: the amount that is asked for, in units.
func (r Rate) Ceiling(n uint64) abi.TokenAmount { return big.NewFromGo(roundUp(r.exact(n))) }

// Charge is what is taken for n bytes by one who has paid spare too much so far, in 2^-40 units, and what was paid too much afterwards. It is
// never above Ceiling, and the charges of any split of a body add up to the Ceiling of all of it, whatever the prices of its parts.
func (r Rate) Charge(n, spare uint64) (charge abi.TokenAmount, next uint64) {
	owed := new(stdbig.Int).Sub(r.exact(n), new(stdbig.Int).SetUint64(spare))
	units := roundUp(owed)
	rest := new(stdbig.Int).Sub(new(stdbig.Int).Lsh(units, tib), owed)
	return big.NewFromGo(units), rest.Uint64()
}
