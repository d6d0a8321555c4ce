package storagedeal

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/filecoin-project/go-state-types/builtin/v9/market"
	"github.com/stretchr/testify/require"
	cbg "github.com/whyrusleeping/cbor-gen"

	"github.com/cartage-dev/cartage/internal/wire"
)

type vector struct {
	Name   string         `json:"name"`
	Inputs map[string]any `json:"inputs"`
	Hex    string         `json:"hex"`
	Cid    string         `json:"cid"`
}

func vectors(t testing.TB) (out []vector) {
	t.Helper()
	data, err := os.ReadFile("../testdata/vectors/storage-deal.json")
	require.NoError(t, err)
	var file struct {
		Vectors []vector `json:"vectors"`
	}
	require.NoError(t, json.Unmarshal(data, &file))
	require.NotEmpty(t, file.Vectors)
	return file.Vectors
}

// kindOf is the message that a vector is of.
func kindOf(name string) (message, form) {
	f := form(strings.Contains(name, "legacy"))
	switch {
	case strings.HasPrefix(name, "data-ref"):
		return &DataRef{}, f
	case strings.HasPrefix(name, "proposal-message"):
		return &Proposal{}, f
	case strings.HasPrefix(name, "response-"):
		return &Response{}, f
	case strings.HasPrefix(name, "signed-response"):
		return &SignedResponse{}, f
	case name == "ask-request":
		return &AskRequest{}, f
	case name == "ask-response":
		return &AskResponse{}, f
	case name == "deal-status-request":
		return &DealStatusRequest{}, f
	case strings.HasPrefix(name, "deal-status-response"):
		return &DealStatusResponse{}, f
	}
	return nil, f
}

// TestT_T6 : every vector decodes, and encodes to the same bytes; also from maps whose keys stand in another order.
func TestT_T6(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			data, err := hex.DecodeString(v.Hex)
			require.NoError(t, err)
			m, f := kindOf(v.Name)
			if m == nil {
				proposals(t, v, data)
				return
			}
			require.NoError(t, decodeMessage(data, m, f))
			holds(t, m, v.Inputs)
			out, err := encodeMessage(m, f)
			require.NoError(t, err)
			if strings.HasSuffix(v.Name, "old-key-order") {
				require.NotEqual(t, v.Hex, hex.EncodeToString(out))
				return
			}
			require.Equal(t, v.Hex, hex.EncodeToString(out))
			if f == asArrays {
				return
			}
			again, _ := kindOf(v.Name)
			require.NoError(t, decodeMessage(turned(t, data), again, f), "keys in reverse order")
			out, err = encodeMessage(again, f)
			require.NoError(t, err)
			require.Equal(t, v.Hex, hex.EncodeToString(out))
		})
	}
}

// holds checks the values of a decoded message against the plain ones of the vector.
func holds(t *testing.T, m message, in map[string]any) {
	t.Helper()
	want := func(name string, got any) {
		if v, ok := in[name]; ok {
			if f, isNumber := v.(float64); isNumber {
				v = fmt.Sprintf("%.0f", f)
			}
			require.Equal(t, fmt.Sprint(v), fmt.Sprint(got), name)
		}
	}
	switch m := m.(type) {
	case *DataRef:
		want("TransferType", m.TransferType)
		want("Root", m.Root)
		want("PieceSize", uint64(m.PieceSize))
		want("RawBlockSize", m.RawBlockSize)
		if in["PieceCid"] != nil {
			want("PieceCid", m.PieceCid)
		} else {
			require.Nil(t, m.PieceCid)
		}
	case *Response:
		want("State", uint64(m.State))
		want("Message", m.Message)
		want("Proposal", m.Proposal)
	case *SignedResponse:
		want("State", uint64(m.Response.State))
		want("Message", m.Response.Message)
		want("Proposal", m.Response.Proposal)
		require.NotEmpty(t, m.Signed)
	case *AskResponse:
		want("Price", m.Ask.Ask.Price)
		want("MinPieceSize", uint64(m.Ask.Ask.MinPieceSize))
		want("SeqNo", m.Ask.Ask.SeqNo)
		want("Expiry", int64(m.Ask.Ask.Expiry))
	case *DealStatusResponse:
		want("DealID", uint64(m.DealState.DealID))
		want("ProposalCid", m.DealState.ProposalCid)
		want("FastRetrieval", m.DealState.FastRetrieval)
	}
}

