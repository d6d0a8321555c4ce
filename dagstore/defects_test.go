package dagstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/dagstore"
)

// TestR_D10: a collection removes idle copies, and writes nothing when there are none.
func TestR_D10(t *testing.T) {
	w := newWorld(t, func(c *dagstore.Config) { c.ReaderIdle = 0 })
	_, piece, cids := w.origin("a", 1, true)
	w.lazy("a", piece)
	a, err := w.Acquire(t.Context(), piece)
	require.NoError(t, err)
	list, err := w.Collect(t.Context())
	require.NoError(t, err)
	require.Empty(t, list, "a copy that is read stays")
	require.NoError(t, a.Close())
	list, err = w.Collect(t.Context())
	require.NoError(t, err)
	require.Equal(t, []dagstore.Collected{{Piece: piece}}, list)
	sizes := func() map[string]int64 {
		out := map[string]int64{}
		require.NoError(t, filepath.WalkDir(w.cfg.Dir, func(name string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if strings.Contains(name, "/index/") { // the engine tidies up when it likes: its log is what a write makes longer
				if strings.HasSuffix(name, ".log") {
					name = "log"
				} else {
					return nil
				}
			}
			info, err := d.Info()
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			out[name] = info.Size()
			return err
		}))
		return out
	}
	before := sizes()
	list, err = w.Collect(t.Context())
	require.NoError(t, err)
	require.Empty(t, list)
	require.Equal(t, before, sizes())
	w.readable(piece, cids[0]) // it is copied again
}

// TestR_D11: copies are bounded; who needs room waits until somebody is done, and the one that was used last stays.
func TestR_D11(t *testing.T) {
	w := newWorld(t, func(c *dagstore.Config) { c.TransientQuota = 9_000 })
	oa, a, cidsA := w.origin("a", 1, true)
	_, b, cidsB := w.origin("b", 2, true)
	require.Greater(t, 2*len(oa.data), 9000)
	require.Less(t, len(oa.data), 9000)
	w.lazy("a", a)
	w.lazy("b", b)
	ra, err := w.Acquire(t.Context(), a)
	require.NoError(t, err)
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = w.Acquire(short, b)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	got := make(chan error)
	go func() {
		rb, err := w.Acquire(t.Context(), b)
		if err == nil {
			_, err = rb.Get(cidsB[0])
			err = errors.Join(err, rb.Close())
		}
		got <- err
	}()
	_, err = ra.Get(cidsA[0])
	require.NoError(t, err)
	require.NoError(t, ra.Close())
	require.NoError(t, <-got)
	files, err := os.ReadDir(filepath.Join(w.cfg.Dir, "transients"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	w.readable(a, cidsA[1])
	require.EqualValues(t, 2, oa.opens.Load())

	small := newWorld(t, func(c *dagstore.Config) { c.TransientQuota = 100 })
	_, p, _ := small.origin("a", 1, true)
	small.lazy("a", p)
	_, err = small.Acquire(t.Context(), p)
	require.ErrorContains(t, err, "the quota of copies is 100")
}

// TestR_D13: a slow listener loses events and is told how many; nobody waits for it.
func TestR_D13(t *testing.T) {
	w := newWorld(t)
	slow, cancel := w.Subscribe(1, nil)
	failures, stop := w.Subscribe(10, func(e dagstore.Event) bool { return e.Op == dagstore.OpFail })
	defer stop()
	for i := range 5 {
		o, piece, _ := w.origin(fmt.Sprint(i), byte(i), false)
		o.before = func(context.Context, int64) error { return errOrigin }
		w.lazy(fmt.Sprint(i), piece)
		require.Error(t, w.Initialize(t.Context(), piece))
		e := <-failures
		require.Equal(t, piece, e.Piece)
		require.Equal(t, dagstore.StateErrored, e.State)
		require.Contains(t, e.Error, errOrigin.Error())
	}
	first := <-slow
	require.Equal(t, dagstore.OpRegister, first.Op)
	w.lazy("0", func() cid.Cid { _, p, _ := w.origin("last", 77, false); return p }())
	require.Greater(t, (<-slow).Lost, uint64(10))
	cancel()
	cancel()
	_, more := <-slow
	require.False(t, more)
}

// TestR_D14: no more pieces are read for their index at once than configured.
func TestR_D14(t *testing.T) {
	w := newWorld(t, func(c *dagstore.Config) { c.MaxConcurrentIndex = 2 })
	var now, most atomic.Int64
	var pieces []cid.Cid
	for i := range 8 {
		o, piece, _ := w.origin(fmt.Sprint(i), byte(i), false)
		o.before = func(context.Context, int64) error {
			n := now.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(2 * time.Millisecond)
			now.Add(-1)
			return nil
		}
		w.lazy(fmt.Sprint(i), piece)
		pieces = append(pieces, piece)
	}
	var wg sync.WaitGroup
	for _, piece := range pieces {
		wg.Go(func() {
			if err := w.Initialize(t.Context(), piece); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.LessOrEqual(t, most.Load(), int64(2))
}

// TestR_D17: a key is the CID of a piece, and nothing else reaches the disk.
func TestR_D17(t *testing.T) {
	w := newWorld(t)
	c, err := cid.V1Builder{Codec: cid.Raw, MhType: mh.SHA2_256}.Sum([]byte("../../etc/passwd"))
	require.NoError(t, err)
	_, err = w.RegisterLazy(t.Context(), dagstore.Source{Path: "x", Piece: c})
	require.ErrorContains(t, err, "is no key of a shard")
	_, piece, _ := w.origin("a", 1, false)
	_, err = w.RegisterLazy(t.Context(), dagstore.Source{Mount: "gopher://x", Piece: piece})
	require.ErrorContains(t, err, "unrecognized mount scheme: gopher")
	_, err = w.RegisterLazy(t.Context(), dagstore.Source{Path: "x", Piece: piece, Padded: 1000})
	require.ErrorContains(t, err, "a padded size of 1000")
}

// TestWrongPiece: what a mount gives has to be the piece that was registered.
func TestWrongPiece(t *testing.T) {
	w := newWorld(t)
	_, _, _ = w.origin("a", 1, false)
	_, other, _ := w.origin("b", 2, false)
	w.lazy("a", other)
	_, err := w.Acquire(t.Context(), other)
	var wrong *dagstore.WrongPieceError
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, other, wrong.Expected)
	require.Equal(t, dagstore.StateErrored, w.state(other))
}
