package retrievalmarket_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/stretchr/testify/require"
	cbg "github.com/whyrusleeping/cbor-gen"

	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/message"
	"github.com/cartage-dev/cartage/internal/wire"
	"github.com/cartage-dev/cartage/piecestore"
	"github.com/cartage-dev/cartage/retrievalmarket"
)

type object interface {
	cbg.CBORMarshaler
	cbg.CBORUnmarshaler
}

// types lists, by the first part of a vector's name, what it holds.
var types = map[string]func() object{
	"Query":             func() object { return new(retrievalmarket.Query) },
	"QueryResponse":     func() object { return new(retrievalmarket.QueryResponse) },
	"Params":            func() object { return new(retrievalmarket.Params) },
	"DealProposal":      func() object { return new(retrievalmarket.DealProposal) },
	"DealPayment":       func() object { return new(retrievalmarket.DealPayment) },
	"DealResponse":      func() object { return new(retrievalmarket.DealResponse) },
	"SignedVoucher":     func() object { return new(paych.SignedVoucher) },
	"Ask":               func() object { return new(retrievalmarket.Ask) },
	"RetrievalPeer":     func() object { return new(retrievalmarket.RetrievalPeer) },
	"PaymentInfo":       func() object { return new(retrievalmarket.PaymentInfo) },
	"ChannelID":         func() object { return new(datatransfer.ChannelID) },
	"PieceInfo":         func() object { return new(piecestore.PieceInfo) },
	"CIDInfo":           func() object { return new(piecestore.CIDInfo) },
	"ClientDealState":   func() object { return new(retrievalmarket.ClientDealState) },
	"ProviderDealState": func() object { return new(retrievalmarket.ProviderDealState) },
}

type vector struct {
	Name        string
	Inputs      json.RawMessage
	Hex         string
	EncodeError string `json:"encode_error"`
}

func vectors(t testing.TB) []vector {
	data, err := os.ReadFile("../testdata/vectors/retrievalmarket.json")
	require.NoError(t, err)
	var out []vector
	require.NoError(t, json.Unmarshal(data, &out))
	require.Len(t, out, 147)
	return out
}

// TestVectors decodes and re-encodes every vector of the present generation; those of releases after it, which sort
// their keys, and of version 2 records, are decoded only.
func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		parts := strings.Split(v.Name, "/")
		late := parts[0] == "LateEncoder"
		if late {
			parts = parts[1:]
		}
		raw, err := hex.DecodeString(v.Hex)
		require.NoError(t, err)
		if parts[0] == "DTMessage1.1" {
			t.Run(v.Name, func(t *testing.T) {
				_, err := message.FromNet(bytes.NewReader(raw))
				require.NoError(t, err)
			})
			continue
		}
		mk, known := types[parts[0]]
		if !known || v.EncodeError != "" || len(parts) > 1 && parts[1] == "v0" {
			continue
		}
		t.Run(v.Name, func(t *testing.T) {
			o := mk()
			require.NoError(t, wire.Decode(raw, o))
			got, err := wire.Encode(o)
			require.NoError(t, err)
			if late || len(parts) > 1 && parts[1] == "v2" {
				again := mk()
				require.NoError(t, wire.Decode(got, again))
				require.Equal(t, o, again)
				return
			}
			require.Equal(t, v.Hex, hex.EncodeToString(got))
		})
	}
	for name, o := range map[string]object{"Query/undefined": &retrievalmarket.Query{}, "QueryResponse/undefined-address": &retrievalmarket.QueryResponse{}} {
		t.Run(name, func(t *testing.T) {
			_, err := wire.Encode(o)
			require.Error(t, err)
		})
	}
}

func FuzzDecode(f *testing.F) {
	for _, v := range vectors(f) {
		raw, _ := hex.DecodeString(v.Hex)
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, mk := range types {
			_ = wire.Decode(data, mk())
		}
	})
}

// TestM01MissingFieldsAreRefused: a message without an amount must not decode to a nil amount.
func TestM01MissingFieldsAreRefused(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, wire.WriteMap(&b, []wire.Field{wire.Uint("Status", new(uint64)), wire.Uint("ID", new(uint64)), wire.Text("Message", new(string))}))
	require.ErrorContains(t, wire.Decode(b.Bytes(), new(retrievalmarket.DealResponse)), "PaymentOwed")
	b.Reset()
	require.NoError(t, wire.WriteMap(&b, []wire.Field{wire.Uint("ID", new(uint64)), wire.Uint("ID", new(uint64))}))
	require.ErrorContains(t, wire.Decode(b.Bytes(), new(retrievalmarket.DealResponse)), "twice")
}
