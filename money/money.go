// Package money has amounts and prices as people write and read them.
//
// An amount is a whole number of the smallest unit of its asset: attoFIL, or micro-USDC. Nothing is ever rounded in an amount; a text for people is
// cut, never rounded up, so that nobody believes to have more than there is. No sum mixes assets.
//
//	budget, err := money.Parse("0.5FIL")             // 500000000000000000 attoFIL
//	price, err := money.ParsePrice("0.01FIL/GiB")    // for 2^30 bytes
//	cost := price.For(64 << 20)                      // 625000000000000 attoFIL
//	fmt.Println(cost.Table(), "|", cost.Exact())     // 0.000625 FIL | 0.000625 FIL (625000000000000 attoFIL)
package money

import (
	"fmt"
	"math/big"
	"strings"

	"github.com/filecoin-project/go-state-types/abi"
	fbig "github.com/filecoin-project/go-state-types/big"
)

// Asset is what money is made of. Decimals is how many digits its unit has behind the point: one FIL is 10^18 attoFIL.
type Asset struct {
	Name     string // unique: FIL, usdc@base
	Symbol   string // for people: FIL, USDC
	Decimals int
}

// FIL is the asset of Filecoin's payment channels.
var FIL = Asset{Name: "FIL", Symbol: "FIL", Decimals: 18}

// String is the name of the asset.
func (a Asset) String() string { return a.Name }

// Amount is a number of the smallest units of an asset.
type Amount struct {
	Units abi.TokenAmount
	Asset Asset
}

// AttoFIL is an amount of FIL.
func AttoFIL(units abi.TokenAmount) Amount { return Amount{units, FIL} }

// AmountError says why a text is not an amount or a price.
type AmountError struct {
	Text string
	Why  string
}

// Error implements error.
func (e *AmountError) Error() string { return fmt.Sprintf("%q is not an amount: %s", e.Text, e.Why) }

// unit is a name for a power of ten of the smallest units of an asset.
type unit struct {
	name     string
	asset    Asset
	decimals int
}

// units are the names that a text may end with, those that end with another one first.
func units(known []Asset) []unit {
	out := []unit{{"attoFIL", FIL, 0}, {"nanoFIL", FIL, 9}, {"FIL", FIL, FIL.Decimals}}
	for _, a := range known {
		out = append(out, unit{a.Name, a, a.Decimals})
	}
	for _, a := range known {
		out = append(out, unit{a.Symbol, a, a.Decimals})
	}
	return out
}

// Parse reads 1000 (attoFIL), 20nanoFIL, 0.5FIL, or an amount of one of the other known assets by name or symbol: 0.04USDC, 0.04 usdc@base. A sign, an
// exponent, and more decimals than the asset has are errors (*AmountError).
func Parse(text string, known ...Asset) (Amount, error) {
	s := strings.TrimSpace(text)
	of := unit{"", FIL, 0}
	for _, u := range units(known) {
		if n := len(s) - len(u.name); u.name != "" && n >= 0 && strings.EqualFold(s[n:], u.name) {
			s, of = strings.TrimSpace(s[:n]), u
			break
		}
	}
	n, why := digits(s, of.decimals)
	if why != "" {
		return Amount{}, &AmountError{text, why}
	}
	return Amount{fbig.NewFromGo(n), of.asset}, nil
}

// maxDigits bounds the text of an amount: more than all money there is has.
const maxDigits = 78

// digits reads a decimal as so many units of 10^-decimals, or says what is wrong with it.
func digits(s string, decimals int) (n *big.Int, why string) {
	whole, part, _ := strings.Cut(s, ".")
	part = strings.TrimRight(part, "0")
	switch {
	case s == "" || s == ".":
		return nil, "there is no number"
	case strings.Trim(strings.Replace(s, ".", "", 1), "0123456789") != "":
		return nil, "write digits and at most one point, without sign or exponent, and FIL, nanoFIL or attoFIL behind them"
	case len(s) > maxDigits:
		return nil, fmt.Sprintf("%d digits are more than %d", len(s), maxDigits)
	case len(part) > decimals:
		return nil, fmt.Sprintf("it has %d decimals, and there are at most %d", len(part), decimals)
	}
	n, _ = new(big.Int).SetString("0"+whole+part+strings.Repeat("0", decimals-len(part)), 10)
	return n, ""
}

