package store_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/internal/store"
)

// listed are the keys of a store, those of its deals only.
func listed(t *testing.T, ds datastore.Batching) map[string]bool {
	res, err := ds.Query(t.Context(), query.Query{Prefix: "/deals", KeysOnly: true})
	require.NoError(t, err)
	all, err := res.Rest()
	require.NoError(t, err)
	out := map[string]bool{}
	for _, e := range all {
		out[e.Key] = true
	}
	require.Len(t, out, len(all))
	return out
}

// TestRescue: of a store with one wrong bit everything is read but what the damaged block may have changed, and the folder stays as it is.
func TestRescue(t *testing.T) {
	dir := filled(t)
	table := only(t, filepath.Join(dir, "*.sst"))
	st, err := os.Stat(table)
	require.NoError(t, err)
	flip(t, table, st.Size()/3)
	before, err := os.ReadFile(table)
	require.NoError(t, err)

	ds, err := store.Open(dir)
	require.NoError(t, err)
	_, err = store.Verify(t.Context(), ds)
	require.ErrorIs(t, err, reason.StoreFailed)
	require.ErrorContains(t, err, filepath.Base(table))
	require.NoError(t, ds.Close())

	r, err := store.OpenRescue(t.Context(), dir)
	require.NoError(t, err)
	require.NoError(t, r.Lost)
	require.Len(t, r.Holes, 1)
	require.Contains(t, r.Holes[0].String(), table)
	got := listed(t, r)
	require.Less(t, len(got), damagedRecords)
	require.Greater(t, len(got), damagedRecords*9/10)
	for i := range damagedRecords {
		_, err := r.Get(t.Context(), recordKey(i))
		require.Equal(t, got[recordKey(i).String()], err == nil, i)
		if err != nil {
			require.ErrorIs(t, err, reason.StoreFailed)
		}
	}
	// A newer record of the same range, in another table, is not taken for what a damaged one might have changed.
	require.NoError(t, r.Put(t.Context(), recordKey(0), []byte("here")))
	require.NoError(t, r.Close())
	after, err := os.ReadFile(table)
	require.NoError(t, err)
	require.Equal(t, before, after)
}

// TestRescueIndex: what says where the blocks of a table are is damaged: nothing of that table is read, and nothing is told in its place.
func TestRescueIndex(t *testing.T) {
	dir := filled(t)
	table := only(t, filepath.Join(dir, "*.sst"))
	st, err := os.Stat(table)
	require.NoError(t, err)
	for at := st.Size() - 2500; at < st.Size()-100; at += 100 {
		flip(t, table, at)
	}
	r, err := store.OpenRescue(t.Context(), dir)
	require.NoError(t, err)
	require.NotEmpty(t, r.Holes)
	require.Error(t, r.Lost)
	require.Empty(t, listed(t, r))
	_, err = r.Get(t.Context(), recordKey(1))
	require.ErrorIs(t, err, reason.StoreFailed)
	require.NoError(t, r.Close())
}

// TestVerifyWell: of a whole store everything is read.
func TestVerifyWell(t *testing.T) {
	ds, err := store.Open(filled(t))
	require.NoError(t, err)
	sum, err := store.Verify(t.Context(), ds)
	require.NoError(t, err)
	require.GreaterOrEqual(t, sum.Records, damagedRecords)
	require.Equal(t, 1, sum.Tables)
	require.NoError(t, store.Failed(ds))
	require.NoError(t, ds.Close())
}
