package index_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/dagstore/index"
	"github.com/cartage-dev/cartage/dagstore/index/indextest"
	"github.com/cartage-dev/cartage/internal/faults"
	"github.com/cartage-dev/cartage/internal/store"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("go.opencensus.io/stats/view.(*worker).start"))
}

// open makes an index in a folder, with memory for so many bytes.
func open(t testing.TB, fsys blob.FS, dir string, memory int) (*index.Embedded, *store.KV) {
	t.Helper()
	kv, err := store.OpenKV(filepath.Join(dir, "rows"))
	require.NoError(t, err)
	x, err := index.Open(fsys, filepath.Join(dir, "order"), kv)
	require.NoError(t, err)
	x.Memory = memory
	return x, kv
}

func TestEmbedded(t *testing.T) {
	for name, memory := range map[string]int{"in memory": 0, "over the disk": 4 << 10} {
		t.Run(name, func(t *testing.T) {
			indextest.Run(t, func(t testing.TB) (index.Index, func() index.Index) {
				dir := t.TempDir()
				x, kv := open(t, blob.OS{}, dir, memory)
				t.Cleanup(func() { require.NoError(t, kv.Close()) })
				return x, func() index.Index {
					require.NoError(t, x.Close())
					require.NoError(t, kv.Close())
					x, kv = open(t, blob.OS{}, dir, memory)
					return x
				}
			})
		})
	}
}

// TestR_N4Crash: an add that dies at any write of a file is not there after a start, or is there wholly; nothing is left over.
func TestR_N4Crash(t *testing.T) {
	recs := indextest.Records(1, 2000)
	for at := 1; ; at++ {
		dir := t.TempDir()
		sw := &faults.Switch{At: at}
		kv, err := store.OpenKV(filepath.Join(dir, "rows"))
		require.NoError(t, err)
		x, err := index.Open(faults.FS{FS: blob.OS{}, Switch: sw}, filepath.Join(dir, "order"), kv)
		if err == nil {
			x.Memory = 40 << 10
			_, err = x.Add(t.Context(), 1, func(put func(index.Record) error) error {
				for _, r := range recs {
					if err := put(r); err != nil {
						return err
					}
				}
				return nil
			})
		}
		require.NoError(t, kv.Close())
		if !sw.Crashed() {
			require.NoError(t, err)
			require.Greater(t, at, 5)
			return
		}
		require.True(t, errors.Is(err, faults.ErrCrashed), "%v", err)
		x, kv = open(t, blob.OS{}, dir, 40<<10)
		files, err := os.ReadDir(filepath.Join(dir, "order"))
		require.NoError(t, err)
		for _, f := range files {
			require.Equal(t, "1.order", f.Name())
		}
		require.NoError(t, x.Remove(t.Context(), 1))
		for _, r := range recs[:50] {
			rows, err := x.Find(t.Context(), r.Multihash)
			require.NoError(t, err)
			require.Empty(t, rows)
		}
		require.NoError(t, kv.Close())
	}
}

// TestR_N18: an order file that was cut or changed is damaged, and says so.
func TestR_N18(t *testing.T) {
	dir := t.TempDir()
	x, kv := open(t, blob.OS{}, dir, 0)
	defer func() { require.NoError(t, kv.Close()) }()
	_, err := x.Add(t.Context(), 1, func(put func(index.Record) error) error { return put(indextest.Records(1, 1)[0]) })
	require.NoError(t, err)
	require.NoError(t, x.Check(1))
	name := filepath.Join(dir, "order", "1.order")
	good, err := os.ReadFile(name)
	require.NoError(t, err)
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 0x40
		require.NoError(t, os.WriteFile(name, bad, 0o600))
		require.Error(t, x.Check(1), "byte %d", i)
		require.NoError(t, os.WriteFile(name, good[:i], 0o600))
		require.Error(t, x.Check(1), "cut at %d", i)
		for range x.Iterate(t.Context(), 1, nil) { // whatever it yields, it ends
		}
	}
	require.ErrorIs(t, x.Check(2), index.ErrUnknownPiece)
}

// TestR_N1 : however many pieces there are and however many of them are read, fewer than 256 files of the index are open.
func TestR_N1(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("it looks at /proc")
	}
	dir := t.TempDir()
	x, kv := open(t, blob.OS{}, dir, 0)
	defer func() { require.NoError(t, errors.Join(x.Close(), kv.Close())) }()
	const pieces = 400
	for piece := uint64(1); piece <= pieces; piece++ {
		_, err := x.Add(t.Context(), piece, func(put func(index.Record) error) error {
			for _, r := range indextest.Records(byte(piece), 5) {
				if err := put(r); err != nil {
					return err
				}
			}
			return nil
		})
		require.NoError(t, err)
	}
	most := 0
	var mu sync.Mutex
	var wg sync.WaitGroup
	for piece := uint64(1); piece <= pieces; piece++ {
		wg.Go(func() {
			for _, err := range x.Iterate(t.Context(), piece, nil) {
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(5 * time.Millisecond) // so that all who may are in it at once
				mu.Lock()
				most = max(most, openBelow(t, dir))
				mu.Unlock()
				return
			}
		})
	}
	wg.Wait()
	require.Positive(t, most)
	require.Less(t, most, 256)
}

// openBelow counts the open files below a folder.
func openBelow(t *testing.T, dir string) (n int) {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Error(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, dir) {
			n++
		}
	}
	return n
}
