package carstore_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode/data/builder"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/storage/memstore"
	"github.com/ipld/go-ipld-prime/traversal/selector"
	sb "github.com/ipld/go-ipld-prime/traversal/selector/builder"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/carstore"
)

// heldBlocks are some of the blocks of a store.
type heldBlocks struct {
	all  func(cid.Cid) ([]byte, error)
	have map[string]bool
}

func (h heldBlocks) Has(c cid.Cid) bool { return h.have[c.KeyString()] }

func (h heldBlocks) Get(c cid.Cid) ([]byte, error) {
	if !h.Has(c) {
		return nil, fmt.Errorf("%w: %s", carstore.ErrNotFound, c)
	}
	return h.all(c)
}

// buy takes what a gap stands for, and tells of each block.
func (h heldBlocks) buy(t *testing.T, g carstore.Gap, tell func(cid.Cid)) {
	t.Helper()
	everything := heldBlocks{h.all, map[string]bool{}}
	for {
		m, err := carstore.FindGaps(g.Cid, g.Bytes, everything)
		require.NoError(t, err)
		if len(m.Gaps) == 0 {
			break
		}
		everything.have[m.Gaps[0].Cid.KeyString()] = true
	}
	for k := range everything.have {
		c, err := cid.Cast([]byte(k))
		require.NoError(t, err)
		tell(c)
		h.have[k] = true
	}
}

// TestFindGaps: whatever is here, buying gap after gap ends with all blocks that a traversal loads, and takes none that it does not.
func TestFindGaps(t *testing.T) {
	store := &memstore.Store{}
	ls := cidlink.DefaultLinkSystem()
	ls.SetReadStorage(store)
	ls.SetWriteStorage(store)
	r := rand.New(rand.NewPCG(7, 7))
	data := make([]byte, 300_000)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	copy(data[100_000:102_000], data[200_000:202_000]) // a part twice
	builder.DefaultLinksPerBlock = 8                   // so that there are four levels
	t.Cleanup(func() { builder.DefaultLinksPerBlock = 174 })
	l, _, err := builder.BuildUnixFSFile(bytes.NewReader(data), "size-1000", &ls)
	require.NoError(t, err)
	root := l.(cidlink.Link).Cid
	get := func(c cid.Cid) ([]byte, error) { return store.Get(t.Context(), c.KeyString()) }
	for round := range 60 {
		span := &carstore.Span{Last: int64(len(data)) - 1}
		sel := carstoreAll()
		if round%3 > 0 {
			span.First = r.Int64N(int64(len(data)))
			span.Last = span.First + r.Int64N(int64(len(data))-span.First)
			sel = rangeOf(span.First, span.Last+1)
		} else {
			span = nil
		}
		needed := map[string]bool{}
		walking := carstore.Links(func(c cid.Cid) ([]byte, error) {
			needed[c.KeyString()] = true
			return get(c)
		})
		require.NoError(t, carstore.WalkSelector(&walking, root, sel, nil))
		h := heldBlocks{get, map[string]bool{}}
		for k := range needed {
			if r.IntN(4) > round%4 {
				h.have[k] = true
			}
		}
		m, err := carstore.FindGaps(root, span, h)
		for ; err == nil && len(m.Gaps) > 0; m, err = carstore.FindGaps(root, span, h) {
			for _, g := range m.Gaps {
				require.False(t, h.Has(g.Cid))
				require.True(t, !g.Parent.Defined() || h.Has(g.Parent))
			}
			h.buy(t, m.Gaps[0], func(c cid.Cid) { require.True(t, needed[c.KeyString()], "%s is not wanted: %v", c, span) })
		}
		require.NoError(t, err)
		for k := range needed {
			require.True(t, h.have[k], "round %d", round)
		}
	}
}

func carstoreAll() ipld.Node {
	ssb := sb.NewSelectorSpecBuilder(basicnode.Prototype.Any)
	return ssb.ExploreRecursive(selector.RecursionLimitNone(), ssb.ExploreAll(ssb.ExploreRecursiveEdge())).Node()
}

func rangeOf(from, to int64) ipld.Node {
	ssb := sb.NewSelectorSpecBuilder(basicnode.Prototype.Any)
	return ssb.ExploreInterpretAs("unixfs", ssb.MatcherSubset(from, to)).Node()
}
