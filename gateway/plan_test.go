package gateway_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal/selector"
	"github.com/ipld/go-ipld-prime/traversal/selector/builder"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/dataselector"
	"github.com/cartage-dev/cartage/gateway"
)

// traversal is what the selector of a trustless request loads, in its order: the same selectors as go-trustless-utils makes.
func (tr *tree) traversal(root cid.Cid, path, scope, bytes string, dups bool) (out []cid.Cid) {
	ssb := builder.NewSelectorSpecBuilder(basicnode.Prototype.Any)
	target := map[string]builder.SelectorSpec{
		"all": unixfsnode.ExploreAllRecursivelySelector, "entity": unixfsnode.MatchUnixFSEntitySelector, "block": ssb.Matcher(),
	}[scope]
	if bytes != "" {
		r, err := dataselector.ParseRange(bytes)
		require.NoError(tr.t, err)
		from, to := r.First, r.Last+1
		if r.Last == -1 {
			to = 1<<63 - 1
		}
		target = ssb.ExploreInterpretAs("unixfs", ssb.ExploreUnion(ssb.MatcherSubset(from, to),
			ssb.ExploreRecursive(selector.RecursionLimitDepth(1), ssb.ExploreAll(ssb.ExploreRecursiveEdge()))))
	}
	seen := cid.NewSet()
	ls := carstore.Links(func(c cid.Cid) ([]byte, error) {
		if (dups || seen.Visit(c)) && c.Prefix().MhType != 0 {
			out = append(out, c)
		}
		return tr.blocks.store.Get(tr.t.Context(), c.KeyString())
	})
	sel := unixfsnode.UnixFSPathSelectorBuilder(path, target, false)
	require.NoError(tr.t, carstore.WalkSelector(&ls, root, sel, nil))
	return out
}

// texts are CIDs as a failure shows them: the last letters.
func texts(list []cid.Cid) (out []string) {
	for _, c := range list {
		s := c.String()
		out = append(out, s[len(s)-6:])
	}
	return out
}

// TestPlanEqualsTraversal (T-03): the blocks of a CAR are those that the traversal of a client loads, in its order; sections add up to the body,
// and nothing of a leaf is read for that.
func TestPlanEqualsTraversal(t *testing.T) {
	tr := newTree(t)
	c := tr.serve(nil)
	r := rand.New(rand.NewPCG(7, 7))
	type request struct{ path, scope, bytes string }
	var list []request
	for _, path := range []string{"", "docs", "docs/big.bin", "docs/small.txt", "docs/again.bin", "shards", "shards/file-17.txt", "shards/file-399.txt", "node", "node/big", "node/inside", "node/inside/deep", "ü b"} {
		for _, scope := range []string{"all", "entity", "block"} {
			list = append(list, request{path, scope, ""})
		}
	}
	for range 60 {
		a, b := r.Int64N(int64(len(tr.bytes))), r.Int64N(int64(len(tr.bytes)))
		list = append(list, request{"docs/big.bin", "entity", fmt.Sprintf("%d:%d", min(a, b), max(a, b))})
	}
	for _, bytes := range []string{"0:0", "0:*", "-1:*", "-3000:-1000", "1023:1024", "51199:51199", "51199:999999", "-999999:*"} {
		list = append(list, request{"docs/big.bin", "entity", bytes})
	}
	for _, q := range list {
		for _, dups := range []string{"n", "y"} {
			name := fmt.Sprintf("%s %s %s dups=%s", q.path, q.scope, q.bytes, dups)
			v := url.Values{"format": {"car"}, "dups": {dups}}
			if v.Set("dag-scope", q.scope); q.bytes != "" {
				v.Set("entity-bytes", q.bytes)
			}
			at := "/ipfs/" + tr.root.String() + "/" + strings.ReplaceAll(url.PathEscape(q.path), "%2F", "/") + "?" + v.Encode()
			tr.blocks.leaves.Store(0)
			head := c.do(http.MethodHead, at)
			require.Equal(t, 200, head.StatusCode, name)
			require.Zero(t, tr.blocks.leaves.Load(), name)
			a := c.get(at)
			require.Equal(t, 200, a.StatusCode, "%s %s", name, a.body)
			require.Equal(t, head.ContentLength, int64(len(a.body)), name)
			roots, got := cids(t, a.body)
			require.Equal(t, []cid.Cid{tr.root}, roots)
			require.Equal(t, texts(tr.traversal(tr.root, q.path, q.scope, q.bytes, dups == "y")), texts(got), name)
			require.Contains(t, a.Header.Get("Content-Type"), "dups="+dups)
		}
	}
}

