package dagstore_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/dagstore"
	"github.com/cartage-dev/cartage/internal/blob"
)

// TestR_N19 : whatever of the index is lost, it is made anew from the pieces; what cannot be read stays, and numbers of files that are there
// are not given to others.
func TestR_N19(t *testing.T) {
	dir := t.TempDir()
	s := open(t, blob.OS{}, dir)
	var pieces, blocks []cid.Cid
	for i := range 3 {
		car := filepath.Join(dir, "a.car")
		cids, _ := writeCAR(t, car, byte(i), 40)
		sh, err := s.Register(t.Context(), dagstore.Source{Name: car, Build: func(ctx context.Context, to string) error { return os.Rename(car, to) }})
		require.NoError(t, err)
		pieces, blocks = append(pieces, sh.Piece), append(blocks, cids[7])
	}
	rebuild := func() (out []dagstore.Rebuilt) {
		for r, err := range s.Rebuild(t.Context()) {
			require.NoError(t, err)
			out = append(out, r)
		}
		return out
	}
	well := func() {
		t.Helper()
		for i, p := range pieces {
			a, err := s.Acquire(t.Context(), p)
			require.NoError(t, err)
			_, err = a.Get(blocks[i])
			require.NoError(t, err)
			require.NoError(t, a.Close())
			found, err := s.Lookup(blocks[i])
			require.NoError(t, err)
			require.Len(t, found, 1)
		}
		for f, err := range s.Doctor(t.Context()) {
			require.NoError(t, err)
			t.Errorf("%+v", f)
		}
	}
	require.Empty(t, rebuild(), "nothing is wrong")
	well()

	// The order file of one.
	require.NoError(t, s.Close())
	order, err := filepath.Glob(filepath.Join(dir, "order", "*"))
	require.NoError(t, err)
	require.Len(t, order, 3)
	require.NoError(t, os.Truncate(order[1], 100))
	s = open(t, blob.OS{}, dir)
	require.Len(t, rebuild(), 1)
	well()

	// All records and rows.
	require.NoError(t, s.Close())
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "index")))
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "order")))
	bad := filepath.Join(dir, "pieces", "9.car")
	require.NoError(t, os.WriteFile(bad, []byte("no archive"), 0o600))
	s = open(t, blob.OS{}, dir)
	defer func() { require.NoError(t, s.Close()) }()
	car := filepath.Join(dir, "new.car")
	writeCAR(t, car, 9, 5)
	sh, err := s.Register(t.Context(), dagstore.Source{Path: car})
	require.NoError(t, err)
	require.Greater(t, sh.Number, uint64(9), "no number of a file that is there")
	got := rebuild()
	require.Len(t, got, 4)
	failed := 0
	for _, r := range got {
		if r.Error != nil {
			failed++
			require.Equal(t, bad, r.File)
		}
	}
	require.Equal(t, 1, failed)
	require.FileExists(t, bad)
	well()
	left, err := filepath.Glob(filepath.Join(dir, "pieces", "*.car"))
	require.NoError(t, err)
	require.Len(t, left, 4, "three pieces, and what is none")
}
