package imports

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
)

// ErrSourceChanged means that a source is not what it was when it was read first.
var ErrSourceChanged = errors.New("the source was changed while it was read")

// plan is a Sink that keeps the nodes of a DAG and where its leaves lie: the source is read again for their bytes.
type plan struct {
	nodes  map[cid.Cid][]byte
	leaves map[cid.Cid]span
}

// span is where the bytes of a leaf lie.
type span struct {
	Leaf
	size int
}

// Leaf implements Sink.
func (p *plan) Leaf(c cid.Cid, data []byte, at Leaf) error {
	if _, ok := p.leaves[c]; !ok {
		p.leaves[c] = span{at, len(data)}
	}
	return nil
}

// Node implements Sink.
func (p *plan) Node(c cid.Cid, data []byte) error {
	p.nodes[c] = bytes.Clone(data)
	return nil
}

// WriteCAR is WriteCARTo into a file at dest, which is replaced when the archive is complete.
func WriteCAR(ctx context.Context, fsys blob.FS, path, dest string, p Profile, o *Options) (root cid.Cid, err error) {
	err = carstore.WriteAside(fsys, dest, true, func(w io.Writer) error {
		root, err = WriteCARTo(ctx, path, w, p, o)
		return err
	})
	return root, err
}

// WriteCARTo builds the DAG of a file or folder into a CARv1: its root is in the header, its blocks follow depth first, each once, identity
// blocks too. It reads the source twice, in memory for the inner nodes only, and fails if it changed in between.
func WriteCARTo(ctx context.Context, path string, w io.Writer, p Profile, o *Options) (cid.Cid, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return cid.Undef, err
	}
	pl := &plan{nodes: map[cid.Cid][]byte{}, leaves: map[cid.Cid]span{}}
	b := Builder{Profile: p, Sink: pl, Options: o}
	root, err := b.Add(ctx, abs)
	if err != nil {
		return cid.Undef, err
	}
	a := archive{plan: pl, w: bufio.NewWriterSize(w, 1<<20), seen: map[cid.Cid]bool{}}
	return root, errors.Join(a.writeArchive(ctx, root), a.closeArchive())
}

// archive writes the CAR of a plan.
type archive struct {
	*plan
	w    *bufio.Writer
	seen map[cid.Cid]bool
	open *os.File // the source that was read last
	buf  []byte
}

func (a *archive) writeArchive(ctx context.Context, root cid.Cid) error {
	head, err := carstore.V1Header(root)
	if err != nil {
		return err
	}
	if _, err := a.w.Write(head); err != nil {
		return err
	}
	if err := a.walkBlocks(ctx, root); err != nil {
		return err
	}
	return a.w.Flush()
}

// walkBlocks writes a block and what is below it.
func (a *archive) walkBlocks(ctx context.Context, c cid.Cid) error {
	if a.seen[c] {
		return nil
	}
	a.seen[c] = true
	if err := ctx.Err(); err != nil {
		return err
	}
	node, ok := a.nodes[c]
	if !ok {
		data, err := a.readLeaf(c)
		if err != nil {
			return err
		}
		return carstore.WriteSection(a.w, c, data)
	}
	if err := carstore.WriteSection(a.w, c, node); err != nil {
		return err
	}
	links, err := carstore.LinksOf(c, node)
	if err != nil {
		return err
	}
	for _, l := range links {
		if err := a.walkBlocks(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// readLeaf reads the bytes of a leaf and checks that they are still the same.
func (a *archive) readLeaf(c cid.Cid) ([]byte, error) {
	at, ok := a.leaves[c]
	if !ok {
		return nil, fmt.Errorf("block %s is in no source", c)
	}
	if a.open == nil || a.open.Name() != at.Path {
		if err := a.closeArchive(); err != nil {
			return nil, err
		}
		f, err := os.Open(at.Path)
		if err != nil {
			return nil, err
		}
		a.open = f
	}
	if cap(a.buf) < at.size {
		a.buf = make([]byte, at.size)
	}
	data := a.buf[:at.size]
	if _, err := a.open.ReadAt(data, at.Offset); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := carstore.Verify(c, data); err != nil {
		return nil, fmt.Errorf("%w: %s at offset %d: %w", ErrSourceChanged, at.Path, at.Offset, err)
	}
	return data, nil
}

func (a *archive) closeArchive() error {
	if a.open == nil {
		return nil
	}
	err := a.open.Close()
	a.open = nil
	return err
}
