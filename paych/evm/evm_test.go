package evm_test

import (
	"bytes"
	"encoding/hex"
	"math/big"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cartage-dev/cartage/paych/evm"
)

func key(t require.TestingT, b byte) *evm.Key {
	k, err := evm.NewKey(bytes.Repeat([]byte{b}, 32))
	require.NoError(t, err)
	return k
}

func address(t *testing.T, s string) evm.Address {
	a, err := evm.ParseAddress(s)
	require.NoError(t, err)
	require.Equal(t, s, a.String())
	return a
}

// TestVectors (T-07): the vectors of the specification, key by key and hash by hash.
func TestVectors(t *testing.T) {
	payer, receiver := key(t, 1), key(t, 2)
	require.Equal(t, "0x1a642f0E3c3aF545E7AcBD38b07251B3990914F1", payer.Address().String())
	require.Equal(t, "0x5050A4F4b3f9338C3472dcC01A87C76A144b3c9c", receiver.Address().String())
	usdc := address(t, "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913")
	d := evm.Domain{ChainID: 8453, Contract: evm.Settlement()}
	require.Equal(t, "0x4020074e9dF2ce1deE5A9C1b5c3f541D02a10003", evm.Settlement().String())
	require.Equal(t, "0x4020806089470a89826cB9fB1f4059150b550004", evm.Collector().String())
	id := d.ChannelID(evm.ChannelConfig{Payer: payer.Address(), PayerAuthorizer: payer.Address(), Receiver: receiver.Address(), ReceiverAuthorizer: receiver.Address(), Token: usdc, WithdrawDelay: 900})
	require.Equal(t, "0x93292d94d9c64eff1de184c02e12f50a11ad450c98568b7df0d1c566d1133e5b", id.String())
	digest, err := d.VoucherDigest(id, big.NewInt(1000))
	require.NoError(t, err)
	require.Equal(t, "0x8890097f50fa5020292b81d47d69a06e1a00dd5d564e2a5172da692439c13c83", digest.String())
	signature := payer.Sign(digest)
	require.Equal(t, "1978a01635f7a7900f048213255279a3c541f66ada88a40378d9f36524482995", hex.EncodeToString(signature[:32]))
	require.Equal(t, "7a6be547e639f8d47c26edf98f138ca3906aa2521fd0869b276f51b8141d3b0a", hex.EncodeToString(signature[32:64]))
	require.Equal(t, byte(28), signature[64])
	who, err := evm.Recover(digest, signature)
	require.NoError(t, err)
	require.Equal(t, payer.Address(), who)
	nonce, err := evm.DepositNonce(id, big.NewInt(1))
	require.NoError(t, err)
	require.Equal(t, "0x670e6d61421b3229534b827b7d3355b8d36dc824910d58524e388eb88e48f7b2", nonce.String())
}

// TestG_58_Recover: what the contract refuses is refused: a high s, another v, another length, zeros; and what was signed is recovered.
func TestG_58_Recover(t *testing.T) {
	order, _ := new(big.Int).SetString("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16)
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key")
		k, err := evm.NewKey(secret)
		if err != nil {
			return
		}
		digest := evm.Keccak(rapid.SliceOf(rapid.Byte()).Draw(t, "message"))
		s := k.Sign(digest)
		who, err := evm.Recover(digest, s)
		require.NoError(t, err)
		require.Equal(t, k.Address(), who)
		high := bytes.Clone(s)
		new(big.Int).Sub(order, new(big.Int).SetBytes(s[32:64])).FillBytes(high[32:64])
		high[64] = 27 + 28 - s[64]
		for _, bad := range [][]byte{high, s[:64], append(bytes.Clone(s), 0), nil, make([]byte, 65), append(bytes.Clone(s[:64]), s[64]-27)} {
			_, err := evm.Recover(digest, bad)
			require.ErrorIs(t, err, evm.ErrSignature)
		}
		other := bytes.Clone(s)
		other[rapid.IntRange(0, 63).Draw(t, "byte")] ^= byte(rapid.IntRange(1, 255).Draw(t, "flip"))
		if who, err := evm.Recover(digest, other); err == nil {
			require.NotEqual(t, k.Address(), who)
		}
	})
	_, err := evm.NewKey(make([]byte, 32))
	require.Error(t, err)
	_, err = evm.NewKey(order.Bytes())
	require.Error(t, err)
}

// TestNumbers: what does not fit its type is refused, and every member counts.
func TestNumbers(t *testing.T) {
	d := evm.Domain{ChainID: 1, Contract: evm.Settlement()}
	tooLarge := new(big.Int).Lsh(big.NewInt(1), 128)
	for _, n := range []*big.Int{nil, big.NewInt(-1), tooLarge} {
		_, err := d.VoucherDigest(evm.Hash{}, n)
		require.Error(t, err)
		_, err = d.RefundDigest(evm.Hash{}, big.NewInt(0), n)
		require.Error(t, err)
		_, err = d.ClaimDigest([]evm.ClaimEntry{{Maximum: n, TotalClaimed: big.NewInt(0)}})
		require.Error(t, err)
	}
	seen := map[evm.Hash]bool{}
	note := func(h evm.Hash, err error) {
		require.NoError(t, err)
		require.False(t, seen[h])
		seen[h] = true
	}
	one, two := big.NewInt(1), big.NewInt(2)
	note(d.VoucherDigest(evm.Hash{}, one))
	note(d.VoucherDigest(evm.Hash{}, two))
	note(d.VoucherDigest(evm.Hash{1}, one))
	note(evm.Domain{ChainID: 2, Contract: d.Contract}.VoucherDigest(evm.Hash{}, one))
	note(d.RefundDigest(evm.Hash{}, one, two))
	note(d.RefundDigest(evm.Hash{}, two, one))
	note(d.ClaimDigest(nil))
	note(d.ClaimDigest([]evm.ClaimEntry{{Maximum: one, TotalClaimed: two}}))
	note(d.ClaimDigest([]evm.ClaimEntry{{Maximum: two, TotalClaimed: one}}))
	token := evm.TokenDomain{Name: "USD Coin", Version: "2", ChainID: 8453}
	note(token.AuthorizationDigest(evm.Authorization{Value: one, ValidBefore: 5}))
	note(token.AuthorizationDigest(evm.Authorization{Value: one, ValidAfter: 5}))
}

// TestTexts: addresses and hashes are read strictly.
func TestTexts(t *testing.T) {
	for _, s := range []string{"", "0x", "833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA0291", "0x833589fcD6eDb6E08f4c7C32D4f71b54bdA02913", "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA0291g"} {
		_, err := evm.ParseAddress(s)
		require.Error(t, err, s)
	}
	for _, s := range []string{"0x833589fcd6edb6e08f4c7c32d4f71b54bda02913", "0x833589FCD6EDB6E08F4C7C32D4F71B54BDA02913"} {
		a, err := evm.ParseAddress(s)
		require.NoError(t, err)
		require.Equal(t, "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", a.String())
	}
	_, err := evm.ParseHash("0x12")
	require.Error(t, err)
	require.True(t, evm.Address{}.IsZero())
}

// FuzzRecover: nothing panics.
func FuzzRecover(f *testing.F) {
	f.Add(make([]byte, 32), make([]byte, 65))
	f.Fuzz(func(_ *testing.T, digest, signature []byte) {
		var h evm.Hash
		copy(h[:], digest)
		_, _ = evm.Recover(h, signature)
	})
}
