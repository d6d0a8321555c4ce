package dagstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	ipldformat "github.com/ipfs/go-ipld-format"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/dagstore"
)

// origin is a mount whose failures and waits a test decides.
type origin struct {
	data   []byte
	opens  atomic.Int64
	before func(ctx context.Context, n int64) error // called with the number of the opening
}

func (o *origin) enter(ctx context.Context) error {
	n := o.opens.Add(1)
	if o.before != nil {
		return o.before(ctx, n)
	}
	return nil
}

type memory struct{ *bytes.Reader }

func (m memory) Size() (int64, error) { return m.Reader.Size(), nil }
func (memory) Close() error           { return nil }

// Open implements dagstore.Mount.
func (o *origin) Open(ctx context.Context) (dagstore.Reader, error) {
	return memory{bytes.NewReader(o.data)}, o.enter(ctx)
}

// streamed is an origin that can be read from its start only.
type streamed struct{ *origin }

// Stream implements dagstore.Streamer.
func (s streamed) Stream(ctx context.Context) (io.ReadCloser, int64, error) {
	if err := s.enter(ctx); err != nil {
		return nil, 0, err
	}
	return io.NopCloser(bytes.NewReader(s.data)), int64(len(s.data)), nil
}

// world is a store with named origins.
type world struct {
	t       *testing.T
	dir     string
	origins map[string]dagstore.Mount
	cfg     dagstore.Config
	*dagstore.Store
}

func newWorld(t *testing.T, change ...func(*dagstore.Config)) *world {
	w := &world{t: t, dir: t.TempDir(), origins: map[string]dagstore.Mount{}}
	w.cfg = dagstore.Config{Dir: filepath.Join(w.dir, "dagstore"), Mounts: map[string]dagstore.Scheme{"test": func(u *url.URL) (dagstore.Mount, error) {
		if m, ok := w.origins[u.Host]; ok {
			return m, nil
		}
		return nil, fmt.Errorf("no origin %s", u.Host)
	}}}
	for _, f := range change {
		f(&w.cfg)
	}
	w.start()
	t.Cleanup(func() { require.NoError(t, w.Close()) })
	return w
}

func (w *world) start() {
	s, err := dagstore.OpenConfig(w.t.Context(), w.cfg)
	require.NoError(w.t, err)
	w.Store = s
}

// restart closes the store, as the end of a process does, and opens it again.
func (w *world) restart() {
	require.NoError(w.t, w.Close())
	w.start()
}

// origin makes an origin with a CAR, and returns the piece and the CIDs in it.
func (w *world) origin(name string, seed byte, stream bool) (*origin, cid.Cid, []cid.Cid) {
	w.t.Helper()
	car := filepath.Join(w.dir, name+".car")
	cids, _ := writeCAR(w.t, car, seed, 20)
	data, err := os.ReadFile(car)
	require.NoError(w.t, err)
	o := &origin{data: data}
	w.origins[name] = o
	if stream {
		w.origins[name] = streamed{o}
	}
	probe := open(w.t, blob.OS{}, w.t.TempDir())
	defer probe.Close()
	sh, err := probe.Register(w.t.Context(), dagstore.Source{Path: car})
	require.NoError(w.t, err)
	return o, sh.Piece, cids
}

func (w *world) lazy(name string, piece cid.Cid) dagstore.Shard {
	w.t.Helper()
	sh, err := w.RegisterLazy(w.t.Context(), dagstore.Source{Mount: "test://" + name, Piece: piece})
	require.NoError(w.t, err)
	return sh
}

func (w *world) state(piece cid.Cid) dagstore.State {
	w.t.Helper()
	sh, err := w.Info(piece)
	require.NoError(w.t, err)
	return sh.State
}

// readable acquires a shard and reads a block.
func (w *world) readable(piece, c cid.Cid) {
	w.t.Helper()
	a, err := w.Acquire(w.t.Context(), piece)
	require.NoError(w.t, err)
	_, err = a.Get(c)
	require.NoError(w.t, err)
	require.NoError(w.t, a.Close())
}

