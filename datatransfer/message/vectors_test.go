package message_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/message"
)

type vector struct {
	Name   string
	Inputs json.RawMessage
	Hex    string
}

func vectors(t testing.TB) []vector {
	data, err := os.ReadFile("../../testdata/vectors/datatransfer.json")
	require.NoError(t, err)
	var out []vector
	require.NoError(t, json.Unmarshal(data, &out))
	return out
}

// refused are inputs that the reference takes and R-24 refuses.
var refused = map[string]bool{"edge/unknown-type": true}

// TestChecklist01 is number 1 of the checklist: every vector is read, those that we write are written to the byte, and made by
// the constructors from what they say. The records of version 2 are in package channels.
func TestChecklist01(t *testing.T) {
	seen := 0
	for _, v := range vectors(t) {
		seen++
		kind, _, _ := strings.Cut(v.Name, "/")
		raw, err := hex.DecodeString(v.Hex)
		require.NoError(t, err)
		switch kind {
		case "request", "response":
			t.Run(v.Name, func(t *testing.T) {
				m, err := message.FromNet(bytes.NewReader(raw))
				require.NoError(t, err)
				var out bytes.Buffer
				require.NoError(t, m.ToNet(&out))
				require.Equal(t, v.Hex, hex.EncodeToString(out.Bytes()))
				out.Reset()
				require.NoError(t, build(t, v).ToNet(&out))
				require.Equal(t, v.Hex, hex.EncodeToString(out.Bytes()), "made by the constructor")
			})
		case "ext":
			t.Run(v.Name, func(t *testing.T) { extensions(t, v, raw) })
		case "legacy-order":
			t.Run(v.Name, func(t *testing.T) {
				m, err := message.FromNet(bytes.NewReader(raw))
				require.NoError(t, err)
				var out bytes.Buffer
				require.NoError(t, m.ToNet(&out))
				require.Len(t, out.Bytes(), len(raw), "same content, other order")
			})
		case "invalid":
			t.Run(v.Name, func(t *testing.T) {
				_, err := message.FromNet(bytes.NewReader(raw))
				require.Error(t, err)
			})
		case "edge":
			t.Run(v.Name, func(t *testing.T) {
				_, err := message.FromNet(bytes.NewReader(raw))
				if v.Name == "edge/transfer-id-high-bit" {
					require.Error(t, message.UpdateRequest(1<<63+5, true).ToNet(io.Discard))
				}
				if refused[v.Name] || strings.Contains(string(v.Inputs), "decode error") {
					require.Error(t, err)
				} else {
					require.NoError(t, err)
				}
			})
		case "channelid":
			t.Run(v.Name, func(t *testing.T) {
				var c datatransfer.ChannelID
				require.NoError(t, c.UnmarshalCBOR(bytes.NewReader(raw)))
				var out bytes.Buffer
				require.NoError(t, c.MarshalCBOR(&out))
				require.Equal(t, v.Hex, hex.EncodeToString(out.Bytes()))
			})
		case "state":
			roundTripState(t, v, raw)
		default:
			t.Errorf("vector %s is of an unknown kind", v.Name)
		}
	}
	require.Equal(t, 72, seen)
}

func roundTripState(t *testing.T, v vector, raw []byte) {
	var out bytes.Buffer
	switch v.Name {
	case "state/log":
		t.Run(v.Name, func(t *testing.T) {
			var l datatransfer.Log
			require.NoError(t, l.UnmarshalCBOR(bytes.NewReader(raw)))
			require.NoError(t, l.MarshalCBOR(&out))
			require.Equal(t, v.Hex, hex.EncodeToString(out.Bytes()))
		})
	case "state/stage":
		t.Run(v.Name, func(t *testing.T) {
			var s datatransfer.ChannelStage
			require.NoError(t, s.UnmarshalCBOR(bytes.NewReader(raw)))
			require.NoError(t, s.MarshalCBOR(&out))
			require.Equal(t, v.Hex, hex.EncodeToString(out.Bytes()))
		})
	case "state/stages":
		t.Run(v.Name, func(t *testing.T) {
			var s datatransfer.ChannelStages
			require.NoError(t, s.UnmarshalCBOR(bytes.NewReader(raw)))
			require.NoError(t, s.MarshalCBOR(&out))
			require.Equal(t, v.Hex, hex.EncodeToString(out.Bytes()))
		})
	}
}

func FuzzFromNet(f *testing.F) {
	for _, v := range vectors(f) {
		raw, _ := hex.DecodeString(v.Hex)
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := message.FromNet(bytes.NewReader(data))
		if err != nil {
			return
		}
		var out bytes.Buffer
		require.NoError(t, m.ToNet(&out))
		again, err := message.FromNet(&out)
		require.NoError(t, err)
		require.Equal(t, m.TransferID(), again.TransferID())
	})
}
