package carstore

import (
	"errors"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	mh "github.com/multiformats/go-multihash"

	"github.com/cartage-dev/cartage/internal/limits"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/shared"
)

// Bounds of a walk, in links that are followed, repeats included.
const (
	// MaxLinks bounds every walk.
	MaxLinks = limits.MaxLinks
	// freeLinks may be followed whatever there is, and linksPerBlock for each block that was met.
	freeLinks     = 1 << 16
	linksPerBlock = 256
)

// LinkBound is how many links a walk may have followed that met so many different blocks. A file that holds one part many times stays far
// below it; a DAG whose blocks are linked in more ways than anybody can go does not.
func LinkBound(blocks int) uint64 { return min(MaxLinks, freeLinks+linksPerBlock*uint64(blocks)) }

// CheckLinks is LinkBound as a check: the error has the reason too-many-links.
func CheckLinks(followed uint64, blocks int) error {
	if bound := LinkBound(blocks); followed > bound {
		return reason.TooManyLinks.Errorf("more than %d links lead through %d blocks", bound, blocks)
	}
	return nil
}

// MaxDepth is how many links may lead to a block that is sent or received.
const MaxDepth = limits.MaxDepth

// CheckDepth is MaxDepth as a check: the error has the reason dag-too-deep.
func CheckDepth(depth int) error {
	if depth > MaxDepth {
		return tooDeep(MaxDepth)
	}
	return nil
}

func tooDeep(deepest int) error {
	return reason.DAGTooDeep.Errorf("the DAG has more than %d levels of blocks", deepest)
}

// Position is how far a file holds a traversal.
type Position struct {
	Blocks   int64  // loads up to the first missing block, repeats included
	Bytes    uint64 // of unique blocks among them
	Complete bool
	Last     cid.Cid // the last block of them
}

// Locate walks a selector over the file and finds the first block that is missing.
func (s *Store) Locate(sel datamodel.Node) (Position, error) {
	return LocateIn(s.root, sel, s.bytesOf)
}

// errMissing ends a walk at the first block that is not there.
var errMissing = errors.New("missing")

// LocateIn is Locate over any store: get answers an error that wraps ErrNotFound or ErrBadHash for a block that is missing. What is linked
// many times is counted many times, and looked at once if everything is selected.
func LocateIn(root cid.Cid, sel datamodel.Node, get func(cid.Cid) ([]byte, error)) (Position, error) {
	l := locator{get: get, met: map[string]subtree{}}
	var err error
	if shared.SameNode(sel, shared.AllSelector()) {
		err = walkTree(root, &l)
	} else {
		ls := Links(l.loadBlock)
		err = WalkSelector(&ls, root, sel, nil)
	}
	l.pos.Complete = err == nil
	if errors.Is(err, errMissing) {
		err = nil
	}
	return l.pos, err
}

// subtree is what was met below a block: how many links lead to it and through it, and where they end.
type subtree struct {
	top, last cid.Cid
	links     int64 // 0 while it is being walked
}

// locator counts a traversal.
type locator struct {
	get  func(cid.Cid) ([]byte, error)
	pos  Position
	met  map[string]subtree // by multihash
	open []int64            // how many links were followed before each block that is being walked
}

// loadBlock gets a block and counts it.
func (l *locator) loadBlock(c cid.Cid) ([]byte, error) {
	data, err := l.get(c)
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrBadHash) {
		return nil, errMissing
	}
	if err != nil {
		return nil, err
	}
	l.pos.Blocks++
	l.pos.Last = c
	if k := hashString(c); !l.isMet(k) {
		l.met[k] = subtree{top: c}
		if c.Prefix().MhType != mh.IDENTITY { // which nobody sends
			l.pos.Bytes += uint64(len(data))
		}
	}
	return data, CheckLinks(uint64(l.pos.Blocks), len(l.met))
}

func (l *locator) isMet(hash string) bool {
	_, ok := l.met[hash]
	return ok
}

// arrive implements treeVisitor.
func (l *locator) arrive(c cid.Cid) (data []byte, skip bool, err error) {
	if t := l.met[hashString(c)]; t.links > 0 && t.top.Equals(c) {
		l.pos.Last = t.last
		l.pos.Blocks += t.links // no overflow: the bound ends the walk long before
		return nil, true, CheckLinks(uint64(l.pos.Blocks), len(l.met))
	}
	l.open = append(l.open, l.pos.Blocks)
	data, err = l.loadBlock(c)
	return data, false, err
}

// leave implements treeVisitor.
func (l *locator) leave(c cid.Cid) {
	before := l.open[len(l.open)-1]
	l.open = l.open[:len(l.open)-1]
	l.met[hashString(c)] = subtree{top: c, last: l.pos.Last, links: l.pos.Blocks - before}
}
