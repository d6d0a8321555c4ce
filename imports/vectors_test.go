package imports_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/commp"
	"github.com/cartage-dev/cartage/imports"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stream is the hash stream of the vectors.
func stream(seed, n int) []byte {
	var b []byte
	for i := 0; len(b) < n; i++ {
		in := make([]byte, 16)
		in[0], in[8], in[9], in[10], in[11] = byte(seed), byte(i), byte(i>>8), byte(i>>16), byte(i>>24)
		sum := sha256.Sum256(in)
		b = append(b, sum[:]...)
	}
	return b[:n]
}

// TestVectors: root, dense CAR and piece of each file of the vectors, from the profile of the reference node.
func TestVectors(t *testing.T) {
	data, err := os.ReadFile("../testdata/vectors/unixfs-import.json")
	require.NoError(t, err)
	var file struct {
		Vectors []struct {
			Name   string `json:"name"`
			Seed   int    `json:"seed"`
			Size   int    `json:"file_size"`
			Root   string `json:"root"`
			Car    int64  `json:"car_size"`
			Sum    string `json:"car_sha256"`
			Padded uint64 `json:"padded_piece_size"`
			Piece  string `json:"piece_cid"`
			Blocks int    `json:"blocks_in_car"`
		} `json:"vectors"`
	}
	require.NoError(t, json.Unmarshal(data, &file))
	require.Len(t, file.Vectors, 10)
	for _, v := range file.Vectors {
		t.Run(v.Name, func(t *testing.T) {
			if testing.Short() && v.Size > 50_000_000 {
				t.Skip("large")
			}
			dir := t.TempDir()
			src, dest := filepath.Join(dir, "in"), filepath.Join(dir, "out.car")
			require.NoError(t, os.WriteFile(src, stream(v.Seed, v.Size), 0o600))
			root, err := imports.WriteCAR(t.Context(), blob.OS{}, src, dest, imports.Lotus(), nil)
			require.NoError(t, err)
			require.Equal(t, v.Root, root.String())
			car, err := os.ReadFile(dest)
			require.NoError(t, err)
			require.Len(t, car, int(v.Car))
			sum := sha256.Sum256(car)
			require.Equal(t, v.Sum, hex.EncodeToString(sum[:]))
			p, err := commp.Compute(bytes.NewReader(car))
			require.NoError(t, err)
			require.Equal(t, v.Piece, p.CID.String())
			require.Equal(t, v.Padded, uint64(p.Padded))
			f, err := blob.OS{}.Open(dest)
			require.NoError(t, err)
			defer f.Close()
			l, err := carstore.Inspect(f, v.Car)
			require.NoError(t, err)
			blocks := 0
			require.NoError(t, carstore.Walk(f, l, func(carstore.Block) error { blocks++; return nil }))
			require.Equal(t, v.Blocks, blocks)
		})
	}
}

// TestSourceChanged: a source that is written to while it is read is an error, and no CAR is left.
func TestSourceChanged(t *testing.T) {
	dir := t.TempDir()
	src, dest := filepath.Join(dir, "in"), filepath.Join(dir, "out.car")
	require.NoError(t, os.WriteFile(src, stream(1, 3<<20), 0o600))
	read := int64(0)
	_, err := imports.WriteCAR(t.Context(), blob.OS{}, src, dest, imports.UnixFS2025(), &imports.Options{Progress: func(n int64) {
		if read += n; read == 3<<20 {
			f, err := os.OpenFile(src, os.O_WRONLY, 0)
			require.NoError(t, err)
			_, err = f.WriteAt([]byte("changed"), 1<<20+5)
			require.NoError(t, err)
			require.NoError(t, f.Close())
		}
	}})
	require.ErrorIs(t, err, imports.ErrSourceChanged)
	require.ErrorContains(t, err, fmt.Sprintf("%s at offset %d", src, 1<<20))
	left, err := filepath.Glob(dest + "*")
	require.NoError(t, err)
	require.Empty(t, left)
}
