package dagstore_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/dagstore"
)

// TestR_D5: a file that is another's stays, whatever is collected or destroyed; one of the store's own goes with its shard, also when
// the home was moved in between.
func TestR_D5(t *testing.T) {
	w := newWorld(t)
	car := filepath.Join(w.dir, "mine.car")
	cids, _ := writeCAR(t, car, 9, 5)
	sh, err := w.Register(t.Context(), dagstore.Source{Path: car})
	require.NoError(t, err)
	w.readable(sh.Piece, cids[0])
	list, err := w.Collect(t.Context())
	require.NoError(t, err)
	require.Empty(t, list)
	require.FileExists(t, car)
	require.NoError(t, w.Destroy(t.Context(), sh.Piece))
	require.FileExists(t, car)

	build := func(ctx context.Context, to string) error { return blob.Clone(ctx, blob.OS{}, car, to) }
	sh, err = w.Register(t.Context(), dagstore.Source{Build: build})
	require.NoError(t, err)
	again, err := w.Register(t.Context(), dagstore.Source{Build: build})
	require.NoError(t, err)
	require.Equal(t, sh.Number, again.Number)
	files, err := os.ReadDir(filepath.Join(w.cfg.Dir, "pieces"))
	require.NoError(t, err)
	require.Len(t, files, 1, "the same piece again is not kept twice")
	require.NoError(t, w.Close())
	moved := filepath.Join(w.dir, "elsewhere")
	require.NoError(t, os.Rename(w.cfg.Dir, moved))
	w.cfg.Dir = moved
	w.start()
	w.readable(sh.Piece, cids[0])

	require.NoError(t, os.Remove(w.File(sh)))
	again, err = w.Register(t.Context(), dagstore.Source{Build: build}) // its file was lost: the new one is served
	require.NoError(t, err)
	require.Equal(t, sh.Number, again.Number)
	w.readable(sh.Piece, cids[3])
	w.restart()
	w.readable(sh.Piece, cids[4])
	require.NoError(t, w.Destroy(t.Context(), sh.Piece))
	files, err = os.ReadDir(filepath.Join(w.cfg.Dir, "pieces"))
	require.NoError(t, err)
	require.Empty(t, files)
	require.FileExists(t, car)
	_, err = w.Register(t.Context(), dagstore.Source{Build: func(ctx context.Context, to string) error {
		require.NoError(t, build(ctx, to))
		return errOrigin
	}})
	require.ErrorIs(t, err, errOrigin)
	files, err = os.ReadDir(filepath.Join(w.cfg.Dir, "pieces"))
	require.NoError(t, err)
	require.Empty(t, files)
}

// TestR_D6: a destroyed shard leaves no trace, and who waited for it hears that it is not there; one that is read stays.
func TestR_D6(t *testing.T) {
	w := newWorld(t)
	_, piece, cids := w.origin("a", 1, true)
	w.lazy("a", piece)
	a, err := w.Acquire(t.Context(), piece)
	require.NoError(t, err)
	require.ErrorContains(t, w.Destroy(t.Context(), piece), "failed to destroy shard; active references: 1")
	require.NoError(t, a.Close())
	require.NoError(t, w.Destroy(t.Context(), piece))
	_, err = w.Info(piece)
	require.ErrorIs(t, err, dagstore.ErrShardUnknown)
	require.ErrorIs(t, w.Destroy(t.Context(), piece), dagstore.ErrShardUnknown)
	rows, err := w.Find(t.Context(), cids[0].Hash())
	require.NoError(t, err)
	require.Empty(t, rows)
	for _, dir := range []string{"order", "transients"} {
		files, err := os.ReadDir(filepath.Join(w.cfg.Dir, dir))
		require.NoError(t, err)
		require.Empty(t, files, dir)
	}

	o, piece, _ := w.origin("b", 2, false)
	reached := make(chan struct{}, 1)
	o.before = func(ctx context.Context, _ int64) error {
		reached <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	w.lazy("b", piece)
	waiting := make(chan error)
	go func() {
		_, err := w.Acquire(t.Context(), piece)
		waiting <- err
	}()
	<-reached
	require.NoError(t, w.Destroy(t.Context(), piece))
	require.ErrorIs(t, <-waiting, dagstore.ErrShardUnknown)
}
