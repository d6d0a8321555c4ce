package faults_test

import (
	"testing"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/faults"
)

// TestRecordsLose: a sync makes all before it durable, and a loss leaves the first few writes after it, batches whole.
func TestRecordsLose(t *testing.T) {
	for kept, want := range []string{"", "b", "bcd", "bcd"} {
		r := faults.NewRecords()
		key := datastore.NewKey
		require.NoError(t, r.Put(t.Context(), key("/a"), []byte("1")))
		require.NoError(t, r.Sync(t.Context(), key("/")))
		require.NoError(t, r.Put(t.Context(), key("/b"), []byte("2")))
		b, err := r.Batch(t.Context())
		require.NoError(t, err)
		require.NoError(t, b.Put(t.Context(), key("/c"), nil))
		require.NoError(t, b.Put(t.Context(), key("/d"), []byte("4")))
		require.NoError(t, b.Delete(t.Context(), key("/a")))
		has, err := r.Has(t.Context(), key("/c"))
		require.NoError(t, err)
		require.False(t, has, "before its commit")
		require.NoError(t, b.Commit(t.Context()))
		_, err = r.Get(t.Context(), key("/a"))
		require.ErrorIs(t, err, datastore.ErrNotFound)
		r.PowerLoss(func(writes int) int {
			require.Equal(t, 2, writes)
			return kept
		})
		if kept < 2 {
			want = "a" + want
		}
		res, err := r.Query(t.Context(), query.Query{Orders: []query.Order{query.OrderByKey{}}})
		require.NoError(t, err)
		got := ""
		for e := range res.Next() {
			got += e.Key[1:]
		}
		require.Equal(t, want, got, "%d kept", kept)
		r.PowerLoss(nil)
		has, err = r.Has(t.Context(), key("/a"))
		require.NoError(t, err)
		require.Equal(t, kept < 2, has, "what survived is durable")
	}
}
