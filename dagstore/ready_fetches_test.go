package dagstore_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/dagstore"
)

// gauge counts the streams of its origins that are open at once; none gives a byte before go on.
type gauge struct {
	mu        sync.Mutex
	now, most int
	goOn      chan struct{}
}

// metered is an origin whose open streams are counted.
type metered struct {
	*origin
	gauge *gauge
}

// Stream implements dagstore.Streamer.
func (m metered) Stream(context.Context) (io.ReadCloser, int64, error) {
	m.gauge.mu.Lock()
	defer m.gauge.mu.Unlock()
	m.gauge.now++
	m.gauge.most = max(m.gauge.most, m.gauge.now)
	return &meteredStream{bytes.NewReader(m.data), m.gauge}, int64(len(m.data)), nil
}

type meteredStream struct {
	r     io.Reader
	gauge *gauge
}

// Read waits until it may go on.
func (s *meteredStream) Read(b []byte) (int, error) {
	<-s.gauge.goOn
	return s.r.Read(b)
}

// Close implements io.Closer.
func (s *meteredStream) Close() error {
	s.gauge.mu.Lock()
	defer s.gauge.mu.Unlock()
	s.gauge.now--
	return nil
}

// TestReadyFetchesAtLimit: as many streams are open at once as MaxConcurrentReadyFetches says, and not one beyond, whether pieces are registered
// at once, initialised or acquired.
func TestReadyFetchesAtLimit(t *testing.T) {
	for name, begin := range map[string]func(*world, string, cid.Cid) error{
		"register": func(w *world, name string, _ cid.Cid) error {
			_, err := w.Register(w.t.Context(), dagstore.Source{Mount: "test://" + name})
			return err
		},
		"initialize": func(w *world, _ string, piece cid.Cid) error { return w.Initialize(w.t.Context(), piece) },
		"acquire": func(w *world, _ string, piece cid.Cid) error {
			a, err := w.Acquire(w.t.Context(), piece)
			if err != nil {
				return err
			}
			return a.Close()
		},
	} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { fetchTen(t, name != "register", begin) }) })
	}
}

func fetchTen(t *testing.T, lazy bool, begin func(*world, string, cid.Cid) error) {
	w := newWorld(t, func(c *dagstore.Config) { c.MaxConcurrentIndex, c.MaxConcurrentReadyFetches = 10, 2 })
	g := &gauge{goOn: make(chan struct{})}
	var wg sync.WaitGroup
	for i := range 10 {
		o, piece, _ := w.origin(fmt.Sprint(i), byte(i), true)
		w.origins[fmt.Sprint(i)] = metered{o, g}
		if lazy {
			w.lazy(fmt.Sprint(i), piece)
		}
		defer func() { require.Equal(t, dagstore.StateAvailable, w.state(piece)) }()
	}
	for i := range 10 {
		sh, _ := w.List()
		piece := cid.Undef
		if lazy {
			piece = sh[i].Piece
		}
		wg.Go(func() {
			if err := begin(w, fmt.Sprint(i), piece); err != nil {
				t.Error(err)
			}
		})
	}
	synctest.Wait()
	g.mu.Lock()
	at := g.now
	g.mu.Unlock()
	close(g.goOn)
	wg.Wait()
	require.Equal(t, []int{2, 2}, []int{at, g.most})
	require.Zero(t, g.now)
}

// TestRoomIsWaitedForOutside: who waits for room within the quota of copies keeps no place of those who copy.
func TestRoomIsWaitedForOutside(t *testing.T) {
	w := newWorld(t, func(c *dagstore.Config) { c.TransientQuota, c.MaxConcurrentReadyFetches = 9_000, 1 })
	var asked atomic.Bool
	waits := make(chan struct{})
	_, a, _ := w.origin("a", 1, true)
	ob, b, _ := w.origin("b", 2, true)
	small, c, _ := w.origin("c", 3, true)
	ob.before = func(context.Context, int64) error {
		if asked.CompareAndSwap(false, true) {
			close(waits)
		}
		return nil
	}
	require.Greater(t, 2*len(ob.data), 9_000)
	small.before = func(context.Context, int64) error { return errOrigin } // it gets its turn, which is all that is asked
	for name, piece := range map[string]cid.Cid{"a": a, "b": b, "c": c} {
		w.lazy(name, piece)
	}
	ra, err := w.Acquire(t.Context(), a)
	require.NoError(t, err)
	got := make(chan error)
	go func() {
		rb, err := w.Acquire(t.Context(), b)
		if err == nil {
			err = rb.Close()
		}
		got <- err
	}()
	<-waits
	_, err = w.Acquire(t.Context(), c)
	require.ErrorIs(t, err, errOrigin)
	require.NoError(t, ra.Close())
	require.NoError(t, <-got)
}
