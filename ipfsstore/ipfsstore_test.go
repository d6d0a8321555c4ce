package ipfsstore_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipldformat "github.com/ipfs/go-ipld-format"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/ipfsstore"
	"github.com/cartage-dev/cartage/ipfsstore/ipfstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func block(t *testing.T, codec, hash uint64, data string) blocks.Block {
	t.Helper()
	c, err := cid.V1Builder{Codec: codec, MhType: hash}.Sum([]byte(data))
	require.NoError(t, err)
	b, err := blocks.NewBlockWithCid([]byte(data), c)
	require.NoError(t, err)
	return b
}

func open(t *testing.T, url string) *ipfsstore.Store {
	t.Helper()
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	s, err := ipfsstore.New(url, &http.Client{Transport: tr})
	require.NoError(t, err)
	return s
}

// TestBlocks: what is put is there, under the CID that was meant, whatever its codec and hash; an identity CID needs no node.
func TestBlocks(t *testing.T) {
	n, url := ipfstest.Start(t)
	s := open(t, url)
	v0, err := blocks.NewBlockWithCid([]byte{0x0a, 0x00}, cid.NewCidV0(block(t, cid.DagProtobuf, mh.SHA2_256, "\n\x00").Cid().Hash()))
	require.NoError(t, err)
	list := []blocks.Block{block(t, cid.Raw, mh.SHA2_256, "raw"), block(t, cid.DagCBOR, mh.SHA2_512, "\xa0"), block(t, cid.DagProtobuf, mh.BLAKE2B_MIN+31, "\n\x00"), v0,
		block(t, cid.Raw, mh.IDENTITY, "inline")}
	require.NoError(t, s.PutMany(t.Context(), list))
	require.Equal(t, 4, n.Len())
	for _, b := range list {
		got, err := s.Get(t.Context(), b.Cid())
		require.NoError(t, err)
		require.Equal(t, b.RawData(), got.RawData())
		require.Equal(t, b.Cid(), got.Cid())
		size, err := s.GetSize(t.Context(), b.Cid())
		require.NoError(t, err)
		require.Len(t, b.RawData(), size)
		has, err := s.Has(t.Context(), b.Cid())
		require.NoError(t, err)
		require.True(t, has)
	}
	require.ErrorIs(t, s.DeleteBlock(t.Context(), v0.Cid()), ipfsstore.ErrUnsupported)
	_, err = s.AllKeysChan(t.Context())
	require.ErrorIs(t, err, ipfsstore.ErrUnsupported)
}

// TestR_P1 : every way of saying that a block is not there is understood, and other errors are none of them; a put that ends under
// another CID is an error.
func TestR_P1(t *testing.T) {
	n, url := ipfstest.Start(t)
	s := open(t, url)
	b := block(t, cid.Raw, mh.SHA2_256, "raw")
	for _, tc := range []struct {
		status int
		text   string
	}{
		{500, "blockstore: block not found"}, {500, "merkledag: not found"}, {500, "ipld: could not find bafk"}, {500, "blockservice: key not found"},
		{500, "block was not found locally (offline): ipld: could not find bafk"}, {404, "no such block"},
	} {
		n.Behave(ipfstest.Manners{Status: tc.status, NotFound: tc.text})
		has, err := s.Has(t.Context(), b.Cid())
		require.NoError(t, err, tc.text)
		require.False(t, has)
		_, err = s.Get(t.Context(), b.Cid())
		require.True(t, ipldformat.IsNotFound(err), err)
	}
	n.Behave(ipfstest.Manners{NotFound: "repo is locked"})
	_, err := s.Has(t.Context(), b.Cid())
	require.ErrorContains(t, err, "repo is locked")

	n.Behave(ipfstest.Manners{Lie: func(c cid.Cid) cid.Cid { return cid.NewCidV1(cid.DagProtobuf, c.Hash()) }})
	require.ErrorIs(t, s.Put(t.Context(), b), ipfsstore.ErrOtherCid)
	late := block(t, cid.Raw, mh.SHA2_256, "the node may take it after the first answer has ended them all")
	require.ErrorIs(t, s.PutMany(t.Context(), []blocks.Block{late, late, late}), ipfsstore.ErrOtherCid)
	n.Behave(ipfstest.Manners{})
	require.NoError(t, s.Put(t.Context(), b))
	n.Replace(b.Cid(), []byte("other"))
	_, err = s.Get(t.Context(), b.Cid())
	require.ErrorIs(t, err, carstore.ErrBadHash)
	n.Replace(b.Cid(), make([]byte, carstore.MaxBlock+1))
	_, err = s.Get(t.Context(), b.Cid())
	require.ErrorContains(t, err, "above the limit")
}

// TestAddresses: URLs and multiaddresses; what is no IPFS node is an error that says so.
func TestAddresses(t *testing.T) {
	_, url := ipfstest.Start(t)
	for _, bad := range []string{"", "localhost:5001", "ftp://x", "/ip4/nowhere", "/ip4/127.0.0.1"} {
		_, err := ipfsstore.New(bad, nil)
		require.ErrorContains(t, err, "of an IPFS node", bad)
	}
	host, port := url[len("http://"):len("http://127.0.0.1")], url[len("http://127.0.0.1:"):]
	s := open(t, "/ip4/"+host+"/tcp/"+port)
	require.NoError(t, s.Put(t.Context(), block(t, cid.Raw, mh.SHA2_256, "x")))
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	_, err := open(t, other.URL).Has(t.Context(), block(t, cid.Raw, mh.SHA2_256, "x").Cid())
	require.ErrorContains(t, err, "404")
	other.Close()
	_, err = open(t, other.URL).Has(t.Context(), block(t, cid.Raw, mh.SHA2_256, "x").Cid())
	require.ErrorContains(t, err, "IPFS node")
}
