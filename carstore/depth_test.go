package carstore_test

import (
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal/selector"
	"github.com/ipld/go-ipld-prime/traversal/selector/builder"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/internal/oddcars"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/shared"
)

// everything is the selector of all, written so that it is not taken for the usual one.
func everything() datamodel.Node {
	b := builder.NewSelectorSpecBuilder(basicnode.Prototype.Any)
	all := b.ExploreAll(b.ExploreRecursiveEdge())
	return b.ExploreRecursive(selector.RecursionLimitNone(), b.ExploreUnion(b.Matcher(), all)).Node()
}

// allocated is how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestDeepChain: a walk costs what there is, however deep it lies.
func TestDeepChain(t *testing.T) {
	const deep = 100_000
	for name, a := range map[string]oddcars.Archive{"dag-pb": oddcars.Chain(deep), "dag-cbor": oddcars.ChainCBOR(deep)} {
		get := missing(a)
		for kind, sel := range map[string]datamodel.Node{"usual": shared.AllSelector(), "other": everything()} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				var pos carstore.Position
				var err error
				used := allocated(func() { pos, err = carstore.LocateIn(a.Root(), sel, get) })
				require.NoError(t, err)
				require.True(t, pos.Complete)
				require.EqualValues(t, deep, pos.Blocks)
				require.Less(t, used, uint64(deep*8<<10), "bytes for each level")
			})
		}
	}
}

// TestDeepChainCut: also where the walk ends early.
func TestDeepChainCut(t *testing.T) {
	a := oddcars.Chain(100_000).Only(60_000)
	for _, sel := range []datamodel.Node{shared.AllSelector(), everything()} {
		pos, err := carstore.LocateIn(a.Root(), sel, missing(a))
		require.NoError(t, err)
		require.False(t, pos.Complete)
		require.EqualValues(t, 60_000, pos.Blocks)
		require.Equal(t, a.Blocks[59_999].CID, pos.Last)
	}
}

// TestDiamond: what is linked in 2^40 ways is counted without going them, or refused early.
func TestDiamond(t *testing.T) {
	loads := 0
	count := func(a oddcars.Archive) carstore.Getter {
		loads = 0
		get := missing(a)
		return func(c cid.Cid) ([]byte, error) {
			loads++
			return get(c)
		}
	}
	small := oddcars.Diamond(10, 2)
	pos, err := carstore.LocateIn(small.Root(), shared.AllSelector(), count(small))
	require.NoError(t, err)
	require.EqualValues(t, 1<<11-1, pos.Blocks)
	require.Equal(t, small.Blocks[10].CID, pos.Last)
	require.Equal(t, 11, loads)
	same, err := carstore.LocateIn(small.Root(), everything(), missing(small))
	require.NoError(t, err)
	require.Equal(t, pos, same)

	large := oddcars.Diamond(24, 4)
	require.Len(t, large.Blocks, 25)
	_, err = carstore.LocateIn(large.Root(), shared.AllSelector(), count(large))
	require.ErrorIs(t, err, reason.TooManyLinks)
	require.Equal(t, 25, loads)
	_, err = carstore.LocateIn(large.Root(), everything(), count(large))
	require.ErrorIs(t, err, reason.TooManyLinks)
	require.Less(t, loads, 200_000)
	ls := carstore.Links(count(large))
	require.NoError(t, carstore.WalkOnce(&ls, large.Root(), shared.AllSelector()))
	require.Equal(t, 25, loads)
}

// missing reads an archive as a store does that lacks what is not in it.
func missing(a oddcars.Archive) carstore.Getter {
	get := a.Getter()
	return func(c cid.Cid) ([]byte, error) {
		data, err := get(c)
		if errors.Is(err, oddcars.ErrAbsent) {
			return nil, fmt.Errorf("%w: %s", carstore.ErrNotFound, c)
		}
		return data, err
	}
}
