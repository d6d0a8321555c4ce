package dagstore_test

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/dagstore"
)

// both makes a block that is in two pieces: one behind a mount, registered first, and one in a file here.
func both(t *testing.T, w *world) (o *origin, away, here dagstore.Shard, block cid.Cid) {
	t.Helper()
	o, piece, cids := w.origin("a", 1, false)
	w.lazy("a", piece)
	require.NoError(t, w.Initialize(t.Context(), piece))
	away, err := w.Info(piece)
	require.NoError(t, err)
	car := filepath.Join(w.dir, "b.car")
	writeCAR(t, car, 1, 10) // the first blocks of the other
	here, err = w.Register(t.Context(), dagstore.Source{Path: car})
	require.NoError(t, err)
	return o, away, here, cids[5]
}

func (w *world) order(c cid.Cid) (out []uint64) {
	w.t.Helper()
	list, err := w.Lookup(c)
	require.NoError(w.t, err)
	for _, sh := range list {
		out = append(out, sh.Number)
	}
	return out
}

// TestR_N11 : of the pieces that have a block that one comes first that costs least, and one that failed a while ago after its like.
func TestR_N11(t *testing.T) {
	w := newWorld(t)
	o, away, here, block := both(t, w)
	require.Equal(t, []uint64{here.Number, away.Number}, w.order(block), "a file here is cheaper")
	a, err := w.Acquire(t.Context(), away.Piece)
	require.NoError(t, err)
	require.Equal(t, []uint64{away.Number, here.Number}, w.order(block), "what is being read is cheapest")
	require.NoError(t, a.Close())

	// A third like the first, which fails.
	third, piece, _ := w.origin("c", 1, false)
	require.Equal(t, away.Piece, piece)
	car := filepath.Join(w.dir, "d.car")
	writeCAR(t, car, 1, 15)
	data, err := os.ReadFile(car)
	require.NoError(t, err)
	third.data = data
	probe := open(t, blob.OS{}, t.TempDir())
	sh, err := probe.Register(t.Context(), dagstore.Source{Path: car})
	require.NoError(t, err)
	require.NoError(t, probe.Close())
	last := w.lazy("c", sh.Piece)
	require.NoError(t, w.Initialize(t.Context(), sh.Piece))
	require.Eventually(t, func() bool { return w.Readers(away.Number) == 0 }, time.Second, time.Millisecond)
	require.Equal(t, []uint64{here.Number, away.Number, last.Number}, w.order(block))
	w.restart() // which closes what is open
	o.before = func(context.Context, int64) error { return errors.New("gone") }
	_, err = w.Acquire(t.Context(), away.Piece)
	require.ErrorContains(t, err, "gone")
	require.Equal(t, []uint64{here.Number, last.Number, away.Number}, w.order(block), "it failed")
	o.before = nil
	w.readable(away.Piece, block)
	w.restart()
	require.Equal(t, []uint64{here.Number, away.Number, last.Number}, w.order(block))
}

// TestR_N14 : whether a block is there, where, and how large it is, is answered without touching what would have to be fetched or unsealed.
func TestR_N14(t *testing.T) {
	w := newWorld(t)
	o, away, _, block := both(t, w)
	before := o.opens.Load()
	rows, err := w.Find(t.Context(), block.Hash())
	require.NoError(t, err)
	require.Len(t, rows, 2)
	require.EqualValues(t, 200, rows[0].Size)
	require.Len(t, w.order(block), 2)
	require.NoError(t, w.Present(t.Context(), away))
	_, err = w.Info(away.Piece)
	require.NoError(t, err)
	require.Equal(t, before, o.opens.Load())
}

// TestR_B1 : where a block lies has one meaning, whatever the archive is: the row counts from the CARv1, and the shard says where that begins in the
// piece; there the section of the block is, its length first.
func TestR_B1(t *testing.T) {
	dir := t.TempDir()
	s := open(t, blob.OS{}, dir)
	defer func() { require.NoError(t, s.Close()) }()
	v1 := filepath.Join(dir, "one.car")
	cids, data := writeCAR(t, v1, 3, 30)
	v2 := filepath.Join(dir, "two.car")
	c, err := carstore.Open(blob.OS{}, v2, cids[0])
	require.NoError(t, err)
	for i := range cids {
		require.NoError(t, c.Put(cids[i], data[i]))
	}
	require.NoError(t, c.Put(mustSum(t, []byte("one more, so that it is another piece")), []byte("one more, so that it is another piece")))
	require.NoError(t, errors.Join(c.Finalize(), c.Close()))
	for _, path := range []string{v1, v2} {
		sh, err := s.Register(t.Context(), dagstore.Source{Path: path})
		require.NoError(t, err)
		file, err := os.ReadFile(path)
		require.NoError(t, err)
		for i, c := range cids {
			rows, err := s.Find(t.Context(), c.Hash())
			require.NoError(t, err)
			for _, r := range rows {
				if r.Piece != sh.Number {
					continue
				}
				section := file[sh.Offset+r.Offset:]
				size, n := binary.Uvarint(section)
				require.EqualValues(t, len(c.Bytes())+len(data[i]), size)
				require.Equal(t, c.Bytes(), section[n:n+len(c.Bytes())])
			}
		}
	}
}

func mustSum(t *testing.T, data []byte) cid.Cid {
	t.Helper()
	c, err := cid.V1Builder{Codec: cid.Raw, MhType: mh.SHA2_256}.Sum(data)
	require.NoError(t, err)
	return c
}
