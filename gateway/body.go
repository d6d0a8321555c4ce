package gateway

import (
	"bufio"
	"context"
	"errors"
	"io"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/carstore"
)

// body is an answer before it is sent. Its bytes are a function of its tag.
type body struct {
	tag       string
	size      uint64
	open      bool // the size is not known
	mime      string
	saveAs    string
	ranges    string // Accept-Ranges of a whole answer
	truncated bool
	inline    bool    // it carries its bytes itself: always free
	root      cid.Cid // of what is sold, with the piece that has it
	piece     uint64
	// write writes a stretch of a body of known size, or with an open one everything.
	write func(ctx context.Context, w io.Writer, s stretch) error
}

// rawBody is one block.
func (g *Gateway) rawBody(q request, place Place) *body {
	_, inline := carstore.Inlined(q.root)
	return &body{tag: `"` + q.root.String() + `.raw"`, size: uint64(place.Size), mime: typeRaw, saveAs: q.saveAs(".bin"), ranges: "bytes", inline: inline, root: q.root, piece: place.Piece,
		write: func(ctx context.Context, w io.Writer, s stretch) error {
			data, err := g.readBlock(ctx, section{q.root, place}, nil)
			if err != nil {
				return err
			}
			_, err = w.Write(data[s.from:s.to])
			return err
		}}
}

// carBody is a CAR of a plan.
func (g *Gateway) carBody(q request, p *plan, piece uint64) *body {
	b := &body{tag: p.tag, open: p.open, mime: typeCAR + "; version=1; order=dfs; dups=n", saveAs: q.saveAs(".car"), ranges: "none", truncated: p.truncated, root: q.root, piece: piece}
	if q.dups {
		b.mime = typeCAR + "; version=1; order=dfs; dups=y"
	}
	if p.open {
		b.write = func(ctx context.Context, w io.Writer, _ stretch) error { return g.stream(ctx, w, q, p) }
		return b
	}
	_, inline := carstore.Inlined(q.root)
	b.size, b.inline = p.size(), inline && len(p.sections) == 0
	b.write = func(ctx context.Context, w io.Writer, s stretch) error { return g.writePlan(ctx, w, p, s) }
	return b
}

// writeBuffer is how much of small blocks is sent at once.
const writeBuffer = 64 << 10

// writePlan writes a stretch of a closed plan.
func (g *Gateway) writePlan(ctx context.Context, w io.Writer, p *plan, s stretch) error {
	out := bufio.NewWriterSize(w, writeBuffer)
	if n := uint64(len(p.header)); s.from < n {
		if _, err := out.Write(p.header[s.from:min(n, s.to)]); err != nil {
			return err
		}
	}
	var buf []byte
	for i := p.at(s.from); i < len(p.sections) && p.begin(i) < s.to; i++ {
		sec := p.sections[i]
		if need := int(sec.place.Size) + carstore.SectionHead; cap(buf) < need {
			buf = make([]byte, max(need, 2*cap(buf)))
		}
		data, err := g.readBlock(ctx, sec, buf[:0])
		if err != nil {
			g.planner.cache.drop(p.tag)
			return err
		}
		if err := writeClipped(out, s, p.begin(i), sec.head(), data); err != nil {
			return err
		}
	}
	return out.Flush()
}

// writeClipped writes those bytes of parts that lie in a stretch; the first part begins at an offset of the body.
func writeClipped(w io.Writer, s stretch, at uint64, parts ...[]byte) error {
	for _, p := range parts {
		end := at + uint64(len(p))
		if from, to := max(at, s.from), min(end, s.to); from < to {
			if _, err := w.Write(p[from-at : to-at]); err != nil {
				return err
			}
		}
		at = end
	}
	return nil
}

// readBlock reads a block of a plan. One that has another size than the index says was replaced meanwhile.
func (g *Gateway) readBlock(ctx context.Context, s section, buf []byte) ([]byte, error) {
	if data, ok := carstore.Inlined(s.cid); ok {
		return data, nil
	}
	data, err := g.cfg.Blocks.Read(ctx, s.cid, s.place, buf)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, missing(s.cid)
	case err != nil:
		return nil, err
	case len(data) != int(s.place.Size):
		return nil, missing(s.cid)
	}
	return data, nil
}

// stream writes the CAR of an open plan while it walks. The bounds of a plan hold, but for the number of blocks.
func (g *Gateway) stream(ctx context.Context, w io.Writer, q request, p *plan) error {
	out := bufio.NewWriterSize(w, writeBuffer)
	if _, err := out.Write(p.header); err != nil {
		return err
	}
	var buf []byte
	sent := uint64(0)
	wk := g.planner.walk(ctx, nil, bounds{depth: g.cfg.Limits.Depth, links: g.cfg.Limits.Links})
	wk.dups = q.dups
	wk.emit = func(s section) error {
		if need := int(s.place.Size) + carstore.SectionHead; cap(buf) < need {
			buf = make([]byte, need)
		}
		data, err := g.readBlock(ctx, s, buf[:0])
		if err != nil {
			return err
		}
		if _, err := out.Write(s.head()); err != nil {
			return err
		}
		if _, err := out.Write(data); err != nil {
			return err
		}
		if sent++; sent == q.blockLimit {
			return errEnough
		}
		return nil
	}
	if err := wk.run(q); err != nil && !errors.Is(err, errEnough) {
		return err
	}
	return out.Flush()
}
