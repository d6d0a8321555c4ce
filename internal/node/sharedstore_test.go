package node

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/shared"
)

// TestSharedStore: a payload with blocks that are their own CIDs is whole in the store, and one of whose blocks is damaged there is put again.
func TestSharedStore(t *testing.T) {
	leaf := []byte("a leaf of its own")
	own, err := cid.V1Builder{Codec: cid.Raw, MhType: mh.IDENTITY}.Sum([]byte("tiny"))
	require.NoError(t, err)
	far, err := cid.V1Builder{Codec: cid.Raw, MhType: mh.SHA2_256}.Sum(leaf)
	require.NoError(t, err)
	node, err := qp.BuildList(basicnode.Prototype.Any, 2, func(la datamodel.ListAssembler) {
		qp.ListEntry(la, qp.Link(cidlink.Link{Cid: own}))
		qp.ListEntry(la, qp.Link(cidlink.Link{Cid: far}))
	})
	require.NoError(t, err)
	data, err := ipld.Encode(node, dagcbor.Encode)
	require.NoError(t, err)
	root, err := cid.V1Builder{Codec: cid.DagCBOR, MhType: mh.SHA2_256}.Sum(data)
	require.NoError(t, err)
	car, err := carstore.Open(blob.OS{}, filepath.Join(t.TempDir(), "a.car"), root)
	require.NoError(t, err)
	defer car.Close()
	require.NoError(t, car.Put(root, data))
	require.NoError(t, car.Put(far, leaf))

	ds := dssync.MutexWrap(datastore.NewMapDatastore())
	s := &sharedStore{open: func() (datastore.Batching, error) { return ds, nil }}
	whole := func() bool {
		at, err := carstore.LocateIn(root, shared.AllSelector(), s.get(t.Context()))
		require.NoError(t, err)
		return at.Complete
	}
	require.False(t, whole())
	require.NoError(t, s.take(t.Context(), car))
	require.True(t, whole())
	results, err := ds.Query(t.Context(), query.Query{})
	require.NoError(t, err)
	for r := range results.Next() {
		if bytes.Equal(r.Value, leaf) {
			require.NoError(t, ds.Put(t.Context(), datastore.RawKey(r.Key), []byte("damaged")))
		}
	}
	require.False(t, whole())
	require.NoError(t, s.take(t.Context(), car))
	require.True(t, whole())
}
