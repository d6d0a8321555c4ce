package multistore_test

import (
	"fmt"
	"io"
	"testing"

	"github.com/ipfs/boxo/ipld/merkledag"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	dssync "github.com/ipfs/go-datastore/sync"
	format "github.com/ipfs/go-ipld-format"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
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

// TestViews: what is written through one face of a store is read through the others and through all stores at once, which take nothing.
func TestViews(t *testing.T) {
	m, err := multistore.NewMultiDstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	require.NoError(t, err)
	one, err := m.Get(m.Next())
	require.NoError(t, err)
	two, err := m.Get(m.Next())
	require.NoError(t, err)

	node := merkledag.NewRawNode([]byte("by node"))
	require.NoError(t, one.DAG.Add(t.Context(), node))
	lc := linking.LinkContext{Ctx: t.Context()}
	w, commit, err := two.Storer(lc)
	require.NoError(t, err)
	linked := blocks.NewBlock([]byte("by link"))
	_, err = w.Write(linked.RawData())
	require.NoError(t, err)
	require.NoError(t, commit(cidlink.Link{Cid: linked.Cid()}))
	r, err := one.Loader(lc, cidlink.Link{Cid: node.Cid()})
	require.NoError(t, err)
	data, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, node.RawData(), data)
	_, err = one.Loader(lc, cidlink.Link{Cid: linked.Cid()})
	require.True(t, format.IsNotFound(err))

	all := m.MultiReadBlockstore()
	for _, b := range []blocks.Block{node, linked} {
		has, err := all.Has(t.Context(), b.Cid())
		require.NoError(t, err)
		require.True(t, has)
		got, err := all.Get(t.Context(), b.Cid())
		require.NoError(t, err)
		require.Equal(t, b.RawData(), got.RawData())
		n, err := all.GetSize(t.Context(), b.Cid())
		require.NoError(t, err)
		require.Equal(t, len(b.RawData()), n)
	}
	keys, err := all.AllKeysChan(t.Context())
	require.NoError(t, err)
	n := 0
	for range keys {
		n++
	}
	require.Equal(t, 2, n)
	none := blocks.NewBlock([]byte("nowhere"))
	_, err = all.Get(t.Context(), none.Cid())
	require.True(t, format.IsNotFound(err))
	require.Error(t, all.Put(t.Context(), none))
	require.Error(t, all.PutMany(t.Context(), []blocks.Block{none}))
	require.Error(t, all.DeleteBlock(t.Context(), node.Cid()))
	require.NoError(t, one.Close())
	require.NoError(t, m.Close())
	_, err = all.Get(t.Context(), node.Cid())
	require.ErrorIs(t, err, multistore.ErrClosed)
}
