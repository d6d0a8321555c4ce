package paych_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/filecoin-project/go-state-types/crypto"
	"github.com/stretchr/testify/require"

	cpaych "github.com/cartage-dev/cartage/paych"
)

type vector struct {
	Name   string
	Inputs json.RawMessage
	Hex    string
}

func (v vector) data(t *testing.T) []byte {
	t.Helper()
	b, err := hex.DecodeString(v.Hex)
	require.NoError(t, err)
	return b
}

func (v vector) inputs(t *testing.T, into any) {
	t.Helper()
	require.NoError(t, json.Unmarshal(v.Inputs, into))
}

func vectors(t *testing.T) map[string]vector {
	t.Helper()
	raw, err := os.ReadFile("../testdata/vectors/payments.json")
	require.NoError(t, err)
	var list []vector
	require.NoError(t, json.Unmarshal(raw, &list))
	out := map[string]vector{}
	for _, v := range list {
		out[v.Name] = v
	}
	require.Len(t, out, len(list))
	return out
}

type keyInputs struct {
	KeyType, PrivateKeyHex, WalletExportHex string
}

func key(t *testing.T, all map[string]vector, name string) *cpaych.Key {
	t.Helper()
	var in keyInputs
	all[name].inputs(t, &in)
	private, err := hex.DecodeString(in.PrivateKeyHex)
	require.NoError(t, err)
	k, err := cpaych.KeyFromPrivate(in.KeyType, private)
	require.NoError(t, err)
	return k
}

func TestKeyVectors(t *testing.T) {
	all := vectors(t)
	for _, name := range []string{"key-payer-secp256k1", "key-payee-secp256k1", "key-payer-bls"} {
		t.Run(name, func(t *testing.T) {
			var in keyInputs
			all[name].inputs(t, &in)
			k := key(t, all, name)
			require.Equal(t, all[name].data(t), k.Address.Bytes())
			require.Equal(t, in.WalletExportHex, k.Export())
			again, err := cpaych.ImportKey([]byte(in.WalletExportHex))
			require.NoError(t, err)
			require.Equal(t, k.Address, again.Address)
		})
	}
	for _, name := range []string{"kat-secp256k1-sign", "kat-bls-sign"} {
		t.Run(name, func(t *testing.T) {
			var in struct{ Address, MessageHex, WalletExportHex string }
			all[name].inputs(t, &in)
			k, err := cpaych.ImportKey([]byte(in.WalletExportHex))
			require.NoError(t, err)
			want, err := address.NewFromString(in.Address)
			require.NoError(t, err)
			require.Equal(t, want, k.Address)
			msg, err := hex.DecodeString(in.MessageHex)
			require.NoError(t, err)
			sig, err := k.Sign(msg)
			require.NoError(t, err)
			require.Equal(t, all[name].data(t), append([]byte{byte(sig.Type)}, sig.Data...))
			require.NoError(t, cpaych.Verify(sig, k.Address, msg))
			require.ErrorIs(t, cpaych.Verify(sig, k.Address, append(msg, 0)), cpaych.ErrBadSignature)
		})
	}
}

func TestVoucherVectors(t *testing.T) {
	all := vectors(t)
	n := 0
	for name, v := range all {
		base, ok := strings.CutSuffix(name, "-cbor")
		if !ok || !strings.HasPrefix(name, "voucher-") {
			continue
		}
		n++
		t.Run(base, func(t *testing.T) {
			sv, err := cpaych.DecodeVoucher(v.data(t))
			require.NoError(t, err)
			again, err := cpaych.EncodeVoucher(sv)
			require.NoError(t, err)
			require.Equal(t, v.data(t), again)

			var in struct{ Text string }
			v.inputs(t, &in)
			text, err := cpaych.VoucherText(sv)
			require.NoError(t, err)
			require.Equal(t, in.Text, text)
			parsed, err := cpaych.ParseVoucherText(text)
			require.NoError(t, err)
			require.True(t, cpaych.SameVoucher(sv, parsed))

			msg, err := cpaych.SigningBytes(sv)
			require.NoError(t, err)
			require.Equal(t, all[base+"-signing-bytes"].data(t), msg)
			signed(t, all, base, sv)
		})
	}
	require.Equal(t, 7, n)
}

// signed signs the voucher anew and expects the bytes of the vector.
func signed(t *testing.T, all map[string]vector, base string, sv *paych.SignedVoucher) {
	t.Helper()
	var in struct{ Signer string }
	all[base+"-signature"].inputs(t, &in)
	k := key(t, all, in.Signer)
	require.NoError(t, cpaych.VerifyVoucher(sv, k.Address))
	fresh := *sv
	fresh.Signature = nil
	require.NoError(t, cpaych.SignVoucher(k, &fresh))
	require.Equal(t, all[base+"-signature"].data(t), append([]byte{byte(fresh.Signature.Type)}, fresh.Signature.Data...))
}

// TestBadVouchers names the rule that each malformed or unacceptable voucher breaks.
func TestBadVouchers(t *testing.T) {
	all := vectors(t)
	payer := key(t, all, "key-payer-secp256k1").Address
	plain, err := cpaych.DecodeVoucher(all["voucher-plain-cbor"].data(t))
	require.NoError(t, err)
	rules := map[string]error{
		"decode error": cpaych.ErrDecode, "re-encoding differs from the input": cpaych.ErrDecode, "signature invalid": cpaych.ErrBadSignature,
		"no signature": cpaych.ErrNoSignature, "lane over limit": cpaych.ErrLaneLimit, "negative amount": cpaych.ErrAmount,
		"min settle height over limit": cpaych.ErrLocked, "time locked": cpaych.ErrLocked, "channel mismatch": cpaych.ErrWrongChannel,
	}
	n := 0
	for name, v := range all {
		if !strings.HasPrefix(name, "bad-") {
			continue
		}
		n++
		t.Run(name, func(t *testing.T) {
			var in struct{ Expect string }
			v.inputs(t, &in)
			want, ok := rules[in.Expect]
			require.True(t, ok, in.Expect)
			sv, err := cpaych.DecodeVoucher(v.data(t))
			if err == nil {
				err = cpaych.CheckStateless(sv, plain.ChannelAddr)
			}
			if err == nil {
				err = cpaych.VerifyVoucher(sv, payer)
			}
			require.ErrorIs(t, err, want)
		})
	}
	require.Equal(t, 15, n)
	t.Run("malleable-high-s", func(t *testing.T) {
		sv, err := cpaych.DecodeVoucher(all["malleable-high-s"].data(t))
		require.NoError(t, err)
		require.NoError(t, cpaych.VerifyVoucher(sv, payer))
		require.True(t, cpaych.SameVoucher(sv, plain))
		require.False(t, bytes.Equal(sv.Signature.Data, plain.Signature.Data))
		require.Equal(t, crypto.SigTypeSecp256k1, sv.Signature.Type)
	})
}

func FuzzDecodeVoucher(f *testing.F) {
	raw, err := os.ReadFile("../testdata/vectors/payments.json")
	require.NoError(f, err)
	var list []vector
	require.NoError(f, json.Unmarshal(raw, &list))
	for _, v := range list {
		if b, err := hex.DecodeString(v.Hex); err == nil {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := cpaych.DecodeVoucher(data)
		if err != nil {
			return
		}
		again, err := cpaych.EncodeVoucher(v)
		require.NoError(t, err)
		require.Equal(t, data, again)
	})
}
