package carstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec"
	_ "github.com/ipld/go-ipld-prime/codec/dagcbor" // codecs of blocks
	_ "github.com/ipld/go-ipld-prime/codec/dagjson"
	_ "github.com/ipld/go-ipld-prime/codec/raw"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

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
	ls.DecoderChooser = decodeOrBytes(ls.DecoderChooser)
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

// decodeOrBytes is a choice of decoders that takes what cannot be decoded for bytes, as LinksBelow does: a walk goes on behind a leaf that nobody
// can read.
func decodeOrBytes(choose func(datamodel.Link) (codec.Decoder, error)) func(datamodel.Link) (codec.Decoder, error) {
	return func(l datamodel.Link) (codec.Decoder, error) {
		decode, err := choose(l)
		cl, ok := l.(cidlink.Link)
		if !ok || err == nil && (cl.Cid.Prefix().Codec == cid.Raw || cl.Cid.Prefix().Codec == cid.DagProtobuf) {
			return decode, err
		}
		return func(na datamodel.NodeAssembler, r io.Reader) error {
			data, rerr := io.ReadAll(r)
			if rerr != nil {
				return rerr
			}
			b := basicnode.Prototype.Any.NewBuilder()
			if err == nil && decode(b, bytes.NewReader(data)) == nil {
				return na.AssignNode(b.Build())
			}
			return na.AssignBytes(data)
		}, nil
	}
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
				g.flush, put = s.flushGathered, s.gatherBlock
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
