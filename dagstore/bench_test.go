package dagstore_test

import (
	"crypto/sha256"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/dagstore"
)

// BenchmarkRead is blocks of 1 MiB out of a shard; BenchmarkHash is hashing as many bytes.
func BenchmarkRead(b *testing.B) {
	dir := b.TempDir()
	s, err := dagstore.Open(b.Context(), blob.OS{}, filepath.Join(dir, "store"))
	require.NoError(b, err)
	defer s.Close()
	car := filepath.Join(dir, "a.car")
	var cids []cid.Cid
	var out []byte
	data := make([]byte, 1<<20)
	for i := range 64 {
		binary.BigEndian.PutUint64(data, uint64(i))
		c := sum(b, mh.SHA2_256, data)
		if i == 0 {
			out = header(b, c)
		}
		cids, out = append(cids, c), append(out, section(c, data)...)
	}
	require.NoError(b, os.WriteFile(car, out, 0o600))
	sh, err := s.Register(b.Context(), dagstore.Source{Path: car})
	require.NoError(b, err)
	a, err := s.Acquire(b.Context(), sh.Piece)
	require.NoError(b, err)
	defer a.Close()
	b.SetBytes(1 << 20)
	b.ResetTimer()
	for i := range b.N {
		if _, err := a.Get(cids[i%len(cids)]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHash(b *testing.B) {
	data := make([]byte, 1<<20)
	b.SetBytes(1 << 20)
	for range b.N {
		sha256.Sum256(data)
	}
}
