package paych

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"

	bls12381 "github.com/consensys/gnark-crypto/ecc/bls12-381"
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"github.com/filecoin-project/go-address"
	gocrypto "github.com/filecoin-project/go-crypto"
	"github.com/filecoin-project/go-state-types/crypto"
	"golang.org/x/crypto/blake2b"
)

// Kinds of keys in the Lotus export format.
const (
	KeySecp256k1 = "secp256k1"
	KeyBLS       = "bls"
)

var blsDST = []byte("BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_NUL_")

// Key signs for one address. The private part is never printed.
type Key struct {
	Address address.Address
	kind    string
	private []byte // secp256k1: big-endian; BLS: little-endian
}

// keyInfo is the wallet export form.
type keyInfo struct {
	Type       json.RawMessage
	PrivateKey []byte
}

// NewKey makes a secp256k1 key.
func NewKey() (*Key, error) { return NewKeyOf(KeySecp256k1) }

// NewKeyOf makes a key of a kind. Vouchers that a BLS key signs cost those who check them twelve times the work.
func NewKeyOf(kind string) (*Key, error) {
	switch kind {
	case KeySecp256k1:
		k, err := secp256k1.GeneratePrivateKey()
		if err != nil {
			return nil, err
		}
		return KeyFromPrivate(kind, k.Serialize())
	case KeyBLS:
		var s fr.Element
		if _, err := s.SetRandom(); err != nil {
			return nil, err
		}
		b := s.Bytes()
		slices.Reverse(b[:])
		return KeyFromPrivate(kind, b[:])
	}
	return nil, errKind(kind)
}

func errKind(kind string) error {
	return fmt.Errorf("key type %q is not supported: use %s or %s", kind, KeySecp256k1, KeyBLS)
}

// KeyFromPrivate makes a key from its private part.
func KeyFromPrivate(kind string, private []byte) (*Key, error) {
	k := &Key{kind: kind, private: slices.Clone(private)}
	var err error
	switch kind {
	case KeySecp256k1:
		var s secp256k1.ModNScalar
		if len(private) != 32 || s.SetByteSlice(private) || s.IsZero() {
			return nil, errors.New("secp256k1 private key must be 32 bytes and in range")
		}
		k.Address, err = address.NewSecp256k1Address(secp256k1.PrivKeyFromBytes(private).PubKey().SerializeUncompressed())
	case KeyBLS:
		s, serr := k.scalar()
		if serr != nil {
			return nil, serr
		}
		_, _, g1, _ := bls12381.Generators()
		var pub bls12381.G1Affine
		pub.ScalarMultiplication(&g1, s)
		b := pub.Bytes()
		k.Address, err = address.NewBLSAddress(b[:])
	default:
		return nil, errKind(kind)
	}
	if err != nil {
		return nil, err
	}
	return k, nil
}

// scalar is the private part of a BLS key as a number.
func (k *Key) scalar() (*big.Int, error) {
	if len(k.private) != 32 {
		return nil, errors.New("BLS private key must be 32 bytes")
	}
	be := slices.Clone(k.private)
	slices.Reverse(be)
	s := new(big.Int).SetBytes(be)
	if s.Sign() == 0 || s.Cmp(fr.Modulus()) >= 0 {
		return nil, errors.New("BLS private key is out of range")
	}
	return s, nil
}

// String is the address: a key never prints its secret.
func (k *Key) String() string { return k.Address.String() }

// GoString is the address too.
func (k *Key) GoString() string { return k.Address.String() }

// MarshalJSON writes the address only.
func (k *Key) MarshalJSON() ([]byte, error) { return json.Marshal(k.Address.String()) }

// Export is the hex form that a Lotus wallet imports.
func (k *Key) Export() string {
	data, _ := json.Marshal(struct {
		Type       string
		PrivateKey []byte
	}{k.kind, k.private})
	return hex.EncodeToString(data)
}

