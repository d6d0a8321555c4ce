package store_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ipfs/go-datastore"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cartage-dev/cartage/internal/store"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("STORE_TO_OPEN"); dir != "" {
		if _, err := store.OpenKV(dir); err != nil {
			os.Stdout.WriteString(err.Error())
		}
		os.Exit(0)
	}
	if dir := os.Getenv("STORE_TO_FILL"); dir != "" {
		if err := fillUntilRefused(context.Background(), dir); err != nil {
			fmt.Println("unexpected:", err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("go.opencensus.io/stats/view.(*worker).start"))
}

// TestOneOwner: a folder has one owner, in this process and among several, and nothing is left of a refused open.
func TestOneOwner(t *testing.T) {
	dir := t.TempDir()
	ds, err := store.Open(dir)
	require.NoError(t, err)
	_, err = store.Open(dir)
	require.ErrorIs(t, err, store.ErrLocked)
	_, err = store.OpenKV(dir)
	require.ErrorIs(t, err, store.ErrLocked)
	self, err := os.Executable()
	require.NoError(t, err)
	other := exec.Command(self)
	other.Env = append(os.Environ(), "STORE_TO_OPEN="+dir)
	out, err := other.CombinedOutput()
	require.NoError(t, err)
	require.Contains(t, string(out), store.ErrLocked.Error())
	require.NoError(t, ds.Close())
	kv, err := store.OpenKV(dir)
	require.NoError(t, err)
	require.NoError(t, kv.Close())
}

func TestUnusableFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := store.Open(file)
	require.ErrorContains(t, err, file)
	require.NotErrorIs(t, err, store.ErrLocked)
}

// TestCommit: a committed batch is there after the store was reopened.
func TestCommit(t *testing.T) {
	dir := t.TempDir()
	ds, err := store.Open(dir)
	require.NoError(t, err)
	b, err := ds.Batch(t.Context())
	require.NoError(t, err)
	require.NoError(t, b.Put(t.Context(), datastore.NewKey("/a"), []byte("1")))
	require.NoError(t, b.Put(t.Context(), datastore.NewKey("/b"), []byte("2")))
	require.NoError(t, store.Commit(t.Context(), ds, b))
	require.NoError(t, ds.Close())
	ds, err = store.Open(dir)
	require.NoError(t, err)
	v, err := ds.Get(t.Context(), datastore.NewKey("/b"))
	require.NoError(t, err)
	require.Equal(t, "2", string(v))
	require.NoError(t, ds.Close())
}

func TestScan(t *testing.T) {
	kv, err := store.OpenMemoryKV()
	require.NoError(t, err)
	defer kv.Close()
	b := kv.NewBatch()
	for _, k := range []string{"a1", "a2", "a\xff", "b1", "\xff\xff"} {
		b.Set([]byte(k), []byte("v"+k))
	}
	require.NoError(t, b.Commit(true))
	read := func(prefix, from string) (out []string) {
		require.NoError(t, kv.ScanFrom([]byte(prefix), []byte(from), func(k, _ []byte) bool {
			out = append(out, string(k))
			return true
		}))
		return out
	}
	require.Equal(t, []string{"a1", "a2", "a\xff"}, read("a", "a"))
	require.Equal(t, []string{"a2", "a\xff"}, read("a", "a2"))
	require.Equal(t, []string{"\xff\xff"}, read("\xff", "\xff"))
	n := 0
	require.NoError(t, kv.Scan([]byte("a"), func(_, _ []byte) bool { n++; return false }))
	require.Equal(t, 1, n)
	b = kv.NewBatch()
	b.DeleteRange([]byte("a2"), []byte("b1"))
	require.NoError(t, b.Commit(true))
	require.Equal(t, []string{"a1"}, read("a", "a"))
	v, err := kv.Get([]byte("a2"))
	require.NoError(t, err)
	require.Nil(t, v)
}
