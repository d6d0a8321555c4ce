package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/shared"
)

// visit is called for each link of a traversal, in order; the first has index 1, and a block that is linked twice is visited
// twice, as by graphsync. The bytes are needed for the links below; of a leaf none have to be returned.
type visit func(c cid.Cid, index int64, leaf bool) ([]byte, error)

var errTooManyLinks error = reason.TooManyLinks.Errorf("the traversal follows too many links")

// walk visits what a selector selects below a root. Both sides of a channel walk the same way, so that the order of blocks needs no
// words. It ends when alive answers an error. Everything is walked without building nodes; any other selector is left to the traversal of IPLD.
func walk(alive func() error, ls *ipld.LinkSystem, root cid.Cid, selector ipld.Node, limit uint64, v visit) error {
	if limit == 0 || limit > carstore.MaxLinks {
		limit = carstore.MaxLinks
	}
	index := int64(0)
	next := func(c cid.Cid, leaf bool) ([]byte, error) {
		index++
		if err := alive(); err != nil {
			return nil, err
		}
		if uint64(index) > limit {
			return nil, fmt.Errorf("%w: the limit is %d", errTooManyLinks, limit)
		}
		if _, here := carstore.Inlined(c); !here && c.ByteLen() > maxCid {
			return nil, fmt.Errorf("CID %s is longer than %d bytes", c, maxCid)
		}
		return v(c, index, leaf)
	}
	if shared.SameNode(selector, shared.AllSelector()) {
		return walkAll(root, next)
	}
	return walkSome(ls, root, selector, next)
}

// unwalkable reports whether a walk ended because of the shape of its DAG.
func unwalkable(err error) bool {
	return errors.Is(err, reason.TooManyLinks) || errors.Is(err, reason.DAGTooDeep)
}

// row are links of one block that are still to be followed, and how many links lead to them.
type row struct {
	links []cid.Cid
	depth int
}

func walkAll(root cid.Cid, next func(cid.Cid, bool) ([]byte, error)) error {
	stack := []row{{links: []cid.Cid{root}}}
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		c, depth := top.links[0], top.depth
		if top.links = top.links[1:]; len(top.links) == 0 {
			*top = row{}
			stack = stack[:len(stack)-1]
		}
		if err := carstore.CheckDepth(depth); err != nil {
			return err
		}
		if leaf(c) {
			if _, err := next(c, true); err != nil {
				return err
			}
			continue
		}
		data, err := next(c, false)
		if err != nil {
			return err
		}
		links, err := carstore.LinksBelow(c, data)
		if err != nil {
			return fmt.Errorf("block %s: %w", c, err)
		}
		if len(links) > 0 {
			stack = append(stack, row{links, depth + 1})
		}
	}
	return nil
}

func walkSome(ls *ipld.LinkSystem, root cid.Cid, selector ipld.Node, next func(cid.Cid, bool) ([]byte, error)) error {
	mine := *ls
	mine.TrustedStorage = true // next has checked
	mine.StorageReadOpener = func(_ linking.LinkContext, l ipld.Link) (io.Reader, error) {
		cl, ok := l.(cidlink.Link)
		if !ok {
			return nil, fmt.Errorf("link of type %T", l)
		}
		data, err := next(cl.Cid, false)
		if err != nil {
			return nil, err
		}
		return bytes.NewReader(bytes.Clone(data)), nil // nodes keep what they were made of
	}
	return carstore.WalkBounded(&mine, root, selector)
}

// sizedReader is a reader that knows how many bytes it has, as bytes.Reader does.
type sizedReader interface{ Len() int }

// load reads a block from a store. What it returns may be the store's own and is not to be changed.
func load(ctx context.Context, ls *ipld.LinkSystem, c cid.Cid) ([]byte, error) {
	r, err := ls.StorageReadOpener(ipld.LinkContext{Ctx: ctx}, cidlink.Link{Cid: c})
	if err != nil {
		return nil, err
	}
	if b, ok := r.(*bytes.Buffer); ok {
		return b.Bytes(), nil
	}
	if l, ok := r.(sizedReader); ok && l.Len() <= MaxBlock {
		data := make([]byte, l.Len())
		_, err := io.ReadFull(r, data)
		return data, err
	}
	return io.ReadAll(io.LimitReader(r, MaxBlock+1))
}

// save writes a block into a store.
func save(ctx context.Context, ls *ipld.LinkSystem, c cid.Cid, data []byte) error {
	w, commit, err := ls.StorageWriteOpener(ipld.LinkContext{Ctx: ctx})
	if err != nil {
		return err
	}
	if b, ok := w.(carstore.Borrower); ok {
		b.Borrow(data)
	} else if _, err := w.Write(data); err != nil {
		return err
	}
	return commit(cidlink.Link{Cid: c})
}