func proposals(t *testing.T, v vector, data []byte) {
	t.Helper()
	var out bytes.Buffer
	if strings.HasPrefix(v.Name, "client-deal-proposal") {
		var p market.ClientDealProposal
		require.NoError(t, p.UnmarshalCBOR(bytes.NewReader(data)))
		require.NoError(t, p.MarshalCBOR(&out))
		c, err := ProposalCID(&p)
		require.NoError(t, err)
		require.Equal(t, v.Cid, c.String())
	} else {
		require.True(t, strings.HasPrefix(v.Name, "deal-proposal"), v.Name)
		var p market.DealProposal
		require.NoError(t, p.UnmarshalCBOR(bytes.NewReader(data)))
		require.NoError(t, p.MarshalCBOR(&out))
		require.Equal(t, v.Inputs["Client"], p.Client.String())
		require.Equal(t, v.Inputs["ProviderCollateral"], p.ProviderCollateral.String())
		require.Equal(t, v.Inputs["PieceCID"], p.PieceCID.String())
		require.Equal(t, v.Inputs["LabelKind"] == "string", p.Label.IsString())
	}
	require.Equal(t, v.Hex, hex.EncodeToString(out.Bytes()))
}

// turned is a message with the keys of each of its maps in reverse order.
func turned(t testing.TB, data []byte) []byte {
	t.Helper()
	r := cbg.NewCborReader(bytes.NewReader(data))
	maj, n, err := r.ReadHeader()
	require.NoError(t, err)
	if maj != cbg.MajMap {
		return data
	}
	var pairs [][]byte
	for range n {
		key, err := wire.ReadRaw(r, MaxMessage, maxDepth)
		require.NoError(t, err)
		value, err := wire.ReadRaw(r, MaxMessage, maxDepth)
		require.NoError(t, err)
		pairs = append([][]byte{append(key, turned(t, value)...)}, pairs...)
	}
	var b bytes.Buffer
	require.NoError(t, cbg.NewCborWriter(&b).WriteMajorTypeHeader(maj, n))
	for _, p := range pairs {
		b.Write(p)
	}
	return b.Bytes()
}

// TestT_T7Decode: a message that is cut at any byte, or too large, is an error and never a panic.
func TestT_T7Decode(t *testing.T) {
	for _, v := range vectors(t) {
		data, err := hex.DecodeString(v.Hex)
		require.NoError(t, err)
		m, f := kindOf(v.Name)
		if m == nil {
			continue
		}
		for n := range data {
			m, _ = kindOf(v.Name)
			require.Error(t, decodeMessage(data[:n], m, f), "%s cut after %d bytes", v.Name, n)
		}
		require.ErrorContains(t, decodeMessage(append(bytes.Clone(data), 0), m, f), "1 bytes after the message")
	}
	require.ErrorContains(t, decodeMessage(make([]byte, MaxMessage+1), &Response{}, asMaps), "the limit is 65536")
}

func FuzzMessages(f *testing.F) {
	for _, v := range vectors(f) {
		data, _ := hex.DecodeString(v.Hex)
		f.Add(data, false)
		f.Add(data, true)
	}
	f.Fuzz(func(t *testing.T, data []byte, legacy bool) {
		for _, m := range []message{&Proposal{}, &SignedResponse{}, &AskRequest{}, &AskResponse{}, &DealStatusRequest{}, &DealStatusResponse{}} {
			if decodeMessage(data, m, form(legacy)) != nil {
				continue
			}
			if _, err := encodeMessage(m, form(legacy)); err != nil && len(data) < MaxMessage/2 {
				t.Fatalf("%T decoded and does not encode: %v", m, err)
			}
		}
	})
}
