package carstore_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-car/v2"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	selectorparse "github.com/ipld/go-ipld-prime/traversal/selector/parse"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/carstore"
)

// dag is blocks of dag-cbor lists, whose links are to blocks that are there already.
type dag map[cid.Cid][]byte

func (d dag) list(t testing.TB, code uint64, links ...cid.Cid) cid.Cid {
	t.Helper()
	n, err := qp.BuildList(basicnode.Prototype.Any, -1, func(la datamodel.ListAssembler) {
		qp.ListEntry(la, qp.Int(int64(len(d))))
		for _, l := range links {
			qp.ListEntry(la, qp.Link(cidlink.Link{Cid: l}))
		}
	})
	require.NoError(t, err)
	data, err := ipld.Encode(n, dagcbor.Encode)
	require.NoError(t, err)
	c, err := cid.V1Builder{Codec: cid.DagCBOR, MhType: code}.Sum(data)
	require.NoError(t, err)
	d[c] = data
	return c
}

func (d dag) links() ipld.LinkSystem {
	return carstore.Links(func(c cid.Cid) ([]byte, error) {
		if b, ok := d[c]; ok {
			return b, nil
		}
		return nil, carstore.ErrNotFound
	})
}

// TestWriteCARFrom: the archive of a DAG in which blocks are linked more than once, some of them in their own CID, is the one that go-car
// writes.
func TestWriteCARFrom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		d, all := dag{}, []cid.Cid{}
		for range 60 {
			var links []cid.Cid
			for range min(len(all), rnd.IntN(5)) {
				links = append(links, all[rnd.IntN(len(all))])
			}
			code := uint64(mh.SHA2_256)
			if len(links) == 0 && rnd.IntN(2) == 0 {
				code = mh.IDENTITY
			}
			all = append(all, d.list(t, code, links...))
		}
		root := d.list(t, mh.SHA2_256, all[50:]...)
		ls := d.links()
		var want, got bytes.Buffer
		_, err := car.TraverseV1(t.Context(), &ls, root, selectorparse.CommonSelector_ExploreAllRecursively, &want, car.StoreIdentityCIDs(true))
		require.NoError(t, err)
		require.NoError(t, carstore.WriteCARFrom(t.Context(), &ls, root, &got))
		require.True(t, bytes.Equal(want.Bytes(), got.Bytes()))
	}
}

// TestDeepDAG: a chain of blocks, as deep as somebody likes, costs memory by the block and not by the depth.
func TestDeepDAG(t *testing.T) {
	d := dag{}
	at := d.list(t, mh.SHA2_256)
	for range 200_000 {
		at = d.list(t, mh.SHA2_256, at)
	}
	ls := d.links()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	require.NoError(t, carstore.WriteCARFrom(t.Context(), &ls, at, io.Discard))
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<30))
}
