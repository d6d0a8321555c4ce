package evm

import (
	"encoding/binary"
	"fmt"
	"math/big"
)

// Types of the scheme and of tokens, as EIP-712 encodes them.
const (
	typeDomain        = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
	typeChannel       = "ChannelConfig(address payer,address payerAuthorizer,address receiver,address receiverAuthorizer,address token,uint40 withdrawDelay,bytes32 salt)"
	typeVoucher       = "Voucher(bytes32 channelId,uint128 maxClaimableAmount)"
	typeClaimBatch    = "ClaimBatch(ClaimEntry[] claims)" + typeClaimEntry
	typeClaimEntry    = "ClaimEntry(bytes32 channelId,uint128 maxClaimableAmount,uint128 totalClaimed)"
	typeRefund        = "Refund(bytes32 channelId,uint256 nonce,uint128 amount)"
	typeAuthorization = "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)

// The name and version of the settlement contract's domain.
const (
	settlementName    = "x402 Batch Settlement"
	settlementVersion = "1"
)

// Words of the ABI.

func wordOfAddress(a Address) (w Hash) {
	copy(w[12:], a[:])
	return w
}

func wordOfUint(n uint64) (w Hash) {
	binary.BigEndian.PutUint64(w[24:], n)
	return w
}

// wordOf is a number of at most so many bits.
func wordOf(n *big.Int, bits int) (w Hash, err error) {
	if n == nil || n.Sign() < 0 || n.BitLen() > bits {
		return w, fmt.Errorf("%s is no number of %d bits", n, bits)
	}
	n.FillBytes(w[:])
	return w, nil
}

// structHash is the hash of a struct of a type with its members as words.
func structHash(name string, members ...Hash) Hash {
	t := Keccak([]byte(name))
	parts := [][]byte{t[:]}
	for i := range members {
		parts = append(parts, members[i][:])
	}
	return Keccak(parts...)
}

// typedDomain is whom typed data is for.
type typedDomain struct {
	name, version string
	chain         uint64
	contract      Address
}

func (d typedDomain) separator() Hash {
	return structHash(typeDomain, Keccak([]byte(d.name)), Keccak([]byte(d.version)), wordOfUint(d.chain), wordOfAddress(d.contract))
}

// digest is what is signed of a struct.
func (d typedDomain) digest(s Hash) Hash {
	separator := d.separator()
	return Keccak([]byte{0x19, 0x01}, separator[:], s[:])
}
