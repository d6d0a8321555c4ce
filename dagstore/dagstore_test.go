package dagstore_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"github.com/multiformats/go-varint"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/dagstore"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("go.opencensus.io/stats/view.(*worker).start"))
}

// countingFS counts how often files are open.
type countingFS struct {
	blob.OS
	open, opened atomic.Int64
}

type countedFile struct {
	blob.File
	fs *countingFS
}

func (c *countingFS) Open(name string) (blob.File, error) {
	f, err := c.OS.Open(name)
	if err != nil {
		return nil, err
	}
	c.open.Add(1)
	c.opened.Add(1)
	return countedFile{f, c}, nil
}

func (f countedFile) Close() error {
	f.fs.open.Add(-1)
	return f.File.Close()
}

// writeCAR makes a CARv1 of n seeded blocks; the first is the root.
func writeCAR(t *testing.T, name string, seed byte, n int) (cids []cid.Cid, data [][]byte) {
	r := rand.NewChaCha8([32]byte{seed})
	var out bytes.Buffer
	for i := range n {
		b := make([]byte, 200)
		_, err := r.Read(b)
		require.NoError(t, err)
		c, err := cid.V1Builder{Codec: cid.Raw, MhType: mh.SHA2_256}.Sum(b)
		require.NoError(t, err)
		if i == 0 {
			h, err := carstore.V1Header(c)
			require.NoError(t, err)
			out.Write(h)
		}
		out.Write(varint.ToUvarint(uint64(len(c.Bytes()) + len(b))))
		out.Write(c.Bytes())
		out.Write(b)
		cids, data = append(cids, c), append(data, b)
	}
	require.NoError(t, os.WriteFile(name, out.Bytes(), 0o600))
	return cids, data
}

func open(t *testing.T, fsys blob.FS, dir string) *dagstore.Store {
	s, err := dagstore.Open(t.Context(), fsys, dir)
	require.NoError(t, err)
	return s
}

// TestReadersShareOneFile: however many read a piece, its file is open once; it is closed with the last of them.
func TestReadersShareOneFile(t *testing.T) {
	dir := t.TempDir()
	fsys := &countingFS{}
	s := open(t, fsys, dir)
	defer s.Close()
	car := filepath.Join(dir, "a.car")
	cids, data := writeCAR(t, car, 1, 50)
	sh, err := s.Register(t.Context(), dagstore.Source{Path: car})
	require.NoError(t, err)
	require.Zero(t, fsys.open.Load())
	fsys.opened.Store(0)
	const n = 1000
	var wg, all sync.WaitGroup
	all.Add(n)
	for i := range n {
		wg.Go(func() {
			a, err := s.Acquire(t.Context(), sh.Piece)
			all.Done()
			if err != nil {
				t.Error(err)
				return
			}
			all.Wait()
			got, err := a.Get(cids[i%len(cids)])
			if err != nil || !bytes.Equal(got, data[i%len(cids)]) {
				t.Errorf("block %d: %v", i, err)
			}
			if o := fsys.open.Load(); o != 1 {
				t.Errorf("%d files are open", o)
			}
			if err := a.Close(); err != nil {
				t.Error(err)
			}
			_ = a.Close() // again is harmless
		})
	}
	wg.Wait()
	require.Zero(t, fsys.open.Load())
	require.EqualValues(t, 1, fsys.opened.Load())
	info, err := s.Info(sh.Piece)
	require.NoError(t, err)
	require.Equal(t, dagstore.StateAvailable, info.State)
}

