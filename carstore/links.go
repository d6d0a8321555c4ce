package carstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	_ "github.com/ipld/go-ipld-prime/codec/dagcbor" // codecs of blocks
	_ "github.com/ipld/go-ipld-prime/codec/dagjson"
	_ "github.com/ipld/go-ipld-prime/codec/raw"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal"
	"github.com/ipld/go-ipld-prime/traversal/selector"
	mh "github.com/multiformats/go-multihash"
)

// maxLinks bounds a walk over a local file.
const maxLinks = 1 << 26

// Getter reads the bytes of a block, checked.
type Getter func(cid.Cid) ([]byte, error)

// Lend lets a link system of LinksInto put the block that it reads next under ctx into a buffer: the block is valid until the buffer is
// used again. Who reads many blocks one after the other saves the memory that would be made and thrown away for each.
func Lend(ctx context.Context, buf *[]byte) context.Context {
	return context.WithValue(ctx, lent{}, buf)
}

type lent struct{}

// Gathered are blocks that a store has taken and not written yet.
type Gathered struct{ flush func() error }

// Flush writes them. Until then they may be lost with the process: who counts blocks flushes first.
func (g *Gathered) Flush() error {
	if g.flush == nil {
		return nil
	}
	return g.flush()
}

// Gather lets a store write blocks that it gets under ctx together, when they are flushed or at any time before.
func Gather(ctx context.Context, g *Gathered) context.Context {
	return context.WithValue(ctx, gathering{}, g)
}

type gathering struct{}

// Links makes a link system that reads with get, knows UnixFS, and refuses to write.
func Links(get Getter) ipld.LinkSystem {
	return LinksInto(func(_ []byte, c cid.Cid) ([]byte, error) { return get(c) })
}

// LinksInto is Links for a store that reads into buffers; buf may be nil or too small, and then is not used.
func LinksInto(get func(buf []byte, c cid.Cid) ([]byte, error)) ipld.LinkSystem {
	ls := cidlink.DefaultLinkSystem()
	ls.TrustedStorage = true // get has checked the hash
	ls.StorageReadOpener = func(ctx linking.LinkContext, l ipld.Link) (io.Reader, error) {
		cl, ok := l.(cidlink.Link)
		if !ok {
			return nil, fmt.Errorf("link of type %T", l)
		}
		var buf []byte
		if ctx.Ctx != nil {
			if b, ok := ctx.Ctx.Value(lent{}).(*[]byte); ok {
				buf = *b
			}
		}
		data, err := get(buf, cl.Cid)
		if err != nil {
			return nil, err
		}
		return bytes.NewBuffer(data), nil
	}
	ls.StorageWriteOpener = func(linking.LinkContext) (io.Writer, linking.BlockWriteCommitter, error) {
		return nil, nil, errors.New("this store is read-only")
	}
	unixfsnode.AddUnixFSReificationToLinkSystem(&ls)
	return ls
}

func (s *Store) bytesOf(c cid.Cid) ([]byte, error) {
	b, err := s.Get(c)
	if err != nil {
		return nil, err
	}
	return b.RawData(), nil
}

// LinkSystem reads and appends blocks. The writer of a block must have checked that it is the one that the traversal
// expects; its hash is checked here once more only if it comes without a link.
func (s *Store) LinkSystem() ipld.LinkSystem {
	ls := Links(s.bytesOf)
	ls.StorageWriteOpener = func(lc linking.LinkContext) (io.Writer, linking.BlockWriteCommitter, error) {
		w, put := &borrower{}, s.Put
		if lc.Ctx != nil {
			if g, ok := lc.Ctx.Value(gathering{}).(*Gathered); ok {
				g.flush, put = s.flush, s.gather
			}
		}
		return w, committer(&w.blockWriter, put), nil
	}
	return ls
}

// Writing makes a link system write with put, which gets whole blocks.
func Writing(ls ipld.LinkSystem, put func(cid.Cid, []byte) error) ipld.LinkSystem {
	ls.StorageWriteOpener = func(linking.LinkContext) (io.Writer, linking.BlockWriteCommitter, error) {
		w := &blockWriter{}
		return w, committer(w, put), nil
	}
	return ls
}

func committer(w *blockWriter, put func(cid.Cid, []byte) error) linking.BlockWriteCommitter {
	return func(l ipld.Link) error {
		cl, ok := l.(cidlink.Link)
		if !ok {
			return fmt.Errorf("link of type %T", l)
		}
		return put(cl.Cid, w.data)
	}
}

// blockWriter takes a whole block without a copy when it is offered as one.
type blockWriter struct{ data []byte }

func (w *blockWriter) Write(p []byte) (int, error) {
	w.data = append(w.data, p...)
	return len(p), nil
}

