package faults_test

import (
	"path/filepath"
	"testing"

	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/internal/faults"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestSwitch: the n-th write and everything after it fails, files and records count together, and what was written before
// stays.
func TestSwitch(t *testing.T) {
	crashed := make(chan struct{})
	sw := &faults.Switch{At: 4, OnCrash: func() { close(crashed) }}
	under := dssync.MutexWrap(datastore.NewMapDatastore())
	ds, fsys := faults.Store{Batching: under, Switch: sw}, faults.FS{FS: blob.OS{}, Switch: sw}
	name := filepath.Join(t.TempDir(), "f")
	require.NoError(t, ds.Put(t.Context(), datastore.NewKey("/a"), []byte("1")))
	f, err := fsys.Create(name, 0o600)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("12345678"), 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("abcdefgh"), 8)
	require.ErrorIs(t, err, faults.ErrCrashed)
	<-crashed
	require.True(t, sw.Crashed())
	require.ErrorIs(t, ds.Put(t.Context(), datastore.NewKey("/b"), nil), faults.ErrCrashed)
	require.ErrorIs(t, f.Sync(), faults.ErrCrashed)
	require.ErrorIs(t, fsys.Rename(name, name+"x"), faults.ErrCrashed)
	size, err := f.Size()
	require.NoError(t, err)
	require.EqualValues(t, 12, size, "a write that dies may be half there")
	require.NoError(t, f.Close())
	has, err := under.Has(t.Context(), datastore.NewKey("/a"))
	require.NoError(t, err)
	require.True(t, has)
	require.Equal(t, 4, sw.Count())
}
