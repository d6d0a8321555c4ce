package x402_test

import (
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/gateway/x402"
)

func amount(t *testing.T, s string) x402.Amount {
	a, err := x402.ParseAmount(s)
	require.NoError(t, err)
	return a
}

func offer(t *testing.T) x402.Offer {
	return x402.Offer{Scheme: "batch-settlement", Network: "eip155:8453", Amount: amount(t, "27"), Asset: "0x8335", PayTo: "0xAB", MaxTimeoutSeconds: 600, Extra: map[string]any{"a": "b"}}
}

// TestCodecs: what is encoded is decoded as it was, of each header.
func TestCodecs(t *testing.T) {
	c := x402.Challenge{X402Version: 2, Error: "payment_required", Resource: x402.Resource{URL: "https://gw/ipfs/bafy"}, Accepts: []x402.Offer{offer(t)}}
	text, err := c.Encode()
	require.NoError(t, err)
	back, err := x402.DecodeChallenge(text)
	require.NoError(t, err)
	require.True(t, back.Accepts[0].Same(c.Accepts[0]))
	require.Equal(t, c.Resource, back.Resource)

	p := x402.Payment{X402Version: 2, Accepted: offer(t), Payload: json.RawMessage(`{"type":"voucher"}`)}
	text, err = p.Encode()
	require.NoError(t, err)
	paid, err := x402.DecodePayment(text)
	require.NoError(t, err)
	require.JSONEq(t, string(p.Payload), string(paid.Payload))

	r := x402.Receipt{Success: true, Network: "eip155:8453", Extra: map[string]any{"chargedAmount": "26"}}
	text, err = r.Encode()
	require.NoError(t, err)
	got, err := x402.DecodeReceipt(text)
	require.NoError(t, err)
	require.Equal(t, r, got)
}

// TestG_34_StrictDecoding: what is not what it should be is refused, and says why.
func TestG_34_StrictDecoding(t *testing.T) {
	const good = `{"x402Version":2,"accepted":{"scheme":"s","network":"n","amount":"27","asset":"a","payTo":"p","maxTimeoutSeconds":1},"payload":{"type":"voucher"}}`
	_, err := x402.DecodePayment(base64.StdEncoding.EncodeToString([]byte(good)))
	require.NoError(t, err)
	_, err = x402.DecodePayment(base64.RawURLEncoding.EncodeToString([]byte(good)))
	require.ErrorContains(t, err, "base64")
	for _, tc := range []struct{ name, old, new, want string }{
		{"version", `"x402Version":2`, `"x402Version":1`, "version 1"},
		{"a number for an amount", `"27"`, `27`, "decimal string"},
		{"null for an amount", `"27"`, `null`, "decimal string"},
		{"a sign", `"27"`, `"+27"`, "no amount"},
		{"negative", `"27"`, `"-27"`, "no amount"},
		{"a leading zero", `"27"`, `"027"`, "no amount"},
		{"NaN", `"27"`, `"NaN"`, "no amount"},
		{"2^256", `"27"`, `"` + new(big.Int).Lsh(big.NewInt(1), 256).String() + `"`, "no amount"},
		{"2^128", `"27"`, `"` + new(big.Int).Lsh(big.NewInt(1), 128).String() + `"`, "no amount"},
		{"a key twice", `"network":"n"`, `"network":"n","network":"m"`, "twice"},
		{"a key twice in another case", `"network":"n"`, `"network":"n","Network":"m"`, "twice"},
		{"bad UTF-8", `"n"`, "\"\xff\"", "UTF-8"},
		{"no payload", `{"type":"voucher"}`, `"voucher"`, "no payload"},
		{"something behind", `"voucher"}}`, `"voucher"}}{}`, "follows"},
		{"deep", `{"type":"voucher"}`, strings.Repeat(`{"a":`, 20) + "1" + strings.Repeat("}", 20), "deeper"},
		{"wide", `{"type":"voucher"}`, `{"a":[` + strings.Repeat("1,", 300) + `1]}`, "members"},
		{"cut", `}}`, `}`, "no JSON"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := strings.Replace(good, tc.old, tc.new, 1)
			require.NotEqual(t, good, text)
			_, err := x402.DecodePayment(base64.StdEncoding.EncodeToString([]byte(text)))
			require.ErrorContains(t, err, tc.want)
		})
	}
	_, err = x402.DecodePayment(strings.Repeat("A", x402.MaxPayment+4))
	require.ErrorContains(t, err, "above the limit")
	_, err = x402.DecodePayment(base64.StdEncoding.EncodeToString([]byte(strings.Repeat("[", 12<<10))))
	require.ErrorContains(t, err, "no JSON object")
}

// FuzzPayment: nothing panics, and what is taken is taken again as it is encoded.
func FuzzPayment(f *testing.F) {
	f.Add(`{"x402Version":2,"accepted":{"amount":"27"},"payload":{"type":"voucher"}}`)
	f.Add(strings.Repeat("[", 1<<10))
	f.Fuzz(func(t *testing.T, text string) {
		p, err := x402.DecodePayment(base64.StdEncoding.EncodeToString([]byte(text)))
		if err != nil || len(text) > 1<<10 { // escapes may make it longer than a header may be
			return
		}
		again, err := p.Encode()
		require.NoError(t, err)
		back, err := x402.DecodePayment(again)
		require.NoError(t, err)
		require.True(t, p.Accepted.Same(back.Accepted))
	})
}
