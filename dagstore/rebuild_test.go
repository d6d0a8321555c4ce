package dagstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/commp"
	"github.com/cartage-dev/cartage/dagstore"
)

// TestR_N19 : whatever of the index is lost, it is made anew from the pieces; what cannot be read stays, and numbers of files that are there
// are not given to others.
func TestR_N19(t *testing.T) {
	dir := t.TempDir()
	s := open(t, blob.OS{}, dir)
	var pieces, blocks []cid.Cid
	var known []dagstore.KnownPiece
	for i := range 3 {
		car := filepath.Join(dir, "a.car")
		cids, _ := writeCAR(t, car, byte(i), 40)
		sh, err := s.Register(t.Context(), dagstore.Source{Name: car, Build: func(ctx context.Context, to string) error { return os.Rename(car, to) }})
		require.NoError(t, err)
		pieces, blocks = append(pieces, sh.Piece), append(blocks, cids[7])
	}
	rebuild := func() (out []dagstore.Rebuilt) {
		for r, err := range s.Rebuild(t.Context(), known) {
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

// TestRebuildWhatIsNotSick: Rebuild leaves alone what was registered only and what cannot be read, and no file of a shard is removed.
func TestRebuildWhatIsNotSick(t *testing.T) {
	w := newWorld(t)
	lazy, piece, _ := w.origin("a", 1, false)
	w.lazy("a", piece)
	car := filepath.Join(w.dir, "b.car")
	cids, _ := writeCAR(t, car, 2, 2000)
	data, err := os.ReadFile(car)
	require.NoError(t, err)
	sh, err := w.Register(t.Context(), dagstore.Source{Name: car, Build: func(_ context.Context, to string) error { return os.WriteFile(to, data, 0o600) }})
	require.NoError(t, err)
	file := filepath.Join(w.dir, "dagstore", "pieces", fmt.Sprint(sh.Number, ".car"))
	data[len(data)-1] ^= 1 // of the last block
	bad := append([]byte(nil), data...)
	for i := 60; i < len(bad); i += 100 { // and of many, so that the doctor meets one
		bad[i] ^= 1
	}
	require.NoError(t, os.WriteFile(file, bad, 0o600))
	got := 0
	for r, err := range w.Rebuild(t.Context(), nil) {
		require.NoError(t, err)
		require.Equal(t, sh.Piece, r.Piece)
		require.Error(t, r.Error)
		got++
	}
	require.Equal(t, 1, got)
	require.Zero(t, lazy.opens.Load(), "it was registered only")
	require.Equal(t, dagstore.StateNew, w.state(piece))
	require.Equal(t, dagstore.StateAvailable, w.state(sh.Piece), "what of it is whole is served")
	found, err := w.Lookup(cids[3])
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.FileExists(t, file)
}

// TestRebuildLargerPiece: a file whose piece is larger than its data needs comes back under the piece that a deal is about.
func TestRebuildLargerPiece(t *testing.T) {
	dir := t.TempDir()
	s := open(t, blob.OS{}, dir)
	car := filepath.Join(dir, "a.car")
	writeCAR(t, car, 1, 40)
	f, err := os.Open(car)
	require.NoError(t, err)
	p, err := commp.Compute(f)
	require.NoError(t, errors.Join(err, f.Close()))
	up, err := commp.PadUp(p, 4*p.Padded)
	require.NoError(t, err)
	sh, err := s.Register(t.Context(), dagstore.Source{Name: car, Piece: up.CID, Padded: uint64(up.Padded),
		Build: func(_ context.Context, to string) error { return os.Rename(car, to) }})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "index")))
	s = open(t, blob.OS{}, dir)
	defer func() { require.NoError(t, s.Close()) }()
	for r, err := range s.Rebuild(t.Context(), []dagstore.KnownPiece{{Piece: p.CID, Padded: uint64(8 * p.Padded)}, {Piece: up.CID, Padded: uint64(up.Padded)}}) {
		require.NoError(t, err)
		require.NoError(t, r.Error)
		require.Equal(t, sh.Piece, r.Piece)
	}
	again, err := s.Info(sh.Piece)
	require.NoError(t, err)
	require.Equal(t, sh.Padded, again.Padded)
}

// TestLostCounter: records that are older than the files, as after a restore, do not make new pieces take the place of those that are there.
func TestLostCounter(t *testing.T) {
	dir := t.TempDir()
	s := open(t, blob.OS{}, dir)
	defer func() { require.NoError(t, s.Close()) }()
	add := func(seed byte) (dagstore.Shard, error) {
		car := filepath.Join(dir, "a.car")
		writeCAR(t, car, seed, 5)
		return s.Register(t.Context(), dagstore.Source{Name: car, Build: func(_ context.Context, to string) error { return os.Rename(car, to) }})
	}
	_, err := add(1)
	require.NoError(t, err)
	lost := filepath.Join(dir, "pieces", "2.car")
	require.NoError(t, os.WriteFile(lost, []byte("a piece of a later time"), 0o600))
	sh, err := add(2)
	require.NoError(t, err)
	require.EqualValues(t, 3, sh.Number)
	require.FileExists(t, lost)
}
