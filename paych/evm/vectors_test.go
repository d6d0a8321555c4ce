package evm_test

import (
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/paych/evm"
)

// vector is a random case as viem 2.48.11 computes it: digests in all, calls and a transaction in the first twenty.
type vector struct {
	Chain                                       uint64
	Key, Address, ID, Voucher, Claim, Refund    string
	Config                                      evm.ChannelConfig
	Maximum, Total, Nonce, Salt                 string
	ValidAfter, ValidBefore                     uint64
	Signature, Authorization                    string
	PackDeposit, PackClaim, PackSettle          string
	PackRefund, PackWithdraw, PackFinalize, Raw string
	Fee, Tip, TxHash                            string
	Gas, TxNonce                                uint64
}

func number(t *testing.T, s string) *big.Int {
	v, ok := new(big.Int).SetString(s, 10)
	require.True(t, ok, s)
	return v
}

func unhex(t *testing.T, s string) []byte {
	b, err := hex.DecodeString(strings.TrimPrefix(s, "0x"))
	require.NoError(t, err)
	return b
}

func vectors(t *testing.T) (out []vector) {
	f, err := os.Open("testdata/vectors.json.gz")
	require.NoError(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	require.NoError(t, json.NewDecoder(z).Decode(&out))
	require.Len(t, out, 200)
	return out
}

// TestDigestsAgainstViem (T-07): 200 random cases of each digest, and the addresses and signatures of their keys.
func TestDigestsAgainstViem(t *testing.T) {
	for _, v := range vectors(t) {
		k, err := evm.NewKey(unhex(t, v.Key))
		require.NoError(t, err)
		require.Equal(t, v.Address, k.Address().String())
		d := evm.Domain{ChainID: v.Chain, Contract: evm.Settlement()}
		id := d.ChannelID(v.Config)
		require.Equal(t, v.ID, id.String())
		require.Equal(t, v.Signature, "0x"+hex.EncodeToString(k.Sign(id)))
		maximum, total := number(t, v.Maximum), number(t, v.Total)
		digest := func(want string) func(evm.Hash, error) {
			return func(h evm.Hash, err error) {
				require.NoError(t, err)
				require.Equal(t, want, h.String())
			}
		}
		digest(v.Voucher)(d.VoucherDigest(id, maximum))
		digest(v.Claim)(d.ClaimDigest([]evm.ClaimEntry{{id, maximum, total}, {id, total, maximum}}))
		digest(v.Refund)(d.RefundDigest(id, number(t, v.Nonce), maximum))
		digest(v.Authorization)(evm.TokenDomain{Name: "USD Coin", Version: "2", ChainID: v.Chain, Token: v.Config.Token}.AuthorizationDigest(
			evm.Authorization{From: v.Config.Payer, To: evm.Collector(), Value: maximum, ValidAfter: v.ValidAfter, ValidBefore: v.ValidBefore, Nonce: id}))
		back, err := evm.DecodeConfig(v.Config.Encode())
		require.NoError(t, err)
		require.Equal(t, v.Config, back)
	}
}

// TestCallsAgainstViem (T-07): calls and signed transactions, byte by byte.
func TestCallsAgainstViem(t *testing.T) {
	for _, v := range vectors(t)[:20] {
		k, err := evm.NewKey(unhex(t, v.Key))
		require.NoError(t, err)
		signature, maximum, total := unhex(t, v.Signature), number(t, v.Maximum), number(t, v.Total)
		packed := func(want string) func([]byte, error) {
			return func(data []byte, err error) {
				require.NoError(t, err)
				require.Equal(t, want, "0x"+hex.EncodeToString(data))
			}
		}
		packed(v.PackDeposit)(evm.PackDeposit(v.Config, evm.Deposit{Amount: maximum, ValidAfter: v.ValidAfter, ValidBefore: v.ValidBefore, Salt: number(t, v.Salt), Signature: signature}))
		packed(v.PackClaim)(evm.PackClaim([]evm.Claim{{v.Config, maximum, signature, total}, {v.Config, total, signature, maximum}}, signature))
		packed(v.PackSettle)(evm.PackSettle(v.Config.Receiver, v.Config.Token), nil)
		packed(v.PackRefund)(evm.PackRefund(v.Config, maximum, number(t, v.Nonce), signature))
		packed(v.PackWithdraw)(evm.PackWithdraw(v.Config, maximum))
		packed(v.PackFinalize)(evm.PackFinalize(v.Config), nil)
		raw, hash, err := evm.Transaction{ChainID: v.Chain, Nonce: v.TxNonce, Gas: v.Gas, Tip: number(t, v.Tip), MaxFee: number(t, v.Fee), To: v.Config.Receiver, Data: unhex(t, v.PackSettle)}.Sign(k)
		packed(v.Raw)(raw, err)
		require.Equal(t, v.TxHash, hash.String())
	}
}

const goodPayload = `{"type":"deposit","channelConfig":{"payer":"0x1a642f0E3c3aF545E7AcBD38b07251B3990914F1","payerAuthorizer":"0x1a642f0E3c3aF545E7AcBD38b07251B3990914F1","receiver":"0x5050A4F4b3f9338C3472dcC01A87C76A144b3c9c",` +
	`"receiverAuthorizer":"0x5050A4F4b3f9338C3472dcC01A87C76A144b3c9c","token":"0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913","withdrawDelay":900,"salt":"0x0000000000000000000000000000000000000000000000000000000000000000"},` +
	`"voucher":{"channelId":"0x93292d94d9c64eff1de184c02e12f50a11ad450c98568b7df0d1c566d1133e5b","maxClaimableAmount":"1000","signature":"0xSIG"},` +
	`"deposit":{"amount":"5000","authorization":{"erc3009Authorization":{"validAfter":"0","validBefore":"1900000000","salt":"0x0000000000000000000000000000000000000000000000000000000000000001","signature":"0xSIG"}}}}`

// TestPayloads: what is encoded is decoded as it was, and what is malformed is refused by what it is.
func TestPayloads(t *testing.T) {
	good := strings.ReplaceAll(goodPayload, "SIG", strings.Repeat("ab", 65))
	var p evm.Payload
	require.NoError(t, json.Unmarshal([]byte(good), &p))
	require.EqualValues(t, 5000, p.Deposit.Amount.Int64())
	text, err := json.Marshal(p)
	require.NoError(t, err)
	require.JSONEq(t, good, string(text))
	for _, tc := range []struct {
		old, new string
		want     error
	}{
		{`"type":"deposit"`, `"type":"gift"`, evm.ErrPayloadType},
		{`"1000"`, `1000`, evm.ErrVoucherPayload},
		{`"1000"`, `"01000"`, evm.ErrDepositPayload},
		{`"1000"`, `"-1"`, evm.ErrDepositPayload},
		{`"1000"`, `"` + new(big.Int).Lsh(big.NewInt(1), 128).String() + `"`, evm.ErrDepositPayload},
		{`"deposit":{`, `"other":{`, evm.ErrDepositPayload},
		{`erc3009Authorization`, `permit2Authorization`, evm.ErrNoERC3009},
		{`"withdrawDelay":900`, `"withdrawDelay":"900"`, evm.ErrVoucherPayload},
		{`"withdrawDelay":900`, `"withdrawDelay":1099511627776`, evm.ErrVoucherPayload},
		{`abab"}}}`, `ab"}}}`, evm.ErrDepositPayload},
		{`0x833589fCD6e`, `0x833589fCD6E`, evm.ErrVoucherPayload},
		{`"voucher":{`, `"other":{`, evm.ErrDepositPayload},
	} {
		bad := strings.Replace(good, tc.old, tc.new, 1)
		require.NotEqual(t, good, bad)
		require.ErrorIs(t, json.Unmarshal([]byte(bad), &p), tc.want, tc.new)
	}
}