// ImportKey reads what Export wrote, its JSON, or the older numeric types.
func ImportKey(s []byte) (*Key, error) {
	if data, err := hex.DecodeString(string(s)); err == nil {
		s = data
	}
	var ki keyInfo
	if err := json.Unmarshal(s, &ki); err != nil {
		return nil, fmt.Errorf("key is neither a wallet export nor its JSON: %w", err)
	}
	var kind string
	if err := json.Unmarshal(ki.Type, &kind); err != nil {
		switch string(ki.Type) {
		case "1":
			kind = KeySecp256k1
		case "2":
			kind = KeyBLS
		default:
			kind = string(ki.Type)
		}
	}
	return KeyFromPrivate(kind, ki.PrivateKey)
}

// Sign signs a message; secp256k1 signatures are deterministic with a low S.
func (k *Key) Sign(msg []byte) (*crypto.Signature, error) {
	if k.kind == KeyBLS {
		s, err := k.scalar()
		if err != nil {
			return nil, err
		}
		h, err := bls12381.HashToG2(msg, blsDST)
		if err != nil {
			return nil, err
		}
		var sig bls12381.G2Affine
		sig.ScalarMultiplication(&h, s)
		b := sig.Bytes()
		return &crypto.Signature{Type: crypto.SigTypeBLS, Data: b[:]}, nil
	}
	digest := blake2b.Sum256(msg)
	c := ecdsa.SignCompact(secp256k1.PrivKeyFromBytes(k.private), digest[:], false)
	data := append(slices.Clone(c[1:]), c[0]-27)
	return &crypto.Signature{Type: crypto.SigTypeSecp256k1, Data: data}, nil
}

// Verify checks a signature by the key of an f1 or f3 address; the type must be that of the address.
func Verify(sig *crypto.Signature, signer address.Address, msg []byte) error {
	switch {
	case signer.Protocol() == address.SECP256K1 && sig.Type == crypto.SigTypeSecp256k1:
		if len(sig.Data) != 65 || sig.Data[64] > 3 {
			return fmt.Errorf("%w: not 65 bytes with a recovery id of 0 to 3", ErrBadSignature)
		}
		digest := blake2b.Sum256(msg)
		pub, err := gocrypto.EcRecover(digest[:], sig.Data)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrBadSignature, err)
		}
		a, err := address.NewSecp256k1Address(pub)
		if err != nil || a != signer {
			return fmt.Errorf("%w: signed by %s, want %s", ErrBadSignature, a, signer)
		}
		return nil
	case signer.Protocol() == address.BLS && sig.Type == crypto.SigTypeBLS:
		return verifyBLS(sig.Data, signer.Payload(), msg)
	}
	return fmt.Errorf("%w: type %d does not fit signer %s", ErrBadSignature, sig.Type, signer)
}

func verifyBLS(sig, pub, msg []byte) error {
	var p bls12381.G1Affine
	var s bls12381.G2Affine
	if len(pub) != 48 || len(sig) != 96 || pub[0]&0x80 == 0 || sig[0]&0x80 == 0 {
		return fmt.Errorf("%w: BLS points must be compressed", ErrBadSignature)
	}
	if _, err := p.SetBytes(pub); err != nil || p.IsInfinity() {
		return fmt.Errorf("%w: bad BLS public key", ErrBadSignature)
	}
	if _, err := s.SetBytes(sig); err != nil {
		return fmt.Errorf("%w: bad BLS signature", ErrBadSignature)
	}
	h, err := bls12381.HashToG2(msg, blsDST)
	if err != nil {
		return err
	}
	_, _, g1, _ := bls12381.Generators()
	var neg bls12381.G1Affine
	neg.Neg(&g1)
	ok, err := bls12381.PairingCheck([]bls12381.G1Affine{p, neg}, []bls12381.G2Affine{h, s})
	if err != nil || !ok {
		return ErrBadSignature
	}
	return nil
}
