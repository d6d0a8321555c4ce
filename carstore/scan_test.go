package carstore

import (
	"bytes"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"
)

// FuzzLinks: the links of whatever is in a block are those that decoding it finds, in their order, or there is an error.
func FuzzLinks(f *testing.F) {
	leaf := cid.MustParse("bafkreibckgqjrr4xnsnek7uqmk6bxqkbafp4v7sdfgmgggwcb67diea6be")
	node, err := qp.BuildMap(basicnode.Prototype.Any, 2, func(ma datamodel.MapAssembler) {
		qp.MapEntry(ma, "a", qp.List(2, func(la datamodel.ListAssembler) {
			qp.ListEntry(la, qp.Link(cidlink.Link{Cid: leaf}))
			qp.ListEntry(la, qp.Bytes([]byte("x")))
		}))
		qp.MapEntry(ma, "b", qp.Link(cidlink.Link{Cid: leaf}))
	})
	require.NoError(f, err)
	var b bytes.Buffer
	require.NoError(f, dagcbor.Encode(node, &b))
	f.Add(uint64(cid.DagCBOR), b.Bytes())
	f.Add(uint64(cid.DagCBOR), []byte{0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Add(uint64(cid.DagCBOR), []byte{0xd8, 0x2a, 0x58, 0x02, 0x00, 0x01})
	f.Add(uint64(cid.DagProtobuf), []byte{0x12, 0x02, 0x0a, 0x00})
	f.Add(uint64(cid.DagProtobuf), append([]byte{0x12, 0x28, 0x0a, 0x24}, append(leaf.Bytes(), 0x12, 0x00)...))
	f.Fuzz(func(t *testing.T, codec uint64, data []byte) {
		if codec != cid.DagCBOR && codec != cid.DagProtobuf {
			return
		}
		c, err := cid.V1Builder{Codec: codec, MhType: mh.SHA2_256}.Sum(data)
		require.NoError(t, err)
		got, err := LinksOf(c, data)
		want, werr := linksOfAny(c, data)
		if werr == nil && err == nil {
			require.Equal(t, want, got)
		}
	})
}
