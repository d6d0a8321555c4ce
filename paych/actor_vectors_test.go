package paych_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	fvminit "github.com/filecoin-project/go-state-types/builtin/v8/init"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"
	cbg "github.com/whyrusleeping/cbor-gen"

	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/internal/wire"
	cpaych "github.com/cartage-dev/cartage/paych"
)

func addr(t *testing.T, s string) address.Address {
	a, err := address.NewFromString(s)
	require.NoError(t, err)
	return a
}

// TestActorVectors: parameters and states of the payment channel actor, built from the inputs, encoded and decoded.
func TestActorVectors(t *testing.T) {
	all := vectors(t)
	code, err := cid.Decode("bafk2bzaced4ow7mkwqihagodjusevamarugjrtjws6zhcieudvk5dcz6eb26u")
	require.NoError(t, err)
	voucher := func(name string) paych.SignedVoucher {
		v, err := cpaych.DecodeVoucher(all[name].data(t))
		require.NoError(t, err)
		return *v
	}
	var ctor struct{ From, To string }
	all["params-constructor"].inputs(t, &ctor)
	var ret struct{ ID, Robust string }
	all["return-init-exec"].inputs(t, &ret)
	var state struct{ From, To, ToSend string }
	all["actor-state"].inputs(t, &state)
	toSend, err := big.FromString(state.ToSend)
	require.NoError(t, err)
	for name, v := range map[string]interface {
		cbg.CBORMarshaler
		cbg.CBORUnmarshaler
	}{
		"params-update-channel-state":        &paych.UpdateChannelStateParams{Sv: voucher("voucher-plain-cbor"), Secret: []byte{}},
		"params-update-channel-state-secret": &paych.UpdateChannelStateParams{Sv: voucher("voucher-locked-cbor"), Secret: []byte("open sesame")},
		"params-constructor":                 &paych.ConstructorParams{From: addr(t, ctor.From), To: addr(t, ctor.To)},
		"lane-state":                         &paych.LaneState{Redeemed: big.NewInt(2097152), Nonce: 1},
		"params-init-exec":                   &fvminit.ExecParams{CodeCID: code, ConstructorParams: all["params-constructor"].data(t)},
		"return-init-exec":                   &fvminit.ExecReturn{IDAddress: addr(t, ret.ID), RobustAddress: addr(t, ret.Robust)},
		"actor-state":                        &paych.State{From: addr(t, state.From), To: addr(t, state.To), ToSend: toSend, LaneStates: code},
	} {
		t.Run(name, func(t *testing.T) {
			want := all[name].data(t)
			got, err := wire.Encode(v)
			require.NoError(t, err)
			require.Equal(t, hex.EncodeToString(want), hex.EncodeToString(got))
			require.NoError(t, wire.CheckClaims(want))
			require.NoError(t, wire.Decode(want, v))
			got, err = wire.Encode(v)
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
}

func TestAddressVectors(t *testing.T) {
	all := vectors(t)
	check := func(t *testing.T, name string, a address.Address) {
		var in struct{ CborHex, Mainnet, Testnet, PayloadHex string }
		all[name].inputs(t, &in)
		require.Equal(t, all[name].data(t), a.Bytes())
		require.Equal(t, in.PayloadHex, hex.EncodeToString(a.Payload()))
		for _, s := range []string{in.Mainnet, in.Testnet} {
			require.Equal(t, a, addr(t, s))
		}
		var b bytes.Buffer
		require.NoError(t, a.MarshalCBOR(&b))
		require.Equal(t, in.CborHex, hex.EncodeToString(b.Bytes()))
	}
	t.Run("address-channel-f2", func(t *testing.T) {
		a, err := address.NewActorAddress([]byte("payment channel vector 1"))
		require.NoError(t, err)
		check(t, "address-channel-f2", a)
	})
	t.Run("address-id", func(t *testing.T) {
		a, err := address.NewIDAddress(1234)
		require.NoError(t, err)
		check(t, "address-id", a)
	})
	t.Run("address-undefined-json", func(t *testing.T) {
		text, err := json.Marshal(address.Undef)
		require.NoError(t, err)
		require.Equal(t, all["address-undefined-json"].data(t), text)
		var a address.Address
		require.NoError(t, json.Unmarshal([]byte(`"<empty>"`), &a))
		require.Equal(t, address.Undef, a)
	})
	for _, name := range []string{"key-payer-secp256k1", "key-payee-secp256k1", "key-payer-bls"} {
		t.Run(name, func(t *testing.T) { check(t, name, key(t, all, name).Address) })
	}
}

func TestKatBLSChainMessage(t *testing.T) {
	v := vectors(t)["kat-bls-chain-message"]
	var in struct{ Address, MessageHex, PrivateKeyBase64 string }
	v.inputs(t, &in)
	private, err := base64.StdEncoding.DecodeString(in.PrivateKeyBase64)
	require.NoError(t, err)
	k, err := cpaych.KeyFromPrivate(cpaych.KeyBLS, private)
	require.NoError(t, err)
	require.Equal(t, addr(t, in.Address), k.Address)
	msg, err := hex.DecodeString(in.MessageHex)
	require.NoError(t, err)
	sig, err := k.Sign(msg)
	require.NoError(t, err)
	require.Equal(t, v.data(t), append([]byte{byte(sig.Type)}, sig.Data...))
	require.NoError(t, cpaych.Verify(sig, k.Address, msg))
}

func TestIntervalVectors(t *testing.T) {
	n := 0
	for name, v := range vectors(t) {
		if !strings.HasPrefix(name, "interval-count-") {
			continue
		}
		n++
		t.Run(name, func(t *testing.T) {
			var in struct{ Bytes, PaymentInterval, PaymentIntervalIncrease, Vouchers, LastIntervalBytes uint64 }
			v.inputs(t, &in)
			terms := accounting.Terms{Price: abi.NewTokenAmount(1), Interval: in.PaymentInterval, Increase: in.PaymentIntervalIncrease}
			count, last := terms.Vouchers(in.Bytes)
			require.Equal(t, in.Vouchers, count)
			require.Equal(t, in.LastIntervalBytes, last)
			require.Equal(t, v.data(t), binary.BigEndian.AppendUint64(nil, count))
		})
	}
	require.Equal(t, 5, n)
}