// SetBytes takes over a block; graphsync looks for it.
func (w *blockWriter) SetBytes(p []byte) error {
	w.data = p
	return nil
}

// borrower is a blockWriter whose put keeps nothing of a block.
type borrower struct{ blockWriter }

// Borrower is a block writer that uses the bytes of its caller until the block is committed, instead of a copy.
type Borrower interface{ Borrow(p []byte) }

var _ Borrower = (*borrower)(nil)

// Borrow takes a whole block without a copy. It has to stay as it is until the commit.
func (w *borrower) Borrow(p []byte) { w.data = p }

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

// LocateIn is Locate over any store: get answers an error that wraps ErrNotFound or ErrBadHash for a block that is missing.
func LocateIn(root cid.Cid, sel datamodel.Node, get func(cid.Cid) ([]byte, error)) (Position, error) {
	var p Position
	seen := map[string]bool{}
	missing := errors.New("missing")
	ls := Links(func(c cid.Cid) ([]byte, error) {
		data, err := get(c)
		if errors.Is(err, ErrNotFound) || errors.Is(err, ErrBadHash) {
			return nil, missing
		}
		if err != nil {
			return nil, err
		}
		p.Blocks++
		p.Last = c
		if k := string(c.Hash()); !seen[k] && c.Prefix().MhType != mh.IDENTITY { // which nobody sends
			seen[k] = true
			p.Bytes += uint64(len(data))
		}
		return data, nil
	})
	err := WalkSelector(&ls, root, sel, nil)
	p.Complete = err == nil
	if errors.Is(err, missing) {
		err = nil
	}
	return p, err
}

// WalkSelector loads everything that sel selects below root, in traversal order: as graphsync does also the bytes of a file that are
// matched, or the range of them. visit, which may be nil, hears of each node; then it has to load those. A block that cannot be loaded ends it
// with that error.
func WalkSelector(ls *ipld.LinkSystem, root cid.Cid, sel datamodel.Node, visit traversal.AdvVisitFn) error {
	return walk(ls, root, sel, visit, false)
}

// WalkOnce is WalkSelector that follows each link once, for who wants the blocks and not the order of their repeats.
func WalkOnce(ls *ipld.LinkSystem, root cid.Cid, sel datamodel.Node) error {
	return walk(ls, root, sel, nil, true)
}

// bounded ends a walk at the first block that cannot be loaded, which a traversal that looks up a name in a sharded folder would take for a
// name that is not there, and after too many.
type bounded struct {
	read  linking.BlockReadOpener
	loads int
	err   error
}

func (b *bounded) open(ctx linking.LinkContext, l datamodel.Link) (io.Reader, error) {
	if b.err != nil {
		return nil, b.err
	}
	if b.loads++; b.loads > maxLinks {
		b.err = fmt.Errorf("more than %d links were followed", maxLinks)
		return nil, b.err
	}
	r, err := b.read(ctx, l)
	b.err = err
	return r, err
}

func walk(ls *ipld.LinkSystem, root cid.Cid, sel datamodel.Node, visit traversal.AdvVisitFn, once bool) error {
	parsed, err := selector.ParseSelector(sel)
	if err != nil {
		return fmt.Errorf("selector: %w", err)
	}
	chooser := dagpb.AddSupportToChooser(func(ipld.Link, ipld.LinkContext) (ipld.NodePrototype, error) {
		return basicnode.Prototype.Any, nil
	})
	mine, bound := *ls, &bounded{read: ls.StorageReadOpener}
	mine.StorageReadOpener = bound.open
	rl := cidlink.Link{Cid: root}
	proto, err := chooser(rl, ipld.LinkContext{})
	if err != nil {
		return err
	}
	node, err := mine.Load(ipld.LinkContext{}, rl, proto)
	if err != nil {
		return err
	}
	if visit == nil {
		visit = readMatched
	}
	prog := traversal.Progress{
		Cfg:    &traversal.Config{LinkSystem: mine, LinkTargetNodePrototypeChooser: chooser, LinkVisitOnlyOnce: once},
		Budget: &traversal.Budget{NodeBudget: 1 << 40, LinkBudget: maxLinks},
	}
	if err := prog.WalkAdv(node, parsed, visit); err != nil {
		return err
	}
	return bound.err
}

// readMatched reads the bytes of a node that a selector matches: a file is made of blocks, which are loaded that way.
func readMatched(_ traversal.Progress, n datamodel.Node, why traversal.VisitReason) error {
	large, ok := n.(datamodel.LargeBytesNode)
	if !ok || why != traversal.VisitReason_SelectionMatch {
		return nil
	}
	r, err := large.AsLargeBytes()
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	return err
}
