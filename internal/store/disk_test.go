package store_test

import (
	"context"
	"testing"

	"github.com/ipfs/go-datastore"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/store"
)

// TestPowerLoss: over the engine itself, what was committed with a sync is there after a power loss, and what was not is gone; whatever part
// of it survives, the store opens.
func TestPowerLoss(t *testing.T) {
	a, b := datastore.NewKey("/a"), datastore.NewKey("/b")
	for seed := range uint64(8) {
		d := store.NewDisk()
		ds, err := d.Open()
		require.NoError(t, err)
		batch, err := ds.Batch(t.Context())
		require.NoError(t, err)
		require.NoError(t, batch.Put(t.Context(), a, []byte("1")))
		require.NoError(t, store.Commit(t.Context(), ds, batch))
		require.NoError(t, ds.Put(t.Context(), b, []byte("2")))
		d.PowerLoss(int(seed)*10, seed)
		require.NoError(t, ds.Close())
		ds, err = d.Open()
		require.NoError(t, err)
		has := func(k datastore.Key) bool {
			ok, err := ds.Has(context.Background(), k)
			require.NoError(t, err)
			return ok
		}
		require.True(t, has(a))
		if seed == 0 {
			require.False(t, has(b))
		}
		require.NoError(t, ds.Close())
	}
}
