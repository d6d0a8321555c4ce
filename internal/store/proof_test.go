package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/ipfs/go-datastore"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/internal/store"
)

// interrupted is a folder of raw keys as a kill leaves it after 100 synced commits: all of them are in the log, none in a table.
func interrupted(t *testing.T) string {
	live, dir := t.TempDir(), t.TempDir()
	kv, err := store.OpenKV(live)
	require.NoError(t, err)
	for i := range 100 {
		b := kv.NewBatch()
		b.Set(fmt.Appendf(nil, "k%03d", i), bytes.Repeat([]byte{byte(i)}, 200))
		require.NoError(t, b.Commit(true))
	}
	require.NoError(t, os.CopyFS(dir, os.DirFS(live)))
	require.NoError(t, kv.Close())
	return dir
}

// change rewrites a file.
func change(t *testing.T, name string, f func(data []byte) []byte) {
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(name, f(data), 0o600))
}

func count(t *testing.T, kv *store.KV) (n int) {
	require.NoError(t, kv.Scan([]byte("k"), func(_, _ []byte) bool { n++; return true }))
	return n
}

// used is how much of a file is before the zeros at its end.
func used(data []byte) int { return len(bytes.TrimRight(data, "\x00")) }

// TestRolledBack: wherever the log of acknowledged commits is damaged, however little, the store does not open as if nothing were missing;
// once that is accepted, it opens with what is left, and proves it again.
func TestRolledBack(t *testing.T) {
	clean := interrupted(t)
	kv, err := store.OpenKV(clean) // a kill alone loses nothing
	require.NoError(t, err)
	require.Equal(t, 100, count(t, kv))
	require.NoError(t, kv.Close())
	clean = interrupted(t)
	damages := map[string]func(data []byte) []byte{"gone": func([]byte) []byte { return nil }}
	for _, percent := range []int{1, 10, 50, 90, 99} {
		damages[fmt.Sprintf("bit at %d %%", percent)] = func(d []byte) []byte { d[used(d)*percent/100] ^= 4; return d }
		damages[fmt.Sprintf("zeros at %d %%", percent)] = func(d []byte) []byte { clear(d[used(d)*percent/100:][:512]); return d }
		damages[fmt.Sprintf("cut at %d %%", percent)] = func(d []byte) []byte { return d[:used(d)*percent/100] }
	}
	damages["zeros at 99 %"] = func(d []byte) []byte { clear(d[used(d)-8:]); return d }
	damages["last byte"] = func(d []byte) []byte { return d[:used(d)-1] }
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.CopyFS(dir, os.DirFS(clean)))
			change(t, only(t, filepath.Join(dir, "*.log")), damage)
			for range 2 { // it stays refused
				_, err := store.OpenKV(dir)
				require.ErrorIs(t, err, reason.StateRolledBack)
				require.ErrorContains(t, err, dir)
			}
			require.NoError(t, store.Accept(dir))
			for range 2 {
				kv, err := store.OpenKV(dir)
				require.NoError(t, err)
				require.Less(t, count(t, kv), 100)
				require.NoError(t, kv.Close())
			}
		})
	}
}

// TestDamagedFiles: a bit of any file of a store is right, or found at the start or when it is read; nothing is missing in silence.
func TestDamagedFiles(t *testing.T) {
	for kind, clean := range map[string]string{"tables": filled(t), "log": interrupted(t)} {
		files, err := os.ReadDir(clean)
		require.NoError(t, err)
		for _, f := range files {
			data, err := os.ReadFile(filepath.Join(clean, f.Name()))
			require.NoError(t, err)
			n := used(data)
			for i := range min(n, 12) {
				dir := t.TempDir()
				require.NoError(t, os.CopyFS(dir, os.DirFS(clean)))
				flip(t, filepath.Join(dir, f.Name()), int64(i*(n-1)/max(1, min(n, 12)-1)))
				what := fmt.Sprintf("%s: %s, place %d", kind, f.Name(), i)
				if kind == "tables" {
					ds, err := store.Open(dir)
					if err == nil {
						var n int
						if n, err = readAll(t.Context(), ds); err == nil {
							require.Equal(t, damagedRecords, n, what)
						}
						require.NoError(t, ds.Close())
					}
					requireNamed(t, err, dir, what)
					continue
				}
				kv, err := store.OpenKV(dir)
				if err == nil {
					require.Equal(t, 100, count(t, kv), what)
					require.NoError(t, kv.Close())
				}
				requireNamed(t, err, dir, what)
			}
		}
	}
}

