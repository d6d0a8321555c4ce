package node

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/shared"
)

// TestCacheQuota: the least recently used goes first, never one in use or just retrieved, and what is not ours stays.
func TestCacheQuota(t *testing.T) {
	ctx, dir, now := t.Context(), t.TempDir(), time.Now()
	tg, err := openTargets(ctx, blob.OS{}, dir, dssync.MutexWrap(datastore.NewMapDatastore()))
	require.NoError(t, err)
	put := func(name string, size int, used time.Duration) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, make([]byte, size), 0o600))
		require.NoError(t, tg.touch(ctx, path, now.Add(-used)))
		return path
	}
	root, err := cid.V1Builder{Codec: cid.Raw, MhType: mh.SHA2_256}.Sum([]byte("x"))
	require.NoError(t, err)
	held, err := tg.Acquire(root, shared.AllSelector())
	require.NoError(t, err)
	require.NoError(t, tg.touch(ctx, held.Path, now.Add(-100*time.Hour)))
	oldest, middle, newest, fresh := put("a.car", 100, 3*time.Hour), put("b.car", 100, 2*time.Hour), put("c.car", 100, time.Hour), put("d.car", 500, time.Minute)
	other := filepath.Join(dir, "notes.txt")
	require.NoError(t, os.WriteFile(other, make([]byte, 1000), 0o600))
	size, err := os.Stat(held.Path)
	require.NoError(t, err)

	require.NoError(t, tg.trim(ctx, 0, now), "no quota")
	require.FileExists(t, oldest)
	require.NoError(t, tg.trim(ctx, 700+size.Size(), now))
	require.NoFileExists(t, oldest)
	require.FileExists(t, middle)
	require.NoError(t, tg.trim(ctx, 1, now))
	require.NoFileExists(t, middle)
	require.NoFileExists(t, newest)
	for _, stays := range []string{held.Path, fresh, other} {
		require.FileExists(t, stays)
	}
	require.NoError(t, tg.Release(held))
}

// TestRoomFor: too little disk is said with both numbers, for the file and its export together.
func TestRoomFor(t *testing.T) {
	dir := t.TempDir()
	tg, err := openTargets(t.Context(), blob.OS{}, dir, dssync.MutexWrap(datastore.NewMapDatastore()))
	require.NoError(t, err)
	free, _, ok := blob.Free(dir)
	if !ok {
		t.Skip("this host does not say how much is free")
	}
	require.NoError(t, tg.roomFor(1, 1, filepath.Join(dir, "out")))
	require.ErrorContains(t, tg.roomFor(math.MaxUint64/2, 0, ""), "too little disk")
	require.ErrorContains(t, tg.roomFor(free*3/4, free*3/4, filepath.Join(dir, "out")), "too little disk", "both are on one disk")
}
