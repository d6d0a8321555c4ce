package evm

import (
	"encoding/hex"
	"fmt"
	"strings"

	"golang.org/x/crypto/sha3"
)

// Hash is a keccak of 256 bits, or a word of 32 bytes.
type Hash [32]byte

// String is 0x and 64 digits.
func (h Hash) String() string { return "0x" + hex.EncodeToString(h[:]) }

// ParseHash reads 0x and 64 digits.
func ParseHash(s string) (h Hash, err error) {
	err = parseHex(h[:], s)
	return h, err
}

// Address is an account or a contract.
type Address [20]byte

// IsZero reports whether it is nobody's.
func (a Address) IsZero() bool { return a == Address{} }

// String is the form of EIP-55: the case of its letters is a checksum.
func (a Address) String() string {
	text := []byte(hex.EncodeToString(a[:]))
	sum := Keccak(text)
	for i, c := range text {
		nibble := sum[i/2] >> 4
		if i%2 == 1 {
			nibble = sum[i/2] & 15
		}
		if c >= 'a' && nibble >= 8 {
			text[i] = c - 'a' + 'A'
		}
	}
	return "0x" + string(text)
}

// ParseAddress reads 0x and 40 digits. Where letters of both cases are there, they have to be the checksum.
func ParseAddress(s string) (a Address, err error) {
	if err = parseHex(a[:], s); err != nil {
		return a, err
	}
	mixed := strings.ToLower(s[2:]) != s[2:] && strings.ToUpper(s[2:]) != s[2:]
	if mixed && a.String() != s {
		return Address{}, fmt.Errorf("%q is mistyped: its checksum is wrong", s)
	}
	return a, nil
}

func parseHex(to []byte, s string) error {
	digits, ok := strings.CutPrefix(s, "0x")
	if !ok || len(digits) != 2*len(to) {
		return fmt.Errorf("%.80q is not 0x and %d hexadecimal digits", s, 2*len(to))
	}
	if _, err := hex.Decode(to, []byte(digits)); err != nil {
		return fmt.Errorf("%.80q is not 0x and %d hexadecimal digits", s, 2*len(to))
	}
	return nil
}

// Keccak is the hash of EVM chains over the parts of a message.
func Keccak(parts ...[]byte) (h Hash) {
	k := sha3.NewLegacyKeccak256()
	for _, p := range parts {
		k.Write(p)
	}
	k.Sum(h[:0])
	return h
}