// MustParse is Parse for texts that are written in a program; it panics if one is wrong.
func MustParse(text string, known ...Asset) Amount {
	a, err := Parse(text, known...)
	if err != nil {
		panic(err)
	}
	return a
}

// Add is the sum of two amounts of one asset.
func (a Amount) Add(b Amount) (Amount, error) {
	if a.Asset != b.Asset {
		return Amount{}, fmt.Errorf("%s and %s do not add up", a.Asset, b.Asset)
	}
	return Amount{fbig.Add(a.number(), b.number()), a.Asset}, nil
}

// number is the units, 0 for those of a zero value.
func (a Amount) number() abi.TokenAmount {
	if a.Units.Int == nil {
		return fbig.Zero()
	}
	return a.Units
}

// Decimal is the amount in the asset with all its digits and no unit: 0.000625.
func (a Amount) Decimal() string { return decimal(a.number().Int, a.Asset.Decimals) }

// decimal writes n x 10^-decimals with all digits that are no trailing zeros.
func decimal(n *big.Int, decimals int) string {
	s, sign := new(big.Int).Abs(n).String(), ""
	if n.Sign() < 0 {
		sign = "-"
	}
	if len(s) <= decimals {
		s = strings.Repeat("0", decimals-len(s)+1) + s
	}
	whole, part := s[:len(s)-decimals], strings.TrimRight(s[len(s)-decimals:], "0")
	if part == "" {
		return sign + whole
	}
	return sign + whole + "." + part
}

// shownDigits is how many significant digits a table shows.
const shownDigits = 4

// cut writes n x 10^-decimals with four significant digits, the rest cut off; a number with more digits before the point keeps them all.
func cut(n *big.Int, decimals int) string {
	s := new(big.Int).Abs(n).String()
	over := min(len(s)-shownDigits, decimals)
	if over > 0 {
		p := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(over)), nil)
		n = new(big.Int).Mul(new(big.Int).Quo(n, p), p)
	}
	return decimal(n, decimals)
}

// Below these many attoFIL people read attoFIL, and nanoFIL.
var (
	attoBelow = big.NewInt(1e5)
	nanoBelow = big.NewInt(1e14)
)

// Table is the amount for a table: four significant digits and a unit, 0.0412 FIL, 20 nanoFIL. Digits behind are cut, not rounded.
func (a Amount) Table() string {
	n := a.number().Int
	if a.Asset == FIL {
		switch size := new(big.Int).Abs(n); {
		case size.Sign() == 0:
		case size.Cmp(attoBelow) < 0:
			return n.String() + " attoFIL"
		case size.Cmp(nanoBelow) < 0:
			return cut(n, 9) + " nanoFIL"
		}
	}
	return strings.TrimSpace(cut(n, a.Asset.Decimals) + " " + a.Asset.Symbol)
}

// Exact is the amount for a page of its own, with all its digits: 0.0412 FIL (41203330009871234 attoFIL), 0.041234 USDC.
func (a Amount) Exact() string {
	short := a.Table()
	switch n := a.number(); {
	case a.Asset != FIL:
		return strings.TrimSpace(a.Decimal() + " " + a.Asset.Symbol)
	case n.IsZero() || strings.HasSuffix(short, " attoFIL"):
		return short
	default:
		return fmt.Sprintf("%s (%s attoFIL)", short, n)
	}
}

// String is Table.
func (a Amount) String() string { return a.Table() }
