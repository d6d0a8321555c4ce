package dagstore_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/dagstore"
	"github.com/cartage-dev/cartage/internal/blob"
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