// TestG_12_OpenPlans: a DAG above the bound is streamed without a length, with the same blocks; for money it has to be asked for in windows.
func TestG_12_OpenPlans(t *testing.T) {
	tr := newTree(t)
	c := tr.serve(func(cfg *gateway.Config) { cfg.Limits.PlanBlocks = 20 })
	for _, path := range []string{"", "/docs", "/shards"} {
		at := "/ipfs/" + tr.root.String() + path + "?format=car"
		a := c.get(at, "Range", "bytes=0-9")
		require.Equal(t, 200, a.StatusCode)
		require.Equal(t, int64(-1), a.ContentLength)
		_, got := cids(t, a.body)
		require.Equal(t, texts(tr.traversal(tr.root, strings.TrimPrefix(path, "/"), "all", "", false)), texts(got))
		require.NotContains(t, a.Header.Get("Cartage-Window"), "car")
		require.Equal(t, int64(-1), c.do(http.MethodHead, at).ContentLength)
	}
	a := c.get("/ipfs/" + tr.root.String() + "?format=car&blockLimit=5")
	require.Equal(t, "blocks", a.Header.Get("Cartage-Truncated"))
	_, got := cids(t, a.body)
	require.Len(t, got, 5)
}

// TestG_13_MissingBlocks: a child that is missing is named before a byte is sent, and does not hurt a range that does not need it.
func TestG_13_MissingBlocks(t *testing.T) {
	tr := newTree(t)
	c := tr.serve(nil)
	leaves := tr.traversal(tr.big, "", "entity", "", false)[1:]
	tr.blocks.absent[leaves[20]] = true
	a := c.get("/ipfs/" + tr.big.String() + "?format=car")
	require.Equal(t, 404, a.StatusCode)
	require.Contains(t, string(a.body), `"block_missing"`)
	require.Contains(t, string(a.body), leaves[20].String())
	require.Equal(t, 404, c.do(http.MethodHead, "/ipfs/"+tr.big.String()+"?format=car").StatusCode)
	for _, bytes := range []string{"0:20479", "21504:*", "-1024:*"} {
		a := c.get("/ipfs/" + tr.big.String() + "?format=car&entity-bytes=" + bytes)
		require.Equal(t, 200, a.StatusCode, bytes)
		cids(t, a.body)
	}
	require.Equal(t, 404, c.get("/ipfs/"+tr.big.String()+"?format=car&entity-bytes=20480:20480").StatusCode)
}

// TestG_08_CutAnswers: what fails after the first byte is a short body to the client; what fails before is an answer of its own.
func TestG_08_CutAnswers(t *testing.T) {
	tr := newTree(t)
	c := tr.serve(func(cfg *gateway.Config) { cfg.Limits.PlanBlocks = 2; cfg.Limits.OpenPlans = 100 })
	long := make([]byte, 300<<10)
	fill := rand.New(rand.NewPCG(3, 4))
	for i := range long {
		long[i] = byte(fill.Uint32())
	}
	f := of(tr.file(long))
	all := tr.traversal(f, "", "all", "", false)
	tr.blocks.absent[all[len(all)-1]] = true
	_, err := c.try(http.MethodGet, "/ipfs/"+f.String()+"?format=car")
	require.Error(t, err)
	tr.blocks.absent[all[1]] = true
	a := c.get("/ipfs/" + f.String() + "?format=car")
	require.Equal(t, 404, a.StatusCode)
	require.Contains(t, string(a.body), all[1].String())
}
