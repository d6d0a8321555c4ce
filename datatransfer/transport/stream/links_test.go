package stream

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/ipfs/go-cid"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/shared"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// forest is random DAGs of dag-pb, dag-cbor and raw blocks, in which blocks are linked more than once.
type forest struct {
	rnd    *rand.Rand
	blocks map[cid.Cid][]byte
	all    []cid.Cid
}

func (f *forest) put(t testing.TB, codec uint64, data []byte) cid.Cid {
	t.Helper()
	c, err := cid.V1Builder{Codec: codec, MhType: mh.SHA2_256}.Sum(data)
	require.NoError(t, err)
	f.blocks[c] = data
	f.all = append(f.all, c)
	return c
}

func (f *forest) pick() ipld.Link { return cidlink.Link{Cid: f.all[f.rnd.IntN(len(f.all))]} }

func (f *forest) grow(t testing.TB) cid.Cid {
	t.Helper()
	var b bytes.Buffer
	switch {
	case len(f.all) < 3 || f.rnd.IntN(3) == 0:
		return f.put(t, cid.Raw, fmt.Appendf(nil, "leaf %d", f.rnd.IntN(1000)))
	case f.rnd.IntN(2) == 0:
		n, err := qp.BuildMap(dagpb.Type.PBNode, -1, func(ma datamodel.MapAssembler) {
			qp.MapEntry(ma, "Links", qp.List(-1, func(la datamodel.ListAssembler) {
				for range f.rnd.IntN(4) {
					qp.ListEntry(la, qp.Map(-1, func(ma datamodel.MapAssembler) { qp.MapEntry(ma, "Hash", qp.Link(f.pick())) }))
				}
			}))
			qp.MapEntry(ma, "Data", qp.Bytes([]byte{byte(f.rnd.IntN(256))}))
		})
		require.NoError(t, err)
		require.NoError(t, dagpb.Encode(n, &b))
		return f.put(t, cid.DagProtobuf, b.Bytes())
	}
	n, err := qp.BuildMap(basicnode.Prototype.Any, -1, func(ma datamodel.MapAssembler) {
		qp.MapEntry(ma, "bb", qp.Link(f.pick()))
		qp.MapEntry(ma, "a", qp.List(-1, func(la datamodel.ListAssembler) {
			qp.ListEntry(la, qp.Float(float64(f.rnd.IntN(3))))
			qp.ListEntry(la, qp.Link(f.pick()))
			qp.ListEntry(la, qp.Int(-int64(f.rnd.IntN(100000))))
			qp.ListEntry(la, qp.Map(-1, func(ma datamodel.MapAssembler) { qp.MapEntry(ma, "x", qp.Link(f.pick())) }))
		}))
		qp.MapEntry(ma, "s", qp.String("a string"))
		qp.MapEntry(ma, "n", qp.Null())
	})
	require.NoError(t, err)
	require.NoError(t, dagcbor.Encode(n, &b))
	return f.put(t, cid.DagCBOR, b.Bytes())
}

func (f *forest) get(c cid.Cid) ([]byte, error) {
	if data, ok := f.blocks[c]; ok {
		return data, nil
	}
	return nil, carstore.ErrNotFound
}

// TestOrder: without building nodes the blocks come in the order of the traversal of IPLD, with everything that is linked twice.
func TestOrder(t *testing.T) {
	for seed := range uint64(60) {
		f := &forest{rnd: rand.New(rand.NewPCG(seed, 0)), blocks: map[cid.Cid][]byte{}}
		var root cid.Cid
		for range 25 {
			root = f.grow(t)
		}
		order := func(selector ipld.Node, fast bool) (out []string) {
			ls := carstore.Links(f.get)
			v := func(c cid.Cid, _ int64, _ bool) ([]byte, error) {
				out = append(out, c.String())
				return f.get(c)
			}
			if fast {
				require.NoError(t, walk(t.Context().Err, &ls, root, selector, 0, v))
				return out
			}
			require.NoError(t, walkSome(&ls, root, selector, func(c cid.Cid, leaf bool) ([]byte, error) { return v(c, 0, leaf) }))
			return out
		}
		require.Equal(t, order(shared.AllSelector(), false), order(shared.AllSelector(), true), "seed %d", seed)
	}
}

// TestTooManyLinks: a bound of links ends a traversal that folds out.
func TestTooManyLinks(t *testing.T) {
	f := &forest{rnd: rand.New(rand.NewPCG(1, 0)), blocks: map[cid.Cid][]byte{}}
	c := f.put(t, cid.Raw, []byte("leaf"))
	for range 64 { // each level links the one below twice: 2^64 visits
		var b bytes.Buffer
		n, err := qp.BuildList(basicnode.Prototype.Any, 2, func(la datamodel.ListAssembler) {
			qp.ListEntry(la, qp.Link(cidlink.Link{Cid: c}))
			qp.ListEntry(la, qp.Link(cidlink.Link{Cid: c}))
		})
		require.NoError(t, err)
		require.NoError(t, dagcbor.Encode(n, &b))
		c = f.put(t, cid.DagCBOR, b.Bytes())
	}
	ls := carstore.Links(f.get)
	err := walk(t.Context().Err, &ls, c, shared.AllSelector(), 1000, func(c cid.Cid, _ int64, _ bool) ([]byte, error) { return f.get(c) })
	require.ErrorIs(t, err, errTooManyLinks)
	require.ErrorContains(t, err, "the limit is 1000")
}

// FuzzQuestion: whatever comes as a question decodes within bounds or not at all, and what decodes is written back the same.
func FuzzQuestion(f *testing.F) {
	raw, err := os.ReadFile("testdata/vectors.json")
	require.NoError(f, err)
	var vectors []vector
	require.NoError(f, json.Unmarshal(raw, &vectors))
	for _, v := range vectors[:2] {
		data, err := hex.DecodeString(v.Frame)
		require.NoError(f, err)
		f.Add(data[headerSize:])
	}
	f.Add([]byte{0x86})
	f.Fuzz(func(t *testing.T, data []byte) {
		var q question
		if q.unmarshal(data) != nil {
			return
		}
		out, err := q.marshal()
		require.NoError(t, err)
		var again question
		require.NoError(t, again.unmarshal(out))
		require.Equal(t, q.root, again.root)
		require.Equal(t, q.has, again.has)
	})
}

// FuzzHeader: a head of a frame claims no more than its kind may have.
func FuzzHeader(f *testing.F) {
	f.Add(frame(kindBlocks, []byte("x")))
	f.Add([]byte{3, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		k, size, err := readHeader(bytes.NewReader(data))
		if err != nil {
			return
		}
		require.LessOrEqual(t, uint32(size), k.limit())
		h := header(k, size)
		require.Equal(t, data[:headerSize], h[:])
	})
}
