package evm

import (
	"errors"
	"fmt"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// SignatureSize is that of r, s and v.
const SignatureSize = 65

// ErrSignature means that a signature is none that the chain would take.
var ErrSignature = errors.New("no valid signature")

// Key signs for an address.
type Key struct{ private *secp256k1.PrivateKey }

// NewKey is a key of 32 bytes, which must be in the range of the curve.
func NewKey(secret []byte) (*Key, error) {
	var n secp256k1.ModNScalar
	if len(secret) != 32 || n.SetByteSlice(secret) || n.IsZero() {
		return nil, errors.New("a private key has 32 bytes and is in the range of the curve")
	}
	return &Key{secp256k1.NewPrivateKey(&n)}, nil
}

// Address is whom the key signs for.
func (k *Key) Address() Address { return addressOf(k.private.PubKey()) }

func addressOf(p *secp256k1.PublicKey) (a Address) {
	h := Keccak(p.SerializeUncompressed()[1:])
	copy(a[:], h[12:])
	return a
}

// Sign signs a digest, always the same way (RFC 6979), with a low s.
func (k *Key) Sign(h Hash) []byte {
	compact := ecdsa.SignCompact(k.private, h[:], false) // v, r, s
	return append(compact[1:], compact[0])
}

// Recover is the address that signed a digest.
func Recover(h Hash, signature []byte) (Address, error) {
	if len(signature) != SignatureSize {
		return Address{}, fmt.Errorf("%w: it has %d bytes", ErrSignature, len(signature))
	}
	v := signature[64]
	if v != 27 && v != 28 {
		return Address{}, fmt.Errorf("%w: v is %d", ErrSignature, v)
	}
	var s secp256k1.ModNScalar
	if s.SetByteSlice(signature[32:64]) || s.IsZero() || s.IsOverHalfOrder() {
		return Address{}, fmt.Errorf("%w: s is not low", ErrSignature)
	}
	public, _, err := ecdsa.RecoverCompact(append([]byte{v}, signature[:64]...), h[:])
	if err != nil {
		return Address{}, fmt.Errorf("%w: nobody has made it", ErrSignature)
	}
	return addressOf(public), nil
}
