package dagstore_test

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/dagstore"
	"github.com/cartage-dev/cartage/internal/store"
)

// TestR_D2 : a shard that cannot be read any more stays Errored when its last reader leaves; only a recovery or a destroy ends that.
func TestR_D2(t *testing.T) {
	w := newWorld(t, func(c *dagstore.Config) { c.RecoverAttempts = -1 })
	m, piece, cids := w.origin("a", 1, true)
	m.before = func(_ context.Context, n int64) error {
		if n == 1 {
			return errOrigin
		}
		return nil
	}
	w.lazy("a", piece)
	for range 2 { // who asks fails and leaves
		_, err := w.Acquire(t.Context(), piece)
		require.ErrorContains(t, err, errOrigin.Error()) // the second hears the text that is kept
		require.Equal(t, dagstore.StateErrored, w.state(piece))
	}
	w.restart()
	require.Equal(t, dagstore.StateErrored, w.state(piece))
	require.NoError(t, w.Recover(t.Context(), piece))
	w.readable(piece, cids[0])
	sh, err := w.Info(piece)
	require.NoError(t, err)
	require.Empty(t, sh.Error)
}

// TestR_D12 : taking access to a shard and giving it back writes nothing.
func TestR_D12(t *testing.T) {
	var writes atomic.Int64
	w := newWorld(t, func(c *dagstore.Config) {
		c.BeforeWrite = func() error {
			writes.Add(1)
			return nil
		}
	})
	_, piece, cids := w.origin("a", 1, false)
	w.lazy("a", piece)
	w.readable(piece, cids[0])
	before := writes.Load()
	require.Positive(t, before)
	for range 100 {
		a, err := w.Acquire(t.Context(), piece)
		require.NoError(t, err)
		_, err = a.Get(cids[0])
		require.NoError(t, err)
		require.NoError(t, a.Close())
	}
	require.Equal(t, before, writes.Load())
}

// TestR_D15 : a record that does not parse is kept, told of by the doctor, and disturbs no other shard.
func TestR_D15(t *testing.T) {
	w := newWorld(t)
	_, good, cids := w.origin("a", 1, false)
	w.lazy("a", good)
	_, bad, _ := w.origin("b", 2, false)
	sh := w.lazy("b", bad)
	require.NoError(t, w.Close())
	kv, err := store.OpenKV(filepath.Join(w.cfg.Dir, "index"))
	require.NoError(t, err)
	damaged := 0
	var keys [][]byte
	require.NoError(t, kv.Scan(nil, func(key, value []byte) bool {
		if bytes.Contains(value, []byte("test://b")) {
			keys = append(keys, bytes.Clone(key))
		}
		return true
	}))
	b := kv.NewBatch()
	for _, k := range keys {
		b.Set(k, []byte{0xff})
		damaged++
	}
	require.NoError(t, b.Commit(true))
	require.NoError(t, kv.Close())
	require.Positive(t, damaged, "shard %v", sh)
	w.start()
	w.readable(good, cids[0])
	for range 2 {
		var found []string
		for f, err := range w.Doctor(t.Context()) {
			require.NoError(t, err)
			found = append(found, fmt.Sprint(f.Number, " ", f.Reason))
		}
		require.NotEmpty(t, found)
		w.restart()
	}
}

// TestR_W4 : a crowd that asks for a piece that nobody has read yet has it read once.
func TestR_W4(t *testing.T) {
	w := newWorld(t)
	m, piece, cids := w.origin("a", 1, true)
	w.lazy("a", piece)
	errs := make(chan error, 50)
	for range cap(errs) {
		go func() {
			a, err := w.Acquire(t.Context(), piece)
			if err == nil {
				_, err = a.Get(cids[1])
				_ = a.Close()
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		require.NoError(t, <-errs)
	}
	require.EqualValues(t, 1, m.opens.Load())
}
