package retrievalmarket_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/traversal/selector"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"
	cbg "github.com/whyrusleeping/cbor-gen"

	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/message"
	"github.com/cartage-dev/cartage/discovery"
	"github.com/cartage-dev/cartage/internal/wire"
	"github.com/cartage-dev/cartage/piecestore"
	"github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/shared"
)

type object interface {
	cbg.CBORMarshaler
	cbg.CBORUnmarshaler
}

// types lists, by the first part of a vector's name, what it holds.
var types = map[string]func() object{
	"RetrievalPeers":    func() object { return new(discovery.RetrievalPeers) },
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
	run := 0
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
		if !known || v.EncodeError != "" {
			continue
		}
		run++
		t.Run(v.Name, func(t *testing.T) {
			o := mk()
			if len(parts) > 1 && parts[1] == "v0" {
				tupled(t, raw, o)
				return
			}
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
	require.Equal(t, 147-7-10-2-2, run, "messages of the transfer, texts, selectors and errors have tests of their own")
}

// tupled decodes and encodes the tuple generation.
func tupled(t *testing.T, raw []byte, o object) {
	r, w := bytes.NewReader(raw), new(bytes.Buffer)
	switch v := o.(type) {
	case retrievalmarket.Tupled:
		require.NoError(t, retrievalmarket.ReadTuple(r, v))
		require.NoError(t, retrievalmarket.WriteTuple(w, v))
	case interface {
		MarshalTuple(io.Writer) error
		UnmarshalTuple(io.Reader) error
	}:
		require.NoError(t, v.UnmarshalTuple(r))
		require.NoError(t, v.MarshalTuple(w))
	default:
		t.Fatalf("%T has no tuple form", o)
	}
	require.Zero(t, r.Len())
	require.Equal(t, hex.EncodeToString(raw), hex.EncodeToString(w.Bytes()))
}

// TestEncodeErrors: what must not be sent is refused, with the words of the vectors.
func TestEncodeErrors(t *testing.T) {
	n := 0
	for _, v := range vectors(t) {
		if v.EncodeError == "" {
			continue
		}
		n++
		t.Run(v.Name, func(t *testing.T) {
			o := types[strings.Split(v.Name, "/")[0]]()
			if q, ok := o.(*retrievalmarket.QueryResponse); ok {
				q.MinPricePerByte, q.UnsealPrice = big.Zero(), big.Zero()
			}
			_, err := wire.Encode(o)
			words := strings.TrimPrefix(v.EncodeError, "failed to write cid field t.PayloadCID: ")
			require.ErrorContains(t, err, words)
		})
	}
	require.Equal(t, 2, n)
}

// TestFixtures: the texts that the other vectors are made of.
func TestFixtures(t *testing.T) {
	n := 0
	for _, v := range vectors(t) {
		parts := strings.Split(v.Name, "/")
		if parts[0] != "Fixture" {
			continue
		}
		n++
		t.Run(v.Name, func(t *testing.T) {
			var in struct{ Text string }
			require.NoError(t, json.Unmarshal(v.Inputs, &in))
			var got []byte
			switch parts[1] {
			case "address":
				a, err := address.NewFromString(in.Text)
				require.NoError(t, err)
				got = a.Bytes()
			case "cid":
				c, err := cid.Decode(in.Text)
				require.NoError(t, err)
				got = c.Bytes()
			case "peer":
				p, err := peer.Decode(in.Text)
				require.NoError(t, err)
				got = []byte(p)
			default:
				t.Fatalf("fixture of kind %s", parts[1])
			}
			require.Equal(t, v.Hex, hex.EncodeToString(got))
		})
	}
	require.Equal(t, 10, n)
}

// TestSelectors: the selector of everything is the bytes that peers compare with, and the others are read.
func TestSelectors(t *testing.T) {
	n := 0
	for _, v := range vectors(t) {
		if !strings.HasPrefix(v.Name, "Selector/") {
			continue
		}
		n++
		t.Run(v.Name, func(t *testing.T) {
			raw, err := hex.DecodeString(v.Hex)
			require.NoError(t, err)
			node, err := retrievalmarket.DecodeNode(&cbg.Deferred{Raw: raw})
			require.NoError(t, err)
			_, err = selector.ParseSelector(node)
			require.NoError(t, err)
			again, err := ipld.Encode(node, dagcbor.Encode)
			require.NoError(t, err)
			same, err := retrievalmarket.DecodeNode(&cbg.Deferred{Raw: again})
			require.NoError(t, err)
			require.True(t, shared.SameNode(node, same))
			if v.Name == "Selector/all" {
				all, err := ipld.Encode(shared.AllSelector(), dagcbor.Encode)
				require.NoError(t, err)
				require.Equal(t, v.Hex, hex.EncodeToString(all))
			}
		})
	}
	require.Equal(t, 2, n)
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

// TestM42DeepSelector: a path of 80 segments is carried; what is nested deeper than any path is refused and costs nothing.
func TestM42DeepSelector(t *testing.T) {
	deep := func(levels int) *cbg.Deferred {
		return &cbg.Deferred{Raw: append(bytes.Repeat([]byte{0x81}, levels), 0x01)}
	}
	p := &retrievalmarket.DealProposal{ID: 1, PayloadCID: payloadCid(t), Params: retrievalmarket.NewParamsV0(big.NewInt(1), 1<<20, 0)}
	p.Selector = deep(480)
	data, err := wire.Encode(p)
	require.NoError(t, err)
	require.NoError(t, wire.Decode(data, new(retrievalmarket.DealProposal)))
	p.Selector = deep(5000)
	data, err = wire.Encode(p)
	require.NoError(t, err)
	require.ErrorContains(t, wire.Decode(data, new(retrievalmarket.DealProposal)), "nested too deep")
}

func payloadCid(t *testing.T) cid.Cid {
	c, err := cid.Decode("bafybeibom4e27dn747gvvozpofusjbeokj5ujbwdbrcqtmhevkaxdgdtgu")
	require.NoError(t, err)
	return c
}