// TestLazy: a shard that is registered only costs nothing; the first who acquires it has it read, once for all.
func TestLazy(t *testing.T) {
	for _, stream := range []bool{false, true} {
		t.Run(fmt.Sprint("stream ", stream), func(t *testing.T) {
			w := newWorld(t)
			o, piece, cids := w.origin("a", 1, stream)
			require.Equal(t, dagstore.StateNew, w.lazy("a", piece).State)
			require.Equal(t, w.lazy("a", piece).Number, w.lazy("a", piece).Number, "R-W2: a known piece is success")
			require.Zero(t, o.opens.Load())
			none, err := w.Lookup(cids[3])
			require.NoError(t, err)
			require.Empty(t, none)
			var wg sync.WaitGroup
			for i := range 50 {
				wg.Go(func() {
					a, err := w.Acquire(t.Context(), piece)
					if err != nil {
						t.Error(err)
						return
					}
					if _, err := a.Get(cids[i%len(cids)]); err != nil {
						t.Error(err)
					}
					_ = a.Close()
				})
			}
			wg.Wait()
			if stream {
				require.EqualValues(t, 1, o.opens.Load(), "it is copied once")
			}
			require.Equal(t, dagstore.StateAvailable, w.state(piece))
			found, err := w.Lookup(cids[3])
			require.NoError(t, err)
			require.Len(t, found, 1)
			require.ErrorContains(t, w.Initialize(t.Context(), piece), "which is available: only one that is registered and not read yet can be")
			require.ErrorContains(t, w.Recover(t.Context(), piece), "only one that is failed can be")
			w.restart()
			w.readable(piece, cids[5])
		})
	}
}

var errOrigin = errors.New("the disk is not there")

// TestR_D1: a process that ends during a recovery, or the first reading, goes on with it at the next start.
func TestR_D1(t *testing.T) {
	for _, failed := range []bool{false, true} {
		t.Run(fmt.Sprint("after a failure ", failed), func(t *testing.T) {
			w := newWorld(t)
			o, piece, cids := w.origin("a", 1, false)
			w.lazy("a", piece)
			if failed {
				o.before = func(context.Context, int64) error { return errOrigin }
				require.ErrorIs(t, w.Initialize(t.Context(), piece), errOrigin)
				require.Equal(t, dagstore.StateErrored, w.state(piece))
			}
			reached := make(chan struct{}, 1)
			o.before = func(ctx context.Context, _ int64) error {
				reached <- struct{}{}
				<-ctx.Done()
				return ctx.Err()
			}
			done := make(chan error)
			go func() {
				_, err := w.Acquire(context.WithoutCancel(t.Context()), piece)
				done <- err
			}()
			<-reached
			require.NoError(t, w.Close())
			require.ErrorIs(t, <-done, dagstore.ErrClosed)
			o.before = nil
			w.start()
			w.readable(piece, cids[1])
			require.Equal(t, dagstore.StateAvailable, w.state(piece))
		})
	}
}

// TestR_D3: a failure is the shard's state and nothing else: the next who acquires it tries again, as often as it is configured, and a
// recovery by hand always.
func TestR_D3(t *testing.T) {
	w := newWorld(t)
	o, piece, cids := w.origin("a", 1, false)
	fails := int64(1)
	o.before = func(_ context.Context, n int64) error {
		if n <= fails {
			return errOrigin
		}
		return nil
	}
	w.lazy("a", piece)
	_, err := w.Acquire(t.Context(), piece)
	require.ErrorIs(t, err, errOrigin)
	require.ErrorIs(t, err, dagstore.ErrShardInit)
	w.restart()
	w.readable(piece, cids[2])

	o, piece, cids = w.origin("b", 2, true)
	fails = 2
	o.before = func(_ context.Context, n int64) error {
		if n <= fails {
			return errOrigin
		}
		return nil
	}
	w.lazy("b", piece)
	for range 2 {
		_, err = w.Acquire(t.Context(), piece)
		require.ErrorIs(t, err, errOrigin)
	}
	w.restart() // the count of attempts survives
	_, err = w.Acquire(t.Context(), piece)
	require.ErrorContains(t, err, "has failed: ")
	require.ErrorContains(t, err, errOrigin.Error())
	require.NoError(t, w.Recover(t.Context(), piece))
	w.readable(piece, cids[2])
}

