package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	_ "github.com/ipld/go-ipld-prime/codec/dagcbor" // codecs of the payloads
	_ "github.com/ipld/go-ipld-prime/codec/raw"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal/selector"
	"github.com/ipld/go-ipld-prime/traversal/selector/builder"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/piecestore"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
)

// payload is what a deal is about.
type payload struct {
	root   cid.Cid
	sel    ipld.Node // nil: everything
	unique uint64    // bytes of the blocks that are selected
}

// build stores the blocks of a shape.
func build(s Shape, store *testutil.MemStore) (root cid.Cid, leaves []ipld.Link, err error) {
	ls := store.LinkSystem()
	rnd := rand.New(rand.NewPCG(s.Seed, 2))
	prefix := func(codec uint64) cidlink.LinkPrototype {
		return cidlink.LinkPrototype{Prefix: cid.Prefix{Version: 1, Codec: codec, MhType: 0x12, MhLength: 32}}
	}
	for range s.Leaves {
		b := make([]byte, s.Size)
		for j := 0; j+8 <= len(b); j += 8 {
			for k, x := 0, rnd.Uint64(); k < 8; k, x = k+1, x>>8 {
				b[j+k] = byte(x)
			}
		}
		l, err := ls.Store(linking.LinkContext{}, prefix(cid.Raw), basicnode.NewBytes(b))
		if err != nil {
			return cid.Undef, nil, err
		}
		leaves = append(leaves, l)
	}
	links := append([]ipld.Link(nil), leaves...)
	for range s.Repeats {
		links = append(links, leaves[rnd.IntN(len(leaves))])
	}
	list := func(of []ipld.Link) (ipld.Link, error) {
		node, err := qp.BuildList(basicnode.Prototype.Any, int64(len(of)), func(la ipld.ListAssembler) {
			for _, l := range of {
				qp.ListEntry(la, qp.Link(l))
			}
		})
		if err != nil {
			return nil, err
		}
		return ls.Store(linking.LinkContext{}, prefix(cid.DagCBOR), node)
	}
	if s.Lists > 0 {
		var lists []ipld.Link
		each := (len(links) + s.Lists - 1) / s.Lists
		for len(links) > 0 {
			n := min(each, len(links))
			l, err := list(links[:n])
			if err != nil {
				return cid.Undef, nil, err
			}
			lists, links = append(lists, l), links[n:]
		}
		links = lists
	}
	l, err := list(links)
	if err != nil {
		return cid.Undef, nil, err
	}
	return l.(cidlink.Link).Cid, leaves, nil
}

// someEntries selects a range of the entries of the root with all below.
func someEntries(n int, seed uint64) ipld.Node {
	rnd := rand.New(rand.NewPCG(seed, 3))
	from := rnd.IntN(n)
	to := from + 1 + rnd.IntN(n-from)
	b := builder.NewSelectorSpecBuilder(basicnode.Prototype.Any)
	all := b.ExploreRecursive(selector.RecursionLimitNone(), b.ExploreAll(b.ExploreRecursiveEdge()))
	return b.ExploreRange(int64(from), int64(to), all).Node()
}

// pieces is the store of the provider: each root is a piece of its own. It needs no process.
type pieces struct {
	store *testutil.MemStore
	mu    sync.Mutex
	slow  time.Duration
	gone  map[string]bool    // leaves that are missing
	sizes map[cid.Cid]uint64 // bytes of all blocks below a root
}

func newPieces() *pieces {
	return &pieces{store: testutil.NewMemStore(), gone: map[string]bool{}, sizes: map[cid.Cid]uint64{}}
}

// want makes the payload of a deal.
func (p *pieces) want(d DealPlan) (payload, error) {
	root, leaves, err := build(d.Shape, p.store)
	if err != nil {
		return payload{}, err
	}
	out := payload{root: root}
	if d.Range {
		n := d.Shape.Lists
		if n == 0 {
			n = d.Shape.Leaves + d.Shape.Repeats
		} else {
			all := d.Shape.Leaves + d.Shape.Repeats
			each := (all + n - 1) / n
			n = (all + each - 1) / each
		}
		out.sel = someEntries(n, d.Shape.Seed)
	}
	whole, err := p.bytesOf(root, nil)
	if err != nil {
		return payload{}, err
	}
	out.unique, err = p.bytesOf(root, out.sel)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sizes[root] = whole
	if d.Missing {
		p.gone[leaves[len(leaves)/2].Binary()] = true
	}
	return out, err
}

// bytesOf counts the bytes of the blocks that a selector visits, each once.
func (p *pieces) bytesOf(root cid.Cid, sel ipld.Node) (unique uint64, err error) {
	seen := map[cid.Cid]bool{}
	ls := carstore.Links(func(c cid.Cid) ([]byte, error) {
		data, err := p.store.Get(c)
		if !seen[c] {
			seen[c] = true
			unique += uint64(len(data))
		}
		return data, err
	})
	err = carstore.WalkSelector(&ls, root, selectorOf(sel), nil)
	return unique, err
}

func (p *pieces) delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slow = d
}

// Find implements retrievalimpl.PieceSource.
func (p *pieces) Find(_ context.Context, root cid.Cid, piece *cid.Cid) (retrievalimpl.Found, error) {
	if piece != nil && !piece.Equals(root) {
		return retrievalimpl.Found{}, fmt.Errorf("piece %s: %w", piece, rm.ErrNotFound)
	}
	if _, err := p.store.Get(root); err != nil {
		return retrievalimpl.Found{}, fmt.Errorf("payload %s: %w", root, rm.ErrNotFound)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return retrievalimpl.Found{Info: piecestore.PieceInfo{PieceCID: root}, Size: p.sizes[root]}, nil
}

// Acquire implements retrievalimpl.PieceSource.
func (p *pieces) Acquire(context.Context, cid.Cid) (retrievalimpl.Reader, error) {
	return reader{p}, nil
}

type reader struct{ *pieces }

// Get implements retrievalimpl.Reader.
func (r reader) Get(c cid.Cid) ([]byte, error) {
	r.mu.Lock()
	slow, gone := r.slow, r.gone[cidlink.Link{Cid: c}.Binary()]
	r.mu.Unlock()
	if slow > 0 {
		time.Sleep(slow)
	}
	if gone {
		return nil, fmt.Errorf("%s: %w", c, carstore.ErrNotFound)
	}
	return r.store.Get(c)
}

// Close implements retrievalimpl.Reader.
func (reader) Close() error { return nil }
