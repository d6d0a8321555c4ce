package dagstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	ipldformat "github.com/ipfs/go-ipld-format"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/dagstore"
	"github.com/cartage-dev/cartage/internal/blob"
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
			require.ErrorContains(t, w.Initialize(t.Context(), piece), "cannot initialize shard; expected state ShardStateNew, was: ShardStateAvailable")
			require.ErrorContains(t, w.Recover(t.Context(), piece), "expected state ShardStateErrored")
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
	require.ErrorContains(t, err, "is ShardStateErrored: ")
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

	build := func(to string) error { return blob.Clone(t.Context(), blob.OS{}, car, to) }
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
	_, err = w.Register(t.Context(), dagstore.Source{Build: func(to string) error {
		require.NoError(t, build(to))
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

// TestR_M3: copies are tried cheapest first, sealed ones only if that is allowed, and the error names each.
func TestR_M3(t *testing.T) {
	data := &sectors{}
	w := newWorld(t, func(c *dagstore.Config) {
		c.Mounts["lotus"] = dagstore.SectorMount(data, false)
		c.Mounts["lotus+unseal"] = dagstore.SectorMount(data, true)
	})
	o, piece, cids := w.origin("a", 1, false)
	give := func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(o.data)), nil }
	data.list = []dagstore.Copy{
		{Name: "sector 3, sealed", Cost: dagstore.CostSealed, Size: int64(len(o.data)), Open: give},
		{Name: "sector 2", Cost: dagstore.CostUnsealed, Size: 5, Open: func(context.Context) (io.ReadCloser, error) { return nil, errOrigin }},
	}
	_, err := w.RegisterLazy(t.Context(), dagstore.Source{Mount: "lotus://" + piece.String(), Piece: piece})
	require.NoError(t, err)
	_, err = w.Acquire(t.Context(), piece)
	require.ErrorIs(t, err, dagstore.ErrSealed)
	require.ErrorIs(t, err, errOrigin)
	require.ErrorContains(t, err, "sector 3, sealed")
	require.Less(t, strings.Index(err.Error(), "sector 2"), strings.Index(err.Error(), "sector 3"))
	require.NoError(t, w.Destroy(t.Context(), piece))
	_, err = w.RegisterLazy(t.Context(), dagstore.Source{Mount: "lotus+unseal://" + piece.String(), Piece: piece})
	require.NoError(t, err)
	w.readable(piece, cids[0])
	_, err = w.RegisterLazy(t.Context(), dagstore.Source{Mount: "lotus://elsewhere", Piece: cids[0]})
	require.Error(t, err)
}

type sectors struct{ list []dagstore.Copy }

func (s *sectors) Locate(context.Context, cid.Cid) ([]dagstore.Copy, error) { return s.list, nil }

// TestR_M6: an open file waits a while for its next user, and one that is in use is never closed.
func TestR_M6(t *testing.T) {
	fsys := &countingFS{}
	w := newWorld(t, func(c *dagstore.Config) { c.FS, c.ReaderIdle = fsys, 30*time.Millisecond })
	car := filepath.Join(w.dir, "a.car")
	cids, _ := writeCAR(t, car, 1, 5)
	sh, err := w.Register(t.Context(), dagstore.Source{Path: car})
	require.NoError(t, err)
	fsys.opened.Store(0)
	for range 5 {
		w.readable(sh.Piece, cids[0])
	}
	require.EqualValues(t, 1, fsys.opened.Load())
	a, err := w.Acquire(t.Context(), sh.Piece)
	require.NoError(t, err)
	time.Sleep(60 * time.Millisecond)
	_, err = a.Get(cids[1])
	require.NoError(t, err)
	require.NoError(t, a.Close())
	require.Eventually(t, func() bool { return w.Readers(sh.Number) == 0 && fsys.open.Load() <= 1 }, 5*time.Second, time.Millisecond)
}

// TestHTTPMount: a piece on a web server is read with ranges; it is never fetched wholly for a block.
func TestHTTPMount(t *testing.T) {
	var sent atomic.Int64
	dir := t.TempDir()
	car := filepath.Join(dir, "a.car")
	cids, data := writeCAR(t, car, 1, 40)
	plain := http.FileServer(http.Dir(dir))
	noRanges := false
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if noRanges {
			r.Header.Del("Range")
		}
		sent.Add(1)
		plain.ServeHTTP(w, r)
	}))
	defer srv.Close()
	w := newWorld(t, func(c *dagstore.Config) { c.Mounts["http"] = dagstore.HTTPMount(srv.Client()) })
	sh, err := w.Register(t.Context(), dagstore.Source{Mount: srv.URL + "/a.car"})
	require.NoError(t, err)
	sent.Store(0)
	a, err := w.Acquire(t.Context(), sh.Piece)
	require.NoError(t, err)
	for i, c := range cids {
		got, err := a.Get(c)
		require.NoError(t, err)
		require.Equal(t, data[i], got)
	}
	require.NoError(t, a.Close())
	require.LessOrEqual(t, sent.Load(), int64(2), "a question for the size, and one part")
	noRanges = true
	a, err = w.Acquire(t.Context(), sh.Piece)
	require.NoError(t, err)
	_, err = a.Get(cids[0])
	require.ErrorContains(t, err, "the server answers 200 OK")
	noRanges = false
	_, err = a.Get(cids[0])
	require.NoError(t, err, "a failure is not kept")
	require.NoError(t, a.Close())
	_, err = w.Register(t.Context(), dagstore.Source{Mount: srv.URL + "/none.car"})
	require.ErrorContains(t, err, "404")
}

// TestDoctor names what is wrong, and what helps.
func TestDoctor(t *testing.T) {
	w := newWorld(t)
	find := func() map[string]string {
		out := map[string]string{}
		for f, err := range w.Doctor(t.Context()) {
			require.NoError(t, err)
			require.NotEmpty(t, f.Repair)
			out[f.Piece.String()] = f.Reason
		}
		return out
	}
	var pieces []string
	for i := range 4 {
		car := filepath.Join(w.dir, fmt.Sprint(i, ".car"))
		writeCAR(t, car, byte(i), 5)
		sh, err := w.Register(t.Context(), dagstore.Source{Path: car})
		require.NoError(t, err)
		pieces = append(pieces, sh.Piece.String())
	}
	require.Empty(t, find())
	require.NoError(t, os.Remove(filepath.Join(w.dir, "1.car")))
	require.NoError(t, os.Truncate(filepath.Join(w.dir, "2.car"), 100))
	order := filepath.Join(w.cfg.Dir, "order", "4.order")
	data, err := os.ReadFile(order)
	require.NoError(t, err)
	data[len(data)/2] ^= 1
	require.NoError(t, os.WriteFile(order, data, 0o600))
	_, lazy, _ := w.origin("a", 50, false)
	w.lazy("a", lazy)
	require.Equal(t, map[string]string{pieces[1]: dagstore.CopyUnreadable, pieces[2]: dagstore.CopyUnreadable, pieces[3]: dagstore.IndexMismatch, lazy.String(): dagstore.NotIndexed}, find())
}