// TestR_D4: who leaves does not end the work that others wait for; when all have left it ends.
func TestR_D4(t *testing.T) {
	w := newWorld(t)
	o, piece, cids := w.origin("a", 1, true)
	reached, let := make(chan struct{}, 1), make(chan struct{})
	ended := make(chan error, 1)
	o.before = func(ctx context.Context, _ int64) error {
		reached <- struct{}{}
		select {
		case <-let:
			return nil
		case <-ctx.Done():
			ended <- ctx.Err()
			return ctx.Err()
		}
	}
	w.lazy("a", piece)
	first, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := w.Acquire(first, piece)
		left <- err
	}()
	<-reached
	second, stop := context.WithCancel(t.Context())
	got := make(chan error, 1)
	go func() {
		a, err := w.Acquire(second, piece)
		if err == nil {
			err = a.Close()
		}
		got <- err
	}()
	time.Sleep(10 * time.Millisecond) // the second may or may not wait by now; either way it must be served
	leave()
	require.ErrorIs(t, <-left, context.Canceled)
	select {
	case <-ended: // the second came later and begins anew
		<-reached
	default:
	}
	close(let)
	require.NoError(t, <-got)
	stop()
	w.readable(piece, cids[0])

	o, piece, _ = w.origin("b", 2, false)
	o.before = func(ctx context.Context, _ int64) error {
		reached <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}
	w.lazy("b", piece)
	alone, leave := context.WithCancel(t.Context())
	go func() {
		_, err := w.Acquire(alone, piece)
		left <- err
	}()
	<-reached
	leave()
	require.ErrorIs(t, <-left, context.Canceled)
	require.ErrorIs(t, <-ended, context.Canceled)
	require.Eventually(t, func() bool { return w.state(piece) == dagstore.StateNew }, 5*time.Second, time.Millisecond, "as if it had not begun")
}

// TestR_N12: a payload that is spread over pieces is read through all of them, as a blockstore.
func TestR_N12(t *testing.T) {
	w := newWorld(t)
	oa, a, cidsA := w.origin("a", 1, false)
	_, b, cidsB := w.origin("b", 2, false)
	w.lazy("a", a)
	w.lazy("b", b)
	set, err := w.AcquireSet(t.Context(), a, b)
	require.NoError(t, err)
	id, err := cid.V1Builder{Codec: cid.Raw, MhType: mh.IDENTITY}.Sum([]byte("inline"))
	require.NoError(t, err)
	for _, c := range []cid.Cid{cidsA[3], cidsB[4], cid.NewCidV1(cid.DagProtobuf, cidsA[3].Hash()), id} {
		blk, err := set.Get(t.Context(), c)
		require.NoError(t, err)
		require.Equal(t, c, blk.Cid(), "R-B3: a block has the CID that it was asked by")
		n, err := set.GetSize(t.Context(), c)
		require.NoError(t, err)
		require.Len(t, blk.RawData(), n)
		has, err := set.Has(t.Context(), c)
		require.NoError(t, err)
		require.True(t, has)
	}
	other, _ := writeCAR(t, filepath.Join(w.dir, "x.car"), 99, 1)
	has, err := set.Has(t.Context(), other[0])
	require.NoError(t, err)
	require.False(t, has)
	_, err = set.Get(t.Context(), other[0])
	require.True(t, ipldformat.IsNotFound(err), err)
	keys, err := set.AllKeysChan(t.Context())
	require.NoError(t, err)
	n := 0
	for range keys {
		n++
	}
	require.Equal(t, 40, n)
	require.ErrorIs(t, set.DeleteBlock(t.Context(), cidsA[0]), dagstore.ErrReadOnly)
	require.NoError(t, set.Close())
	oa.before = func(context.Context, int64) error { return errOrigin }
	_, err = w.AcquireSet(t.Context(), b, a)
	require.ErrorIs(t, err, errOrigin)
	sh, err := w.Info(b)
	require.NoError(t, err)
	require.Zero(t, w.Readers(sh.Number), "what was acquired before the error is given back")
}
