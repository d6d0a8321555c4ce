package carstore

import (
	"fmt"
	"io"
	"strings"

	"github.com/ipfs/go-cid"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal/selector"

	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/shared"
)

// The traversal of go-ipld-prime keeps a path of its own at each level, so that a DAG of n levels costs the square of n, and one goroutine's
// stack. The walks here visit the same nodes in the same order and keep one frame a level, on the heap.

// Visited is a node that a walk comes to.
type Visited struct {
	Node    datamodel.Node
	Block   cid.Cid // that holds the node
	Matched bool    // the selector matches it; else it only leads on
	walk    *walker
}

// Path is where the node is below the root; inside, whether it is not the top of its block.
func (v Visited) Path() (path string, inside bool) {
	parts := make([]string, 0, len(v.walk.frames)+1)
	for i := range v.walk.frames {
		if f := &v.walk.frames[i]; i > 0 {
			parts = append(parts, f.segment.String())
		}
	}
	if len(v.walk.frames) > 0 {
		parts = append(parts, v.walk.segment.String())
	}
	return strings.Join(parts, "/"), !v.walk.atTop
}

// VisitFunc is told of each node of a walk, before those below it; what it is told is valid during the call. An error ends the walk.
type VisitFunc func(Visited) error

// WalkSelector loads everything that sel selects below root, in traversal order: as graphsync does also the bytes of a file that are
// matched, or the range of them. visit, which may be nil, hears of each node; then it has to load those. A block that cannot be loaded ends it
// with that error.
func WalkSelector(ls *ipld.LinkSystem, root cid.Cid, sel datamodel.Node, visit VisitFunc) error {
	if visit == nil && shared.SameNode(sel, shared.AllSelector()) {
		return walkTree(root, &treeLoader{ls: ls})
	}
	return walkSelector(ls, root, sel, visit, nil, 0)
}

// WalkBounded is WalkSelector for a DAG of somebody else's making: it ends with the reason dag-too-deep at a block that is deeper than MaxDepth.
func WalkBounded(ls *ipld.LinkSystem, root cid.Cid, sel datamodel.Node) error {
	return walkSelector(ls, root, sel, nil, nil, MaxDepth)
}

// WalkOnce is WalkSelector that follows each link once, for who wants the blocks and not the order of their repeats.
func WalkOnce(ls *ipld.LinkSystem, root cid.Cid, sel datamodel.Node) error {
	if shared.SameNode(sel, shared.AllSelector()) {
		return walkTree(root, &treeLoader{ls: ls, once: map[cid.Cid]struct{}{}})
	}
	return walkSelector(ls, root, sel, nil, map[cid.Cid]struct{}{}, 0)
}

// bounded ends a walk at the first block that cannot be loaded, which a traversal that looks up a name in a sharded folder would take for a
// name that is not there, and after too many.
type bounded struct {
	read  linking.BlockReadOpener
	loads int
	err   error
}

func (b *bounded) openBlock(ctx linking.LinkContext, l datamodel.Link) (io.Reader, error) {
	if b.err != nil {
		return nil, b.err
	}
	if b.loads++; b.loads > MaxLinks {
		b.err = reason.TooManyLinks.Errorf("more than %d links were followed", MaxLinks)
		return nil, b.err
	}
	r, err := b.read(ctx, l)
	b.err = err
	return r, err
}

// walker is a walk of a selector.
type walker struct {
	ls     ipld.LinkSystem
	choose func(ipld.Link, ipld.LinkContext) (ipld.NodePrototype, error)
	visit  VisitFunc
	once   map[cid.Cid]struct{} // links that were followed; nil: each is followed every time
	frames []frame
	// deepest is how many links may lead to a block; 0: any number.
	deepest int
	// Of the node that is visited: how it is called in its parent, and whether it is the top of a block.
	segment datamodel.PathSegment
	atTop   bool
}

// frame is a node whose children are being visited.
type frame struct {
	node    datamodel.Node
	sel     selector.Selector
	each    selector.SegmentIterator // all children
	some    []datamodel.PathSegment  // or those of interest
	segment datamodel.PathSegment
	blockAt
}

// blockAt is the block that holds a node, and how many links lead to it.
type blockAt struct {
	block cid.Cid
	depth int
}