func requireNamed(t *testing.T, err error, dir, what string) {
	if err == nil {
		return
	}
	require.True(t, errors.Is(err, reason.StoreFailed) || errors.Is(err, reason.StateRolledBack), "%s: %v", what, err)
	require.ErrorContains(t, err, dir, what)
}

// TestLostListOfTables: a list of tables that is cut, or changed for an older one, is found although the log is whole.
func TestLostListOfTables(t *testing.T) {
	dir := filled(t)
	list := only(t, filepath.Join(dir, "MANIFEST-*"))
	data, err := os.ReadFile(list)
	require.NoError(t, err)
	for cut := 1; cut < len(data); cut += 7 {
		require.NoError(t, os.WriteFile(list, data[:len(data)-cut], 0o600))
		_, err = store.Open(dir)
		require.ErrorIs(t, err, reason.StateRolledBack, "cut by %d", cut)
	}
	require.NoError(t, os.WriteFile(list, data, 0o600))
	ds, err := store.Open(dir)
	require.NoError(t, err)
	require.NoError(t, ds.Close())
}

// TestProofItself: one damaged slot is healed; a file without a whole slot, or none, proves nothing, and is said.
func TestProofItself(t *testing.T) {
	clean := filled(t)
	open := func(dir string) error {
		ds, err := store.Open(dir)
		if err == nil {
			err = ds.Close()
		}
		return err
	}
	copied := func() (dir, file string) {
		dir = t.TempDir()
		require.NoError(t, os.CopyFS(dir, os.DirFS(clean)))
		return dir, filepath.Join(dir, "acknowledged")
	}
	for slot := range int64(2) {
		dir, file := copied()
		flip(t, file, slot*4096+20)
		require.NoError(t, open(dir))
		require.NoError(t, open(dir))
	}
	dir, file := copied()
	flip(t, file, 20)
	flip(t, file, 4096+20)
	require.ErrorIs(t, open(dir), reason.StateRolledBack)
	dir, file = copied()
	require.NoError(t, os.Remove(file))
	require.ErrorIs(t, open(dir), reason.StateRolledBack)
	require.NoError(t, store.Accept(dir))
	require.NoError(t, open(dir))
}

// TestPowerLossIsNoDamage: commits of several goroutines with tables written between, lost at any moment with any part of what was not
// synced: what was acknowledged is there, and no start takes the loss for damage.
func TestPowerLossIsNoDamage(t *testing.T) {
	for seed := range uint64(24) {
		d := store.NewDisk()
		ds, err := d.Open()
		require.NoError(t, err)
		acked := make([]int, 4)
		var all sync.WaitGroup
		for w := range acked {
			all.Go(func() {
				for i := range int(40 + 10*seed) {
					b, err := ds.Batch(t.Context())
					if err == nil {
						err = b.Put(t.Context(), datastore.NewKey(fmt.Sprintf("/%d/%d", w, i)), make([]byte, 9000))
					}
					if err == nil {
						err = store.Commit(t.Context(), ds, b)
					}
					if err != nil {
						return
					}
					acked[w] = i + 1
				}
			})
		}
		all.Wait()
		d.PowerLoss(int(seed*13%101), seed)
		require.NoError(t, ds.Close())
		ds, err = d.Open()
		require.NoError(t, err)
		for w, n := range acked {
			for i := range n {
				ok, err := ds.Has(t.Context(), datastore.NewKey(fmt.Sprintf("/%d/%d", w, i)))
				require.NoError(t, err)
				require.True(t, ok)
			}
		}
		require.NoError(t, ds.Close())
	}
}

// BenchmarkCommit is what a synced commit costs, alone and with others.
func BenchmarkCommit(b *testing.B) {
	for _, n := range []int{1, 16} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			ds, err := store.Open(b.TempDir())
			require.NoError(b, err)
			b.SetParallelism(n)
			work := func(next func() bool) {
				for next() {
					batch, err := ds.Batch(b.Context())
					if err == nil {
						err = batch.Put(b.Context(), datastore.NewKey("/a"), make([]byte, 300))
					}
					if err == nil {
						err = store.Commit(b.Context(), ds, batch)
					}
					if err != nil {
						b.Error(err)
						return
					}
				}
			}
			if n == 1 {
				work(b.Loop)
			} else {
				b.RunParallel(func(pb *testing.PB) { work(pb.Next) })
			}
			b.StopTimer()
			require.NoError(b, ds.Close())
		})
	}
}
