package node

import (
	"context"
	"errors"
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/dataselector"
	"github.com/cartage-dev/cartage/internal/cartargets"
	"github.com/cartage-dev/cartage/internal/node/download"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/shared"
)

// A retrieval buys what is nowhere on this node, in as many deals as that takes: a claim of what is here can only be a beginning of a traversal,
// so what lies behind blocks that are here is bought as a DAG of its own.

// purchase is what one deal buys: what is wanted, or a part of it.
type purchase struct {
	root cid.Cid
	sel  ipld.Node
	// resumes says that what is here of its beginning is claimed. A traversal that reads nodes as UnixFS has no paths for the blocks that it loads,
	// and over graphsync cannot begin in its middle.
	resumes bool
}

// same tells whether two deals buy the same.
func (p purchase) same(o purchase) bool {
	return p.root.Equals(o.root) && shared.SameNode(p.sel, o.sel)
}

// all is the purchase of everything that is wanted.
func (w Want) all() purchase {
	return purchase{w.Root, w.Part.Node(), w.Part.Traverses() && !w.Part.Moves() || w.Part.Everything()}
}

// maxGaps is how many deals may be made for what is missing in several places; where there are more, one deal buys all again that lies behind
// the first.
const maxGaps = 16

// maxRanges is how many runs of links of one block one deal buys: its selector travels with each message that asks.
const maxRanges = 128