func walkSelector(ls *ipld.LinkSystem, root cid.Cid, sel datamodel.Node, visit VisitFunc, once map[cid.Cid]struct{}, deepest int) error {
	parsed, err := selector.ParseSelector(sel)
	if err != nil {
		return fmt.Errorf("selector: %w", err)
	}
	bound := &bounded{read: ls.StorageReadOpener}
	w := walker{ls: *ls, visit: visit, once: once, deepest: deepest, choose: dagpb.AddSupportToChooser(func(ipld.Link, ipld.LinkContext) (ipld.NodePrototype, error) {
		return basicnode.Prototype.Any, nil
	})}
	w.ls.StorageReadOpener = bound.openBlock
	if visit == nil {
		w.visit = readMatched
	}
	node, err := w.loadNode(root)
	if err != nil {
		return err
	}
	w.atTop = true
	if err := w.enterNode(node, parsed, datamodel.PathSegment{}, blockAt{root, 0}); err != nil {
		return err
	}
	for len(w.frames) > 0 && bound.err == nil {
		if err := w.countStep(); err != nil {
			return err
		}
	}
	return bound.err
}

func (w *walker) loadNode(c cid.Cid) (datamodel.Node, error) {
	link := cidlink.Link{Cid: c}
	proto, err := w.choose(link, ipld.LinkContext{})
	if err != nil {
		return nil, err
	}
	return w.ls.Load(ipld.LinkContext{}, link, proto)
}

// enterNode visits a node, and notes its children as what is to be visited next.
func (w *walker) enterNode(n datamodel.Node, sel selector.Selector, segment datamodel.PathSegment, at blockAt) (err error) {
	if r, ok := sel.(selector.Reifiable); ok {
		if n, sel, err = w.reifyNode(n, sel, r.NamedReifier()); err != nil {
			return err
		}
	}
	w.segment = segment
	match, err := sel.Match(n)
	if err != nil {
		return err
	}
	seen := Visited{Node: n, Block: at.block, Matched: match != nil, walk: w}
	if match != nil {
		seen.Node = match
	}
	if err := w.visit(seen); err != nil {
		return err
	}
	if k := n.Kind(); k != datamodel.Kind_Map && k != datamodel.Kind_List {
		return nil
	}
	f := frame{node: n, sel: sel, segment: segment, blockAt: at}
	if f.some = sel.Interests(); f.some == nil {
		f.each = selector.NewSegmentIterator(n)
	}
	w.frames = append(w.frames, f)
	return nil
}

func (w *walker) reifyNode(n datamodel.Node, sel selector.Selector, name string) (datamodel.Node, selector.Selector, error) {
	f, ok := w.ls.KnownReifiers[name]
	if !ok {
		return nil, nil, fmt.Errorf("the selector asks for %q, which is not known here", name)
	}
	rn, err := f(linking.LinkContext{}, n, &w.ls)
	if err != nil {
		return nil, nil, fmt.Errorf("read a node as %q: %w", name, err)
	}
	below, err := sel.Explore(n, datamodel.EmptyPathSegment)
	return rn, below, err
}

// countStep visits the next child of the innermost node, or leaves it.
func (w *walker) countStep() error {
	f := &w.frames[len(w.frames)-1]
	child, segment, err := f.nextChild()
	if err != nil {
		return err
	}
	if child == nil {
		*f = frame{}
		w.frames = w.frames[:len(w.frames)-1]
		return nil
	}
	below, err := f.sel.Explore(f.node, segment)
	if err != nil || below == nil {
		return err
	}
	at := f.blockAt
	if w.atTop = child.Kind() == datamodel.Kind_Link; w.atTop {
		link, err := child.AsLink()
		if err != nil {
			return err
		}
		cl, ok := link.(cidlink.Link)
		if !ok {
			return fmt.Errorf("link of type %T", link)
		}
		if _, again := w.once[cl.Cid]; again {
			return nil
		}
		if w.once != nil {
			w.once[cl.Cid] = struct{}{}
		}
		if at = (blockAt{cl.Cid, at.depth + 1}); w.deepest > 0 && at.depth > w.deepest {
			return tooDeep(w.deepest)
		}
		if child, err = w.loadNode(cl.Cid); err != nil {
			return err
		}
	}
	return w.enterNode(child, below, segment, at)
}

// nextChild is the next child that is of interest; nil after the last one.
func (f *frame) nextChild() (datamodel.Node, datamodel.PathSegment, error) {
	if f.each != nil {
		if f.each.Done() {
			return nil, datamodel.PathSegment{}, nil
		}
		segment, child, err := f.each.Next()
		return child, segment, err
	}
	for len(f.some) > 0 {
		segment := f.some[0]
		f.some = f.some[1:]
		if child, err := f.node.LookupBySegment(segment); err == nil {
			return child, segment, nil
		}
	}
	return nil, datamodel.PathSegment{}, nil
}

// readMatched reads the bytes of a node that a selector matches: a file is made of blocks, which are loaded that way.
func readMatched(v Visited) error {
	large, ok := v.Node.(datamodel.LargeBytesNode)
	if !ok || !v.Matched {
		return nil
	}
	r, err := large.AsLargeBytes()
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	return err
}
