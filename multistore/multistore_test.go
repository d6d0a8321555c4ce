package multistore_test

import (
	"fmt"
	"testing"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/multistore"
)

func TestStoresAreApart(t *testing.T) {
	ds := dssync.MutexWrap(datastore.NewMapDatastore())
	m, err := multistore.NewMultiDstore(ds)
	require.NoError(t, err)
	var ids multistore.StoreIDList
	for i := range 3 {
		id := m.Next()
		ids = append(ids, id)
		s, err := m.Get(id)
		require.NoError(t, err)
		require.NoError(t, s.Bstore.Put(t.Context(), blocks.NewBlock(fmt.Appendf(nil, "block %d", i))))
	}
	require.Equal(t, ids, m.List())
	data, err := ds.Get(t.Context(), datastore.NewKey("/list"))
	require.NoError(t, err)
	require.JSONEq(t, "[1,2,3]", string(data))

	m, err = multistore.NewMultiDstore(ds) // as after a restart
	require.NoError(t, err)
	require.Equal(t, ids, m.List())
	for i, id := range ids {
		s, err := m.Get(id)
		require.NoError(t, err)
		for j := range ids {
			has, err := s.Bstore.Has(t.Context(), blocks.NewBlock(fmt.Appendf(nil, "block %d", j)).Cid())
			require.NoError(t, err)
			require.Equal(t, i == j, has)
		}
	}
	require.NoError(t, m.Delete(ids[1]))
	require.NoError(t, m.Delete(ids[1]), "what is not there is no error")
	require.Equal(t, multistore.StoreIDList{1, 3}, m.List())
	require.EqualValues(t, 4, m.Next())
	left, err := ds.Query(t.Context(), query.Query{Prefix: "/multi/2", KeysOnly: true})
	require.NoError(t, err)
	entries, err := left.Rest()
	require.NoError(t, err)
	require.Empty(t, entries)
	require.NoError(t, m.Close())
	_, err = m.Get(1)
	require.ErrorIs(t, err, multistore.ErrClosed)
}

func TestBadList(t *testing.T) {
	ds := dssync.MutexWrap(datastore.NewMapDatastore())
	require.NoError(t, ds.Put(t.Context(), datastore.NewKey("/list"), []byte("none")))
	_, err := multistore.NewMultiDstore(ds)
	require.ErrorContains(t, err, `list of stores "none"`)
}