// next is what is to be bought next for a retrieval. It is done when all of it is in its file, where what other files had was put. What can be
// seen to be impossible from the blocks that are here is refused with its reason: a path that leads nowhere, a range behind the end, a folder
// where a file is wanted.
func (n *Node) next(ctx context.Context, w Want, into string) (p purchase, done bool, err error) {
	own, err := n.targets.Acquire(w.Root, w.Part.Node())
	if err != nil {
		return p, false, err
	}
	defer func() { err = errors.Join(err, n.targets.Release(own)) }()
	h, err := n.holdings(ctx, own, into)
	if err != nil {
		return p, false, err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	if p, err = w.missing(ctx, h); err != nil {
		return p, false, err
	}
	if p.root.Defined() {
		return p, false, n.begin(p, h)
	}
	pos, err := gather(own.Store, w.all(), h)
	if err != nil || !pos.Complete {
		return w.all(), false, err
	}
	return p, true, nil
}

func (n *Node) holdings(ctx context.Context, own *cartargets.File, into string) (*holdings, error) {
	books, err := n.targets.shelf.refresh(ctx, own.Path)
	h := &holdings{own: own.Store, fs: n.targets.fs, books: books}
	if into == intoStore {
		h.more = n.blocks.get(ctx)
	}
	return h, err
}

// begin puts what is here of the beginning of a purchase into its file: the deal asks for what follows.
func (n *Node) begin(p purchase, h *holdings) error {
	if !p.resumes {
		return nil
	}
	if data, err := h.Get(p.root); data == nil || err != nil {
		return nil // there is nothing of it
	}
	c, err := n.targets.Acquire(p.root, p.sel)
	if err != nil {
		return err
	}
	_, err = gather(c.Store, p, h)
	return errors.Join(err, n.targets.Release(c))
}

// gather puts the blocks of a traversal into a file, up to the first that is nowhere.
func gather(c *carstore.Store, p purchase, h *holdings) (carstore.Position, error) {
	return carstore.LocateIn(p.root, p.sel, func(b cid.Cid) ([]byte, error) {
		have, err := c.Get(b)
		if err == nil {
			return have.RawData(), nil
		}
		data, err := h.Get(b)
		if err == nil && !c.Final() {
			err = c.Put(b, data)
		}
		return data, err
	})
}

// missing is what is to be bought next; nothing when all blocks seem to be here.
func (w Want) missing(ctx context.Context, h *holdings) (p purchase, err error) {
	if !w.Part.Moves() {
		return w.rest(h)
	}
	ls := carstore.Links(h.Get)
	at, left, lost, err := w.Part.Resolve(ctx, &ls, w.Root)
	switch {
	case err != nil:
		return p, err
	case lost.Defined() && !lost.Equals(at): // a shard of a folder
		return purchase{lost, dataselector.NodeAlone(), false}, nil
	}
	if !lost.Defined() {
		if _, err = h.Get(at); err != nil && !isMissing(err) {
			return p, err
		}
	}
	if lost.Defined() || err != nil {
		if at.Equals(w.Root) && h.own.Len() > 0 { // it is damaged, and what it links is here
			return purchase{at, dataselector.NodeAlone(), false}, nil
		}
		return w.unknown(at, left)
	}
	bytes, err := w.check(ctx, &ls, at)
	part, merr := w.Part.Moved("")
	if err == nil {
		err = merr
	}
	list, shards := w.Part.List()
	switch {
	case err != nil || list && !shards:
		return p, err
	case list:
		m, err := carstore.FindShards(at, h)
		return fill(m, part.Node(), dataselector.ShardsBelow, w.all()), err
	}
	m, err := carstore.FindGaps(at, bytes, h)
	p = w.all()
	if bytes == nil { // what is wanted is a DAG
		if p = (purchase{at, shared.AllSelector(), true}); at.Equals(w.Root) {
			p = w.all()
		}
		if m.Behind == 0 && len(m.Gaps) > 0 && h.own.Len() <= m.Met { // what is here is its beginning
			return p, err
		}
	}
	sel := shared.AllSelector()
	if len(m.Gaps) > 0 && h.own.Len() > m.Met && m.Gaps[0].Cid.Prefix().Codec != cid.Raw { // what it links may be here
		sel, m.Gaps = dataselector.NodeAlone(), m.Gaps[:1]
	}
	return fill(m, sel, dataselector.Below, p), err
}

// answered is the refusal that the blocks of a retrieval that has all of them stand for: a path that leads nowhere, a range behind the end, no file.
func (n *Node) answered(ctx context.Context, w Want) error {
	c, err := n.targets.Acquire(w.Root, w.Part.Node())
	if err != nil {
		return err
	}
	return errors.Join(w.refusal(ctx, c.Store), n.targets.Release(c))
}

func (w Want) refusal(ctx context.Context, c *carstore.Store) error {
	if !w.Part.Moves() {
		return nil
	}
	ls := c.LinkSystem()
	at, left, lost, err := w.Part.Resolve(ctx, &ls, w.Root)
	if err != nil || lost.Defined() || left != "" {
		return err
	}
	_, err = w.check(ctx, &ls, at)
	return err
}

// isMissing reports whether a block is not here, as far as anybody can tell.
func isMissing(err error) bool {
	return errors.Is(err, carstore.ErrNotFound) || errors.Is(err, carstore.ErrBadHash)
}

// unknown buys what is wanted at a node that is not here. If it has to be a file, the blocks on the way and its own come first: what it is
// decides whether the rest is wanted.
func (w Want) unknown(at cid.Cid, left string) (purchase, error) {
	part, err := w.Part.Moved(left)
	if w.File && w.Part.Bytes() == nil && (left != "" || at.Prefix().Codec == cid.DagProtobuf) {
		part, err = dataselector.Folder(left, false)
	} else if at.Equals(w.Root) {
		return w.all(), err
	}
	return purchase{at, part.Node(), part.Everything()}, err
}

// check refuses what is no file where one is wanted, and a range that it does not have. Otherwise it returns the bytes that are wanted, or nil
// for everything.
func (w Want) check(ctx context.Context, ls *ipld.LinkSystem, at cid.Cid) (*carstore.Span, error) {
	r := w.Part.Bytes()
	if !w.File && r == nil {
		return nil, nil
	}
	size, err := carstore.FileSize(ctx, ls, at)
	if err != nil || r == nil {
		return nil, err
	}
	first, n, err := r.Within(int64(size))
	return &carstore.Span{First: first, Last: first + n - 1}, err
}

// rest buys what follows the blocks that are here.
func (w Want) rest(h *holdings) (purchase, error) {
	pos, err := carstore.LocateIn(w.Root, w.Part.Node(), h.Get)
	if err == nil && pos.Complete {
		return purchase{}, nil
	}
	return w.all(), err
}

// fill buys the first of what is missing: one block with what sel selects below it, or, as together says, several links of one block. Where too
// many deals would be needed, it is the last resort.
func fill(m carstore.Missing, sel ipld.Node, together func([]dataselector.LinkRange) ipld.Node, last purchase) purchase {
	if len(m.Gaps) == 0 {
		return purchase{}
	}
	first, deals := m.Gaps[0], 0
	var run []carstore.Gap // those that one deal buys with the first
	for i, g := range m.Gaps {
		if g.Parent.Equals(first.Parent) && joins(first) && joins(g) {
			run = append(run, g)
		} else if !g.Parent.Equals(m.Gaps[max(0, i-1)].Parent) || !joins(g) {
			deals++
		}
	}
	switch {
	case deals >= maxGaps:
		return last
	case len(run) > 1:
		return purchase{first.Parent, together(rangesOf(run)), true}
	case first.Bytes == nil:
		return purchase{first.Cid, sel, false}
	}
	s, err := dataselector.UnixFS("", &dataselector.Range{First: first.Bytes.First, Last: first.Bytes.Last})
	if err != nil {
		return last
	}
	return purchase{first.Cid, s.Node(), false}
}

// joins tells whether a gap can be bought with others of its block.
func joins(g carstore.Gap) bool {
	return g.Bytes == nil && g.Parent.Defined() && g.Parent.Prefix().Codec == cid.DagProtobuf
}

// rangesOf are the links of some gaps of one block.
func rangesOf(gaps []carstore.Gap) (out []dataselector.LinkRange) {
	for _, g := range gaps {
		if n := len(out); n > 0 && out[n-1].To == g.Index {
			out[n-1].To++
		} else if n == maxRanges {
			break
		} else {
			out = append(out, dataselector.LinkRange{From: g.Index, To: g.Index + 1})
		}
	}
	return out
}

// bought is what a deal buys.
func bought(d rm.ClientDealState) (purchase, error) {
	sel, err := d.SelectorNode()
	return purchase{root: d.PayloadCID, sel: sel}, err
}

// buying is the deal in progress of one that buys something for an order: one of its own, or one that buys the same for another.
func (n *Node) buying(p purchase, of []download.Deal) (rm.ClientDealState, bool) {
	var same *rm.ClientDealState
	for _, d := range n.Client.ActiveDeals() {
		if slices.Contains(of, download.Deal(d.ID)) {
			return d, true
		}
		if b, err := bought(d); err == nil && b.same(p) {
			same = &d
		}
	}
	if same == nil {
		return rm.ClientDealState{}, false
	}
	return *same, true
}

// dropParts removes the files of the parts that an order bought, when all is in the file of the whole. One that was asked for itself stays.
func (n *Node) dropParts(ctx context.Context, o download.Order, w Want) {
	whole := w.all()
	for _, id := range o.Deals {
		d, err := n.Client.GetDeal(rm.DealID(id))
		if err != nil {
			continue
		}
		b, err := bought(d)
		if err != nil || b.same(whole) {
			continue
		}
		path, err := n.targets.PathOf(b.root, b.sel)
		if err != nil {
			continue
		}
		if has, err := n.targets.ds.Has(ctx, usedKey(path)); err != nil || has {
			continue
		}
		if _, err := n.targets.remove(ctx, path); err != nil {
			n.log.Warn("remove the file of a part", "path", path, "error", err)
		}
	}
}
