package evm

import (
	"errors"
	"math/big"
)

// Transaction is one of EIP-1559. Fees are wei for a unit of gas.
type Transaction struct {
	ChainID, Nonce, Gas uint64
	Tip, MaxFee         *big.Int
	To                  Address
	Data                []byte
}

// Sign is the transaction as it is broadcast, and its hash.
func (t Transaction) Sign(k *Key) (raw []byte, hash Hash, err error) {
	if t.Tip == nil || t.MaxFee == nil || t.Tip.Sign() < 0 || t.MaxFee.Cmp(t.Tip) < 0 {
		return nil, hash, errors.New("a transaction has a fee, and a tip that is not above it")
	}
	fields := [][]byte{rlpUint(t.ChainID), rlpUint(t.Nonce), rlpBytes(t.Tip.Bytes()), rlpBytes(t.MaxFee.Bytes()), rlpUint(t.Gas), rlpBytes(t.To[:]), rlpUint(0), rlpBytes(t.Data), rlpList()}
	signature := k.Sign(Keccak([]byte{typeFeeMarket}, rlpList(fields...)))
	r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:64])
	fields = append(fields, rlpUint(uint64(signature[64]-27)), rlpBytes(r.Bytes()), rlpBytes(s.Bytes()))
	raw = append([]byte{typeFeeMarket}, rlpList(fields...)...)
	return raw, Keccak(raw), nil
}

// typeFeeMarket is the first byte of a transaction of EIP-1559.
const typeFeeMarket = 2

func rlpUint(n uint64) []byte { return rlpBytes(new(big.Int).SetUint64(n).Bytes()) }

// Offsets of the prefixes of RLP, and the longest item whose length is in its prefix.
const (
	rlpString = 0x80
	rlpOpen   = 0xc0
	rlpShort  = 55
)

func rlpBytes(b []byte) []byte {
	if len(b) == 1 && b[0] < rlpString {
		return b
	}
	return append(rlpPrefix(len(b), rlpString), b...)
}

func rlpList(items ...[]byte) []byte {
	n := 0
	for _, i := range items {
		n += len(i)
	}
	out := rlpPrefix(n, rlpOpen)
	for _, i := range items {
		out = append(out, i...)
	}
	return out
}

func rlpPrefix(n int, offset byte) []byte {
	if n <= rlpShort {
		return []byte{offset + byte(n)}
	}
	length := big.NewInt(int64(n)).Bytes()
	return append([]byte{offset + rlpShort + byte(len(length))}, length...)
}
