package x402

import (
	"encoding/json"
	"fmt"
	"math/big"
)

// maxAmountBits bounds amounts: they are below 2^128.
const maxAmountBits = 128

// Amount is a number of the smallest unit of an asset; the zero value is 0. In JSON it is a decimal string. It is never changed once made.
type Amount struct{ v *big.Int }

// NewAmount is an amount of a number, which must not be negative or above 2^128 - 1.
func NewAmount(v *big.Int) (Amount, error) {
	if v == nil {
		return Amount{}, nil
	}
	if v.Sign() < 0 || v.BitLen() > maxAmountBits {
		return Amount{}, fmt.Errorf("%s is no amount: amounts are from 0 to 2^128-1", v)
	}
	return Amount{new(big.Int).Set(v)}, nil
}

// ParseAmount reads decimal digits without a sign or a leading zero.
func ParseAmount(s string) (Amount, error) {
	bad := len(s) == 0 || len(s) > 39 || len(s) > 1 && s[0] == '0'
	for i := 0; i < len(s) && !bad; i++ {
		bad = s[i] < '0' || s[i] > '9'
	}
	if bad {
		return Amount{}, fmt.Errorf("%.60q is no amount: write decimal digits, without sign and leading zeros", s)
	}
	v, _ := new(big.Int).SetString(s, 10)
	return NewAmount(v)
}

// Int is the amount as a number of its own.
func (a Amount) Int() *big.Int {
	if a.v == nil {
		return new(big.Int)
	}
	return new(big.Int).Set(a.v)
}

// Cmp compares two amounts.
func (a Amount) Cmp(b Amount) int { return a.Int().Cmp(b.Int()) }

// IsZero reports whether it is nothing.
func (a Amount) IsZero() bool { return a.v == nil || a.v.Sign() == 0 }

// String is the decimal number.
func (a Amount) String() string { return a.Int().String() }

// MarshalJSON writes a decimal string.
func (a Amount) MarshalJSON() ([]byte, error) { return json.Marshal(a.String()) }

// UnmarshalJSON reads a decimal string; a JSON number is none.
func (a *Amount) UnmarshalJSON(data []byte) error {
	var s *string
	if err := json.Unmarshal(data, &s); err != nil || s == nil {
		return fmt.Errorf("%.60s is no amount: it is a decimal string", data)
	}
	v, err := ParseAmount(*s)
	*a = v
	return err
}
