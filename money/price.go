package money

import (
	"fmt"
	"math/big"
	"strings"

	fbig "github.com/filecoin-project/go-state-types/big"
)

// Price is an amount for so many bytes.
type Price struct {
	Amount
	Per uint64 // bytes
}

// scales are the numbers of bytes that a price is written for.
var scales = [...]struct {
	name  string
	bytes uint64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// ParsePrice reads an amount for a number of bytes: 0.01FIL/GiB, 7USDC/TiB, 2/B (attoFIL a byte). An amount alone is a price for a byte.
func ParsePrice(text string, known ...Asset) (Price, error) {
	s, per, scaled := strings.Cut(text, "/")
	p := Price{Per: 1}
	if scaled {
		p.Per = 0
		for _, u := range scales {
			if strings.EqualFold(strings.TrimSpace(per), u.name) {
				p.Per = u.bytes
			}
		}
		if p.Per == 0 {
			return Price{}, &AmountError{text, "a price is for a B, KiB, MiB, GiB or TiB, as in 0.01FIL/GiB"}
		}
	}
	a, err := Parse(s, known...)
	p.Amount = a
	return p, err
}

// MustParsePrice is ParsePrice for texts that are written in a program; it panics if one is wrong.
func MustParsePrice(text string, known ...Asset) Price {
	p, err := ParsePrice(text, known...)
	if err != nil {
		panic(err)
	}
	return p
}

// For is what so many bytes cost: what is due when the last of them has arrived, a part of a unit counting as one.
func (p Price) For(bytes uint64) Amount {
	cost, rest := new(big.Int).QuoRem(p.times(bytes), new(big.Int).SetUint64(max(p.Per, 1)), new(big.Int))
	if rest.Sign() > 0 {
		cost.Add(cost, big.NewInt(1))
	}
	return Amount{fbig.NewFromGo(cost), p.Asset}
}

func (p Price) times(bytes uint64) *big.Int {
	return new(big.Int).Mul(p.number().Int, new(big.Int).SetUint64(bytes))
}

// PerByte is the price in whole units a byte, as deals over libp2p have it. One that does not divide is rounded down, and exact is false.
func (p Price) PerByte() (units Amount, exact bool) {
	n, rest := new(big.Int).QuoRem(p.number().Int, new(big.Int).SetUint64(max(p.Per, 1)), new(big.Int))
	return Amount{fbig.NewFromGo(n), p.Asset}, rest.Sign() == 0
}

// Table is the price for a table: 0.01 FIL/GiB.
func (p Price) Table() string { return p.Amount.Table() + "/" + perName(p.Per) }

// String is Table.
func (p Price) String() string { return p.Table() }

// perName is the name of a number of bytes.
func perName(bytes uint64) string {
	for _, u := range scales {
		if u.bytes == bytes {
			return u.name
		}
	}
	return fmt.Sprintf("%d B", bytes)
}
