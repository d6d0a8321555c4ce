package discoveryimpl_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/filecoin-project/go-address"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/peer"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/discovery"
	discoveryimpl "github.com/cartage-dev/cartage/discovery/impl"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

func payload(t *testing.T, s string) cid.Cid {
	c, err := cid.V1Builder{Codec: cid.Raw, MhType: mh.SHA2_256}.Sum([]byte(s))
	require.NoError(t, err)
	return c
}

func somePeer(t *testing.T, id string, piece *cid.Cid) rm.RetrievalPeer {
	a, err := address.NewIDAddress(1001)
	require.NoError(t, err)
	return rm.RetrievalPeer{Address: a, ID: peer.ID(id), PieceCID: piece}
}

// TestM30Local: equal peers are one, whatever pointers say; concurrent adds lose nothing; the codec of a CID does not matter.
func TestM30Local(t *testing.T) {
	l, err := discoveryimpl.NewLocal(dssync.MutexWrap(datastore.NewMapDatastore()))
	require.NoError(t, err)
	ready := make(chan error, 1)
	l.OnReady(func(err error) { ready <- err })
	require.NoError(t, l.Start(t.Context()))
	require.NoError(t, <-ready)
	p := payload(t, "a")
	none, err := l.GetPeers(p)
	require.NoError(t, err)
	require.NotNil(t, none)
	require.Empty(t, none)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			piece := payload(t, "piece")
			if err := l.AddPeer(context.WithoutCancel(t.Context()), p, somePeer(t, fmt.Sprint("p", i%5), &piece)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got, err := l.GetPeers(cid.NewCidV1(cid.DagCBOR, p.Hash()))
	require.NoError(t, err)
	require.Len(t, got, 5)
	for i := range 995 {
		require.NoError(t, l.AddPeer(t.Context(), p, somePeer(t, fmt.Sprint("q", i), nil)))
	}
	require.ErrorContains(t, l.AddPeer(t.Context(), p, somePeer(t, "one more", nil)), "1000 peers")
}

type failing struct{ err error }

func (f failing) GetPeers(cid.Cid) ([]rm.RetrievalPeer, error) { return nil, f.err }

// TestMulti: answers are joined without repeats, and a resolver that fails does not hide the others.
func TestMulti(t *testing.T) {
	down := errors.New("down")
	a, b := somePeer(t, "a", nil), somePeer(t, "b", nil)
	m := discoveryimpl.Multi(discovery.Static{a}, failing{down}, discovery.Static{a, b})
	got, err := m.GetPeers(payload(t, "x"))
	require.NoError(t, err)
	require.Equal(t, []rm.RetrievalPeer{a, b}, got)
	_, err = discoveryimpl.Multi(failing{down}).GetPeers(payload(t, "x"))
	require.ErrorIs(t, err, down)
	got, err = discoveryimpl.Multi().GetPeers(payload(t, "x"))
	require.NoError(t, err)
	require.NotNil(t, got)
}
