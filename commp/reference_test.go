package commp_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/commp"
	"github.com/cartage-dev/cartage/shared"
)

// reference is the commitment bit by bit: after each 254 bits come two of zero, the bytes are the leaves of a binary tree whose nodes are
// sha2-256 without their two highest bits.
func reference(data []byte) []byte {
	padded := 128
	for padded/128*127 < len(data) {
		padded *= 2
	}
	src := make([]byte, padded/128*127)
	copy(src, data)
	bits := make([]byte, padded)
	out := 0
	for in := range len(src) * 8 {
		if in > 0 && in%254 == 0 {
			out += 2
		}
		bits[out/8] |= src[in/8] >> (in % 8) & 1 << (out % 8)
		out++
	}
	level := make([][]byte, 0, padded/32)
	for i := 0; i < padded; i += 32 {
		level = append(level, bits[i:i+32])
	}
	for len(level) > 1 {
		var up [][]byte
		for i := 0; i < len(level); i += 2 {
			h := sha256.Sum256(append(append([]byte(nil), level[i]...), level[i+1]...))
			h[31] &= 0x3f
			up = append(up, h[:])
		}
		level = up
	}
	return level[0]
}

func random(n int, seed uint64) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

func requireReference(t *testing.T, data []byte, p commp.Piece) {
	t.Helper()
	got, err := commp.Commitment(p.CID)
	require.NoError(t, err)
	require.Equal(t, reference(data), got, "%d bytes", len(data))
}

// TestT_P1 : pieces of zeros of every size, and one payload with every number of workers; the other vectors are TestVectors.
func TestT_P1(t *testing.T) {
	data, err := os.ReadFile("../testdata/vectors/commp.json")
	require.NoError(t, err)
	var v struct {
		Zero []struct {
			Padded uint64 `json:"padded_piece_size"`
			Piece  string `json:"piece_cid"`
		} `json:"zero_pieces"`
	}
	require.NoError(t, json.Unmarshal(data, &v))
	require.Len(t, v.Zero, 30)
	small := commp.Piece{CID: cid.MustParse(v.Zero[0].Piece), Padded: commp.Padded(v.Zero[0].Padded)}
	for _, z := range v.Zero {
		p, err := commp.PadUp(small, commp.Padded(z.Padded))
		require.NoError(t, err)
		require.Equal(t, z.Piece, p.CID.String())
		if z.Padded > 32<<20 {
			continue
		}
		p, err = commp.Compute(bytes.NewReader(make([]byte, z.Padded/128*127)))
		require.NoError(t, err)
		require.Equal(t, z.Piece, p.CID.String())
		require.Equal(t, z.Padded, uint64(p.Padded))
	}
	big := random(9<<20+77, 1)
	want, err := commp.Compute(bytes.NewReader(big))
	require.NoError(t, err)
	for workers := 1; workers <= 5; workers++ {
		w := commp.NewWriter(workers)
		_, err := w.Write(big)
		require.NoError(t, err)
		p, err := w.Sum()
		require.NoError(t, err)
		require.Equal(t, want, p)
	}
}

// TestT_P2 : sizes around multiples of 127 and 254 bytes and around powers of two, against the commitment bit by bit.
func TestT_P2(t *testing.T) {
	var sizes []int
	for _, at := range []int{127, 254, 127 * 3, 254 * 7, 1 << 10, 1 << 14, 127 * 128, 127 << 10} {
		for d := -2; d <= 2; d++ {
			sizes = append(sizes, at+d)
		}
	}
	for i, n := range sizes {
		data := random(n, uint64(i))
		p, err := commp.Compute(bytes.NewReader(data))
		require.NoError(t, err)
		requireReference(t, data, p)
	}
}

// TestT_P3 : however the bytes come, a byte, a quad or odd numbers at a time, the commitment is the same.
func TestT_P3(t *testing.T) {
	data := random(100_001, 3)
	want, err := commp.Compute(bytes.NewReader(data))
	require.NoError(t, err)
	for _, step := range []int{1, 3, 127, 128, 1009, 99_999} {
		w := commp.NewWriter(2)
		for rest := data; len(rest) > 0; {
			n := min(step, len(rest))
			k, err := w.Write(rest[:n])
			require.NoError(t, err)
			require.Equal(t, n, k)
			rest = rest[n:]
		}
		p, err := w.Sum()
		require.NoError(t, err)
		require.Equal(t, want, p, "%d at a time", step)
	}
}

// FuzzT_P4 compares with the commitment bit by bit.
func FuzzT_P4(f *testing.F) {
	f.Add([]byte("x"), uint(1))
	f.Add(bytes.Repeat([]byte{0xff}, 300), uint(7))
	f.Fuzz(func(t *testing.T, data []byte, step uint) {
		if len(data) == 0 || len(data) > 1<<16 {
			return
		}
		w := commp.NewWriter(1)
		for rest := data; len(rest) > 0; {
			n := min(int(step%1000)+1, len(rest))
			_, err := w.Write(rest[:n])
			require.NoError(t, err)
			rest = rest[n:]
		}
		p, err := w.Sum()
		require.NoError(t, err)
		requireReference(t, data, p)
	})
}

// TestT_P5 : a large sparse file needs no more memory than its workers (R-P3).
func TestT_P5(t *testing.T) {
	size := int64(1 << 30)
	if testing.Short() {
		size = 1 << 27
	}
	f, err := os.CreateTemp(t.TempDir(), "sparse")
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, f.Truncate(size))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	p, err := commp.Compute(f)
	require.NoError(t, err)
	runtime.ReadMemStats(&after)
	require.EqualValues(t, size, p.Payload)
	require.Less(t, int64(after.Sys)-int64(before.Sys), int64(64<<20))
}

// TestR_P7 : a cancelled computation ends, and leaves no goroutine (TestMain looks).
func TestR_P7(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	_, err := commp.Compute(shared.Reader(ctx, reads(func(p []byte) (int, error) {
		if n += len(p); n > 20<<20 {
			cancel()
		}
		return len(p), nil
	})))
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, n, 40<<20)
}

type reads func(p []byte) (int, error)

func (r reads) Read(p []byte) (int, error) { return r(p) }

var _ io.Reader = reads(nil)
