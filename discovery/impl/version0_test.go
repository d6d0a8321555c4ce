package discoveryimpl_test

import (
	"bytes"
	"encoding/base32"
	"testing"

	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/discovery"
	discoveryimpl "github.com/cartage-dev/cartage/discovery/impl"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

// TestVersion0: peers that were stored before records had a version are found after the start; what else lies there is left alone.
func TestVersion0(t *testing.T) {
	ds := dssync.MutexWrap(datastore.NewMapDatastore())
	p, piece := payload(t, "a"), payload(t, "piece")
	rec := discovery.RetrievalPeers{Peers: []rm.RetrievalPeer{somePeer(t, "one", nil), somePeer(t, "two", &piece)}}
	var b bytes.Buffer
	require.NoError(t, rec.MarshalTuple(&b))
	old := datastore.NewKey("/" + base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(p.Hash()))
	require.NoError(t, ds.Put(t.Context(), old, b.Bytes()))
	other := datastore.NewKey("/settings/of/somebody")
	require.NoError(t, ds.Put(t.Context(), other, []byte("else")))
	for range 2 {
		l, err := discoveryimpl.NewLocal(ds)
		require.NoError(t, err)
		require.NoError(t, l.Start(t.Context()))
		got, err := l.GetPeers(p)
		require.NoError(t, err)
		require.Equal(t, rec.Peers, got)
	}
	left, err := ds.Has(t.Context(), old)
	require.NoError(t, err)
	require.False(t, left)
	_, err = ds.Get(t.Context(), other)
	require.NoError(t, err)

	require.NoError(t, ds.Delete(t.Context(), datastore.NewKey("/versions/current")))
	require.NoError(t, ds.Put(t.Context(), old, []byte("damaged")))
	l, err := discoveryimpl.NewLocal(ds)
	require.NoError(t, err)
	require.ErrorContains(t, l.Start(t.Context()), old.String())
}
