package dagstore_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/dagstore"
)

// TestDamagedBlockFlagsThePiece: a block that does not have its hash when it is to be served is never served, and the doctor names the piece
// although its sample does not meet the block; once the file is whole again, it is well.
func TestDamagedBlockFlagsThePiece(t *testing.T) {
	dir := t.TempDir()
	s, err := dagstore.Open(t.Context(), blob.OS{}, filepath.Join(dir, "dagstore"))
	require.NoError(t, err)
	defer s.Close()
	root := sum(t, mh.SHA2_256, []byte("a root"))
	data := header(t, root)
	data = append(data, section(root, []byte("a root"))...)
	other := []byte("the block that rots")
	data = append(data, section(sum(t, mh.SHA2_256, other), other)...)
	file := filepath.Join(dir, "piece.car")
	require.NoError(t, os.WriteFile(file, data, 0o600))
	sh, err := s.Register(t.Context(), dagstore.Source{Path: file})
	require.NoError(t, err)
	find := func() (out []string) {
		for f, err := range s.Doctor(t.Context()) {
			require.NoError(t, err)
			out = append(out, f.Reason)
		}
		return out
	}
	require.Empty(t, find())
	rotten := append([]byte(nil), data...)
	rotten[bytes.Index(data, other)] ^= 1
	require.NoError(t, os.WriteFile(file, rotten, 0o600))
	a, err := s.Acquire(t.Context(), sh.Piece)
	require.NoError(t, err)
	_, err = a.Get(sum(t, mh.SHA2_256, other))
	require.ErrorIs(t, err, carstore.ErrBadHash)
	require.Equal(t, []string{dagstore.BlockDamaged}, find())
	require.NoError(t, os.WriteFile(file, data, 0o600))
	require.Empty(t, find())
	require.NoError(t, a.Close())
}

// TestVerify: every block of a piece is read, those behind a damaged one too.
func TestVerify(t *testing.T) {
	dir := t.TempDir()
	s := open(t, blob.OS{}, filepath.Join(dir, "dagstore"))
	defer s.Close()
	car := filepath.Join(dir, "a.car")
	_, blocks := writeCAR(t, car, 1, 50)
	sh, err := s.Register(t.Context(), dagstore.Source{Path: car})
	require.NoError(t, err)
	verify := func() dagstore.Verified {
		a, err := s.Acquire(t.Context(), sh.Piece)
		require.NoError(t, err)
		defer a.Close()
		last := uint64(0)
		v, err := a.Verify(t.Context(), func(n uint64) { last = n })
		require.NoError(t, err)
		require.Equal(t, sh.Blocks, v.Blocks)
		require.Equal(t, sh.Bytes, v.Bytes)
		require.Equal(t, v.Bytes, last)
		return v
	}
	require.Zero(t, verify().Bad)
	data, err := os.ReadFile(car)
	require.NoError(t, err)
	for _, i := range []int{3, 40} {
		data[bytes.Index(data, blocks[i])] ^= 1
	}
	require.NoError(t, os.WriteFile(car, data, 0o600))
	v := verify()
	require.EqualValues(t, 2, v.Bad)
	require.ErrorIs(t, v.First, carstore.ErrBadHash)
}