// TestIndex: blocks are found by multihash in each piece that has them, whatever the CID version, also after a reopen.
func TestIndex(t *testing.T) {
	dir := t.TempDir()
	s := open(t, blob.OS{}, dir)
	var pieces []cid.Cid
	var cids []cid.Cid
	for i, n := range []int{10, 20} { // the second begins with the blocks of the first
		car := filepath.Join(dir, fmt.Sprint(i, ".car"))
		cids, _ = writeCAR(t, car, 7, n)
		sh, err := s.Register(t.Context(), dagstore.Source{Path: car})
		require.NoError(t, err)
		require.EqualValues(t, n, sh.Blocks)
		require.EqualValues(t, n*200, sh.Bytes)
		pieces = append(pieces, sh.Piece)
		again, err := s.Register(t.Context(), dagstore.Source{Path: car})
		require.NoError(t, err)
		require.Equal(t, sh.Number, again.Number, "the same piece again is success")
	}
	require.NoError(t, s.Close())
	s = open(t, blob.OS{}, dir)
	defer s.Close()
	for i, want := range [][]cid.Cid{pieces, {pieces[1]}} {
		shards, err := s.Lookup(cid.NewCidV1(cid.DagCBOR, cids[i*10].Hash()))
		require.NoError(t, err)
		var got []cid.Cid
		for _, sh := range shards {
			got = append(got, sh.Piece)
		}
		require.Equal(t, want, got)
	}
	other, _ := writeCAR(t, filepath.Join(dir, "x.car"), 9, 1)
	none, err := s.Lookup(other[0])
	require.NoError(t, err)
	require.Empty(t, none)
	_, err = s.Info(other[0])
	require.ErrorIs(t, err, dagstore.ErrShardUnknown)
	a, err := s.Acquire(t.Context(), pieces[0])
	require.NoError(t, err)
	defer a.Close()
	_, err = a.Get(other[0])
	require.ErrorIs(t, err, dagstore.ErrNotFound)
	_, err = a.Get(cids[15])
	require.ErrorIs(t, err, dagstore.ErrNotFound, "a block of another piece is not served from this one")
}

// TestRefusedPieces: what cannot be sold is refused when it is registered, and leaves nothing.
func TestRefusedPieces(t *testing.T) {
	dir := t.TempDir()
	s := open(t, blob.OS{}, dir)
	defer s.Close()
	good := filepath.Join(dir, "good.car")
	cids, _ := writeCAR(t, good, 1, 3)
	data, err := os.ReadFile(good)
	require.NoError(t, err)
	flipped := bytes.Clone(data)
	flipped[len(flipped)-1] ^= 1
	h, err := carstore.V1Header(cids[1])
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		data []byte
		says string
	}{
		"cut":             {data[:len(data)-10], "cut or lies"},
		"wrong block":     {flipped, "does not match"},
		"not a CAR":       {[]byte("text"), "not a CAR"},
		"root not inside": {h, "does not hold its root"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := filepath.Join(dir, "bad.car")
			require.NoError(t, os.WriteFile(bad, tc.data, 0o600))
			_, err := s.Register(t.Context(), dagstore.Source{Path: bad})
			require.ErrorContains(t, err, tc.says)
			require.ErrorContains(t, err, bad)
			list, err := s.List()
			require.NoError(t, err)
			require.Empty(t, list)
		})
	}
	_, err = s.Register(t.Context(), dagstore.Source{Path: filepath.Join(dir, "none.car")})
	require.ErrorIs(t, err, os.ErrNotExist)
}

// TestMovedPiece: provided again from where it is now, a piece is served from there.
func TestMovedPiece(t *testing.T) {
	dir := t.TempDir()
	s := open(t, blob.OS{}, dir)
	defer s.Close()
	old, now := filepath.Join(dir, "old.car"), filepath.Join(dir, "new.car")
	cids, data := writeCAR(t, old, 1, 3)
	first, err := s.Register(t.Context(), dagstore.Source{Path: old})
	require.NoError(t, err)
	require.NoError(t, os.Rename(old, now))
	again, err := s.Register(t.Context(), dagstore.Source{Path: now})
	require.NoError(t, err)
	require.Equal(t, first.Number, again.Number)
	a, err := s.Acquire(t.Context(), first.Piece)
	require.NoError(t, err)
	defer a.Close()
	got, err := a.Get(cids[1])
	require.NoError(t, err)
	require.Equal(t, data[1], got)
}

// TestChangedPiece: a piece that changed after it was registered is not served as what it was.
func TestChangedPiece(t *testing.T) {
	dir := t.TempDir()
	s := open(t, blob.OS{}, dir)
	defer s.Close()
	car := filepath.Join(dir, "a.car")
	cids, _ := writeCAR(t, car, 1, 3)
	sh, err := s.Register(t.Context(), dagstore.Source{Path: car})
	require.NoError(t, err)
	data, err := os.ReadFile(car)
	require.NoError(t, err)
	data[len(data)-1] ^= 1
	require.NoError(t, os.WriteFile(car, data, 0o600))
	a, err := s.Acquire(t.Context(), sh.Piece)
	require.NoError(t, err)
	defer a.Close()
	_, err = a.Get(cids[2])
	require.ErrorIs(t, err, carstore.ErrBadHash)
	_, err = a.Get(cids[0])
	require.NoError(t, err)
}
