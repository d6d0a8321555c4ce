package commp_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cartage-dev/cartage/commp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type vectors struct {
	Vectors []struct {
		Name    string
		Kind    string
		Seed    uint64
		Payload int    `json:"payload_size"`
		Padded  uint64 `json:"padded_piece_size"`
		Piece   string `json:"piece_cid"`
	}
	PadUp []struct {
		Name     string
		From     string `json:"from_piece_cid"`
		FromSize uint64 `json:"from_padded_size"`
		To       uint64 `json:"to_padded_size"`
		Piece    string `json:"piece_cid"`
	} `json:"pad_up"`
}

func payload(kind string, seed uint64, n int) []byte {
	b := make([]byte, n, n+32)
	switch {
	case kind == "incrementing":
		for i := range b {
			b[i] = byte(i)
		}
	case kind == "ff":
		for i := range b {
			b[i] = 0xff
		}
	case strings.HasPrefix(kind, "sha256"):
		b = b[:0]
		for i := uint64(0); len(b) < n; i++ {
			h := sha256.Sum256(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, seed), i))
			b = append(b, h[:]...)
		}
		b = b[:n]
	}
	return b
}

func TestVectors(t *testing.T) {
	data, err := os.ReadFile("../testdata/vectors/commp.json")
	require.NoError(t, err)
	var v vectors
	require.NoError(t, json.Unmarshal(data, &v))
	for _, tc := range v.Vectors {
		t.Run(tc.Name, func(t *testing.T) {
			p, err := commp.Compute(bytes.NewReader(payload(tc.Kind, tc.Seed, tc.Payload)))
			require.NoError(t, err)
			require.Equal(t, tc.Piece, p.CID.String())
			require.Equal(t, tc.Padded, uint64(p.Padded))
			require.Equal(t, tc.Payload, int(p.Payload))
		})
	}
	for _, tc := range v.PadUp {
		t.Run(tc.Name, func(t *testing.T) {
			p, err := commp.PadUp(commp.Piece{CID: cid.MustParse(tc.From), Padded: commp.Padded(tc.FromSize)}, commp.Padded(tc.To))
			require.NoError(t, err)
			require.Equal(t, tc.Piece, p.CID.String())
		})
	}
}

func BenchmarkCompute(b *testing.B) {
	data := payload("incrementing", 0, 64<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		_, _ = commp.Compute(bytes.NewReader(data))
	}
}
