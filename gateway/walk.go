package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/ipfs/go-cid"
	varint "github.com/multiformats/go-varint"

	"github.com/cartage-dev/cartage/carstore"
)

// plannerVersion is part of every Etag of a CAR: it changes when the same request gets another body.
const plannerVersion = 1

// section is a block of a CAR, and where it comes from.
type section struct {
	cid   cid.Cid
	place Place
}

// head is the length and the CID that stand before the block.
func (s section) head() []byte {
	c := s.cid.Bytes()
	return append(varint.ToUvarint(uint64(len(c))+uint64(s.place.Size)), c...)
}

// size is that of the section with its length.
func (s section) size() uint64 {
	n := uint64(s.cid.ByteLen()) + uint64(s.place.Size)
	return uint64(varint.UvarintSize(n)) + n
}

// What ends a walk before its end, beside failures.
var (
	// errOpen means that a plan would be larger than plans are.
	errOpen = errors.New("the plan is open")
	// errEnough means that as many blocks were met as are wanted.
	errEnough = errors.New("enough blocks")
)

// bounds are what a walk may cost. Zero is without bound.
type bounds struct {
	inner  uint64 // bytes of blocks with links
	visits int    // with repeats
	depth  int
	links  int // of one block
}

// walk visits what a request asks for, in the order of its CAR.
type walk struct {
	ctx    context.Context
	blocks Blocks
	deny   Denier
	bounds bounds
	pay    func(lookups int) error // charges look-ups to whoever asks; nil: they cost nothing
	emit   func(section) error
	dups   bool

	seen   map[string]Place
	inner  uint64
	visits int
	buf    []byte
	// last is the block with links that was read last, so that what looks at it again need not read it again.
	last     cid.Cid
	lastData []byte
}

// lookupBatch is how many look-ups are charged at once.
const lookupBatch = 256

// step counts a visit against the bounds.
func (w *walk) step() error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if w.visits%lookupBatch == 0 && w.pay != nil {
		if err := w.pay(lookupBatch); err != nil {
			return err
		}
	}
	if w.visits++; w.bounds.visits > 0 && w.visits > w.bounds.visits {
		return errOpen
	}
	return carstoreLimit(carstore.CheckLinks(uint64(w.visits), len(w.seen)))
}

// carstoreLimit names what a DAG of somebody else's making breaks.
func carstoreLimit(err error) error {
	if err == nil {
		return nil
	}
	return fail(http.StatusBadRequest, TooWide, "%v", err).withHint("Ask for a part of it: a path below, dag-scope, or format=raw.")
}

// meet finds a block and puts it into the CAR, unless it stands there and repeats are not wanted; an identity CID never stands there. known
// says that the block was met before.
func (w *walk) meet(c cid.Cid) (place Place, known bool, err error) {
	if err := w.step(); err != nil {
		return Place{}, false, err
	}
	if _, ok := carstore.Inlined(c); ok {
		return Place{}, false, nil
	}
	key := c.KeyString()
	place, known = w.seen[key]
	if known && !w.dups {
		return place, true, nil
	}
	if !known {
		if place, err = w.find(c); err != nil {
			return place, false, err
		}
		w.seen[key] = place
	}
	return place, known, w.emit(section{c, place})
}

// find looks a block up that somebody may have.
func (w *walk) find(c cid.Cid) (Place, error) {
	if w.deny != nil {
		if v, denied := w.deny.Denied(c, ""); denied {
			return Place{}, deniedFailure(v)
		}
	}
	place, err := w.blocks.Find(w.ctx, c)
	switch {
	case errors.Is(err, ErrNotFound):
		return place, missing(c)
	case errors.Is(err, ErrNotLocal):
		return place, fail(http.StatusNotFound, BlockMissing, "block %s is not at hand", c).with("cid", c.String()).withHint("Nothing was charged. Ask again later, or another gateway.")
	case err == nil && uint64(place.Size) > carstore.MaxBlock:
		return place, fail(http.StatusNotFound, BlockMissing, "block %s has %d bytes, which is more than is served", c, place.Size).with("cid", c.String())
	}
	return place, err
}

func missing(c cid.Cid) *failure {
	return fail(http.StatusNotFound, BlockMissing, "block %s is not here", c).with("cid", c.String()).withHint("Nothing was charged. Ask another gateway.")
}

// isLeaf reports whether a block has no links, whatever its bytes are.
func isLeaf(c cid.Cid) bool { return c.Prefix().Codec == cid.Raw }

// read returns the bytes of a block with links; they are valid until the next read.
func (w *walk) read(c cid.Cid, p Place) ([]byte, error) {
	if data, ok := carstore.Inlined(c); ok {
		return data, nil
	}
	if w.last.Equals(c) {
		return w.lastData, nil
	}
	if w.inner += uint64(p.Size); w.bounds.inner > 0 && w.inner > w.bounds.inner {
		return nil, errOpen
	}
	if need := int(p.Size) + carstore.SectionHead; cap(w.buf) < need {
		w.buf = make([]byte, need)
	}
	w.last = cid.Undef
	data, err := w.blocks.Read(w.ctx, c, p, w.buf[:0])
	if errors.Is(err, ErrNotFound) {
		return nil, missing(c)
	}
	if err != nil {
		return nil, err
	}
	w.last, w.lastData = c, data
	return data, nil
}

// limb is a block whose links are being followed.
type limb struct {
	links []cid.Cid // those left
}

// tree visits everything below a block that was met already.
func (w *walk) tree(root cid.Cid, place Place) error {
	links, err := w.linksBelow(root, place)
	if err != nil {
		return err
	}
	stack := []limb{{links}}
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		if len(top.links) == 0 {
			stack = stack[:len(stack)-1]
			continue
		}
		c := top.links[0]
		top.links = top.links[1:]
		place, known, err := w.meet(c)
		if err != nil {
			return err
		}
		if isLeaf(c) || known && !w.dups {
			continue
		}
		if links, err = w.linksBelow(c, place); err != nil {
			return err
		}
		if len(links) == 0 {
			continue
		}
		if err := w.deep(len(stack) + 1); err != nil {
			return err
		}
		stack = append(stack, limb{links})
	}
	return nil
}

// deep checks how many links lead to a block.
func (w *walk) deep(depth int) error {
	if w.bounds.depth > 0 && depth > w.bounds.depth {
		return fail(http.StatusBadRequest, TooDeep, "more than %d links lead to a block of this DAG", w.bounds.depth).withHint("Ask for a part of it.")
	}
	return nil
}

// linksBelow are the links of a block as walks follow them.
func (w *walk) linksBelow(c cid.Cid, p Place) ([]cid.Cid, error) {
	if isLeaf(c) {
		return nil, nil
	}
	data, err := w.read(c, p)
	if err != nil {
		return nil, err
	}
	links, err := carstore.LinksBelow(c, data)
	if err != nil {
		return nil, undecodable(c, err)
	}
	if w.bounds.links > 0 && len(links) > w.bounds.links {
		return nil, fail(http.StatusBadRequest, TooWide, "block %s has %d links, more than %d", c, len(links), w.bounds.links).withHint("Ask for a part of it.")
	}
	return links, nil
}

// undecodable is the failure of a block with links that nobody can read.
func undecodable(c cid.Cid, err error) *failure {
	return fail(http.StatusNotFound, BlockMissing, "block %s cannot be decoded: %s", c, quoted(fmt.Sprint(err))).with("cid", c.String()).
		withHint("Nothing was charged. format=raw serves its bytes.")
}
