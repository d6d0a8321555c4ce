package store

import (
	"errors"
	"testing"
	"time"

	"github.com/ipfs/go-datastore"
	"github.com/stretchr/testify/require"
)

// TestNoRoom: a disk that is nearly full takes no writes, is read, and takes them again when there is room.
func TestNoRoom(t *testing.T) {
	free := uint64(reserve)
	full := func(r *diskReserve) {
		r.free = func(string) (uint64, bool) { return free, true }
		r.next = time.Time{}
	}
	ds, err := Open(t.TempDir())
	require.NoError(t, err)
	kv, err := OpenKV(t.TempDir())
	require.NoError(t, err)
	write := func(value string) error {
		full(ds.(*records).room)
		full(kv.room)
		b, err := ds.Batch(t.Context())
		require.NoError(t, err)
		require.NoError(t, b.Put(t.Context(), datastore.NewKey("/b"), []byte(value)))
		raw := kv.NewBatch()
		raw.Set([]byte("b"), []byte(value))
		return errors.Join(ds.Put(t.Context(), datastore.NewKey("/a"), []byte(value)), Commit(t.Context(), ds, b), raw.Commit(true))
	}
	read := func() (out string) {
		for _, k := range []string{"/a", "/b"} {
			v, err := ds.Get(t.Context(), datastore.NewKey(k))
			require.NoError(t, err)
			out += string(v)
		}
		v, err := kv.Get([]byte("b"))
		require.NoError(t, err)
		return out + string(v)
	}
	require.NoError(t, write("1"))
	free--
	err = write("2")
	require.ErrorIs(t, err, ErrNoRoom)
	require.ErrorContains(t, err, "67108863 bytes are free")
	require.NoError(t, ds.Delete(t.Context(), datastore.NewKey("/c")), "what makes room is done")
	less := kv.NewBatch()
	less.Delete([]byte("c"))
	require.NoError(t, less.Commit(true))
	require.Equal(t, "111", read())
	free++
	require.NoError(t, write("3"))
	require.Equal(t, "333", read())
	require.NoError(t, errors.Join(ds.Close(), kv.Close()))
}
