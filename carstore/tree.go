package carstore

import (
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"

	"github.com/cartage-dev/cartage/internal/reason"
)

// maxOpenLinks bounds the links that wait on the path to the block that a walk is at: what one walk keeps stays below 512 MiB however
// deep and wide a DAG is.
const maxOpenLinks = 4 << 20

// treeVisitor is what a walk of everything does at each block.
type treeVisitor interface {
	// arrive loads a block. skip says that what is below it need not be walked; then leave is not called.
	arrive(c cid.Cid) (data []byte, skip bool, err error)
	// leave is called when everything below a block was visited.
	leave(c cid.Cid)
}

// branch is a block whose links are being followed.
type branch struct {
	block cid.Cid
	links []cid.Cid // those left
}

// walkTree visits a block and everything below it, each block before those that it links. No nodes are built.
func walkTree(root cid.Cid, v treeVisitor) error {
	open := 0
	stack := []branch{{links: []cid.Cid{root}}}
	for {
		top := &stack[len(stack)-1]
		if len(top.links) == 0 {
			if len(stack) == 1 {
				return nil
			}
			block := top.block
			*top = branch{}
			stack = stack[:len(stack)-1]
			v.leave(block)
			continue
		}
		c := top.links[0]
		top.links = top.links[1:]
		open--
		data, skip, err := v.arrive(c)
		if err != nil {
			return err
		}
		if skip {
			continue
		}
		links, err := LinksBelow(c, data)
		if err != nil {
			return fmt.Errorf("block %s: %w", c, err)
		}
		if open += len(links); open > maxOpenLinks {
			return reason.DAGTooDeep.Errorf("more than %d links wait on the path to block %s", maxOpenLinks, c)
		}
		stack = append(stack, branch{c, links})
	}
}

// treeLoader loads every block through a link system.
type treeLoader struct {
	ls    *ipld.LinkSystem
	loads int
	once  map[cid.Cid]struct{} // links that were followed; nil: each is followed every time
}

// arrive implements treeVisitor.
func (l *treeLoader) arrive(c cid.Cid) ([]byte, bool, error) {
	if l.once != nil {
		if _, again := l.once[c]; again {
			return nil, true, nil
		}
		l.once[c] = struct{}{}
	}
	if l.loads++; l.loads > MaxLinks {
		return nil, false, reason.TooManyLinks.Errorf("more than %d links were followed", MaxLinks)
	}
	data, err := l.ls.LoadRaw(ipld.LinkContext{}, cidlink.Link{Cid: c})
	return data, false, err
}

// leave implements treeVisitor.
func (l *treeLoader) leave(cid.Cid) {}
