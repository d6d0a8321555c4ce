package storedcounter_test

import (
	"sync"
	"testing"

	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/storedcounter"
)

func TestNext(t *testing.T) {
	ds, key := dssync.MutexWrap(datastore.NewMapDatastore()), datastore.NewKey("/retr")
	c := storedcounter.New(ds, key)
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[uint64]bool{}
	for range 100 {
		wg.Go(func() {
			n, err := c.Next(t.Context())
			mu.Lock()
			defer mu.Unlock()
			if err != nil || seen[n] {
				t.Errorf("%d twice, or %v", n, err)
			}
			seen[n] = true
		})
	}
	wg.Wait()
	require.True(t, seen[0] && seen[99])
	n, err := storedcounter.New(ds, key).Next(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 100, n)
	require.NoError(t, ds.Put(t.Context(), key, []byte{0xff}))
	_, err = c.Next(t.Context())
	require.ErrorContains(t, err, "not a number")
}
