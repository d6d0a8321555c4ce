package carstore_test

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
)

// TestDamagedBlockIsDropped: wherever a bit of a file is wrong, finished or not, at most the block with it is missing; once that is put again
// the file is complete, also for a reader.
func TestDamagedBlockIsDropped(t *testing.T) {
	var list []blocks.Block
	for range 20 {
		data := make([]byte, 300)
		_, _ = rand.Read(data)
		c, err := cid.V1Builder{Codec: cid.Raw, MhType: mh.SHA2_256}.Sum(data)
		require.NoError(t, err)
		b, err := blocks.NewBlockWithCid(data, c)
		require.NoError(t, err)
		list = append(list, b)
	}
	for _, finished := range []bool{true, false} {
		clean := filepath.Join(t.TempDir(), "a.car")
		s, err := carstore.Open(blob.OS{}, clean, list[0].Cid())
		require.NoError(t, err)
		for _, b := range list {
			require.NoError(t, s.Put(b.Cid(), b.RawData()))
		}
		if finished {
			require.NoError(t, s.Finalize())
		}
		require.NoError(t, s.Close())
		data, err := os.ReadFile(clean)
		require.NoError(t, err)
		for at := 0; at < len(data); at++ {
			if at > 120 { // every byte of the head
				at += 10
			}
			at = min(at, len(data)-1)
			name := filepath.Join(t.TempDir(), "b.car")
			bad := append([]byte(nil), data...)
			bad[at] ^= 1 << (at % 8)
			require.NoError(t, os.WriteFile(name, bad, 0o600))
			s, err := carstore.Open(blob.OS{}, name, list[0].Cid())
			require.NoError(t, err, "byte %d", at)
			missing := 0
			for _, b := range list {
				got, err := s.Get(b.Cid())
				if err == nil {
					require.Equal(t, b.RawData(), got.RawData())
					continue
				}
				require.ErrorIs(t, err, carstore.ErrNotFound)
				missing++
				require.NoError(t, s.Put(b.Cid(), b.RawData()), "byte %d of %d, finished %t", at, len(data), finished)
			}
			require.LessOrEqual(t, missing, 1, "byte %d of %d, finished %t", at, len(data), finished)
			require.NoError(t, s.Finalize())
			require.NoError(t, s.Close())
			if missing == 0 {
				continue
			}
			r, err := carstore.OpenRead(name)
			require.NoError(t, err, "byte %d", at)
			require.Equal(t, len(list), r.Len())
			require.NoError(t, r.Close())
		}
	}
}
