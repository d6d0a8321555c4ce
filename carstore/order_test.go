package carstore_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/ipfs/go-cid"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal"
	"github.com/ipld/go-ipld-prime/traversal/selector"
	"github.com/ipld/go-ipld-prime/traversal/selector/builder"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/internal/oddcars"
	"github.com/cartage-dev/cartage/shared"
)

// tangle is a DAG of both codecs whose blocks link any that are there already, some of them again and again.
func tangle(r *rand.Rand, n int) oddcars.Archive {
	blocks := []oddcars.Block{oddcars.Raw([]byte("leaf"))}
	for i := range n {
		var links []cid.Cid
		for range r.IntN(4) {
			links = append(links, blocks[max(0, len(blocks)-1-r.IntN(6))].CID)
		}
		b := oddcars.Node([]byte{byte(i)}, links...)
		if r.IntN(2) == 0 {
			b = oddcars.List(byte(i), links...)
		}
		blocks = append(blocks, b)
	}
	return oddcars.Archive{Roots: []cid.Cid{blocks[len(blocks)-1].CID}, Blocks: blocks}
}

func selectors() map[string]datamodel.Node {
	b := builder.NewSelectorSpecBuilder(basicnode.Prototype.Any)
	all := b.ExploreAll(b.ExploreRecursiveEdge())
	return map[string]datamodel.Node{
		"all":     shared.AllSelector(),
		"union":   everything(),
		"shallow": b.ExploreRecursive(selector.RecursionLimitDepth(5), all).Node(),
		"path": b.ExploreFields(func(f builder.ExploreFieldsSpecBuilder) {
			f.Insert("Links", b.ExploreIndex(1, b.ExploreFields(func(f builder.ExploreFieldsSpecBuilder) {
				f.Insert("Hash", b.ExploreRecursive(selector.RecursionLimitNone(), all))
			})))
		}).Node(),
		"range": b.ExploreUnion(b.ExploreRange(0, 2, b.ExploreRecursive(selector.RecursionLimitNone(), all)), b.ExploreFields(func(f builder.ExploreFieldsSpecBuilder) {
			f.Insert("Links", b.ExploreRange(1, 3, b.ExploreRecursive(selector.RecursionLimitNone(), b.ExploreUnion(b.Matcher(), all))))
		})).Node(),
		"matcher": b.Matcher().Node(),
	}
}

// TestSameOrder: a walk loads and visits what the traversal of go-ipld-prime does, in its order.
func TestSameOrder(t *testing.T) {
	for seed := range uint64(40) {
		a := tangle(rand.New(rand.NewPCG(seed, 1)), 14)
		for name, sel := range selectors() {
			want, wantSeen := reference(t, a, sel)
			var got []cid.Cid
			var seen []string
			ls := carstore.Links(func(c cid.Cid) ([]byte, error) {
				got = append(got, c)
				return a.Getter()(c)
			})
			require.NoError(t, carstore.WalkSelector(&ls, a.Root(), sel, nil))
			require.Equal(t, want, got, "seed %d, %s", seed, name)
			require.NoError(t, carstore.WalkSelector(&ls, a.Root(), sel, func(v carstore.Visited) error {
				path, inside := v.Path()
				seen = append(seen, visitKey(path, inside, v.Matched, v.Block))
				return nil
			}))
			require.Equal(t, wantSeen, seen, "seed %d, %s", seed, name)
			pos, err := carstore.LocateIn(a.Root(), sel, missing(a))
			require.NoError(t, err)
			require.EqualValues(t, len(want), pos.Blocks, "seed %d, %s", seed, name)
			require.Equal(t, want[len(want)-1], pos.Last)
			// A block that is missing ends it where it would be loaded first.
			gone := want[len(want)/2]
			first := 0
			for !bytes.Equal(want[first].Hash(), gone.Hash()) {
				first++
			}
			pos, err = carstore.LocateIn(a.Root(), sel, func(c cid.Cid) ([]byte, error) {
				if bytes.Equal(c.Hash(), gone.Hash()) {
					return nil, carstore.ErrNotFound
				}
				return a.Getter()(c)
			})
			require.NoError(t, err)
			require.EqualValues(t, first, pos.Blocks, "seed %d, %s", seed, name)
			require.False(t, pos.Complete)
		}
	}
}

func visitKey(path string, inside, matched bool, block cid.Cid) string {
	key := path + " in " + block.String()
	if inside {
		key += " inside"
	}
	if matched {
		key += " matched"
	}
	return key
}

func reference(t *testing.T, a oddcars.Archive, sel datamodel.Node) (loads []cid.Cid, visits []string) {
	t.Helper()
	ls := cidlink.DefaultLinkSystem()
	ls.StorageReadOpener = func(_ linking.LinkContext, l ipld.Link) (io.Reader, error) {
		loads = append(loads, l.(cidlink.Link).Cid)
		data, err := a.Getter()(l.(cidlink.Link).Cid)
		return bytes.NewReader(data), err
	}
	choose := dagpb.AddSupportToChooser(basicnode.Chooser)
	root := cidlink.Link{Cid: a.Root()}
	proto, err := choose(root, ipld.LinkContext{})
	require.NoError(t, err)
	n, err := ls.Load(ipld.LinkContext{}, root, proto)
	require.NoError(t, err)
	parsed, err := selector.ParseSelector(sel)
	require.NoError(t, err)
	prog := traversal.Progress{Cfg: &traversal.Config{LinkSystem: ls, LinkTargetNodePrototypeChooser: choose}}
	require.NoError(t, prog.WalkAdv(n, parsed, func(p traversal.Progress, _ datamodel.Node, why traversal.VisitReason) error {
		block := a.Root()
		if p.LastBlock.Link != nil {
			block = p.LastBlock.Link.(cidlink.Link).Cid
		}
		visits = append(visits, visitKey(p.Path.String(), p.Path.String() != p.LastBlock.Path.String(), why == traversal.VisitReason_SelectionMatch, block))
		return nil
	}))
	return loads, visits
}
