package dagstore_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/dagstore"
)

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
	w := newWorld(t, func(c *dagstore.Config) { c.FS, c.ReaderIdle = fsys, 500*time.Millisecond })
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
	time.Sleep(600 * time.Millisecond)
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
