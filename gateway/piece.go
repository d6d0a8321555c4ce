package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/commp"
)

// servePiece answers /piece/CID: with version 1 the payload exactly, with version 2 as many bytes as the CID says, zeros behind the payload.
func (g *Gateway) servePiece(x *exchange, rest string) error {
	c, err := parseCID(rest)
	if err != nil {
		return err
	}
	if strings.Contains(rest, "/") {
		return fail(http.StatusBadRequest, BadPath, "a piece has no path below it")
	}
	v1, size, err := pieceCID(c)
	if err != nil {
		return err
	}
	if err := g.permitted(v1, nil); err != nil {
		return err
	}
	if err := g.till.admit(x); err != nil {
		return err
	}
	p, err := g.findPiece(x, v1, size)
	if err != nil {
		return err
	}
	if size == 0 {
		size = p.Size
	}
	mime := typePiece
	if size == p.Size {
		mime = typeCAR + "; version=1"
	}
	return g.serve(x, &body{tag: fmt.Sprintf(`"%s.%d"`, v1, size), size: size, mime: mime, saveAs: c.String() + ".car", ranges: "bytes", root: v1,
		write: func(ctx context.Context, w io.Writer, s stretch) error { return writePiece(ctx, w, p, s) }})
}

// pieceCID is version 1 of a piece CID, and the size that one of version 2 has.
func pieceCID(c cid.Cid) (cid.Cid, uint64, error) {
	if commp.IsV2(c) {
		p, err := commp.FromV2(c)
		if err != nil {
			return cid.Undef, 0, fail(http.StatusBadRequest, BadCID, "%s is no piece CID: %s", c, quoted(err.Error()))
		}
		return p.CID, uint64(p.Payload), nil
	}
	if c.Prefix().Codec != cid.FilCommitmentUnsealed {
		return cid.Undef, 0, fail(http.StatusBadRequest, BadCID, "%s is no piece CID", c).withHint("Content is at /ipfs/CID.")
	}
	return c, 0, nil
}

// findPiece finds a piece that has the size that is asked for.
func (g *Gateway) findPiece(x *exchange, v1 cid.Cid, size uint64) (Piece, error) {
	absent := fail(http.StatusNotFound, NotFound, "the piece %s is not here", v1)
	if g.cfg.Pieces == nil {
		return Piece{}, absent
	}
	p, err := g.cfg.Pieces.Piece(x.r.Context(), v1)
	switch {
	case errors.Is(err, ErrNotFound):
		return p, absent
	case err != nil:
		return p, err
	case size != 0 && (size < p.Size || size > p.Padded/128*127):
		return p, fail(http.StatusNotFound, NotFound, "the piece %s has no data of %d bytes here", v1, size)
	}
	return p, nil
}

// pieceBuffer is how much of a piece is read at once.
const pieceBuffer = 1 << 20

// writePiece writes a stretch of a piece.
func writePiece(ctx context.Context, w io.Writer, p Piece, s stretch) (err error) {
	if s.from < p.Size {
		f, err := p.Open(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		to := min(s.to, p.Size)
		buf := make([]byte, min(pieceBuffer, to-s.from))
		for at := s.from; at < to; {
			part := buf[:min(uint64(len(buf)), to-at)]
			if n, err := f.ReadAt(part, int64(at)); err != nil && (n < len(part) || !errors.Is(err, io.EOF)) {
				return err
			}
			if _, err := w.Write(part); err != nil {
				return err
			}
			at += uint64(len(part))
		}
		s.from = to
	}
	return writeZeros(w, s.len())
}

func writeZeros(w io.Writer, n uint64) error {
	zeros := make([]byte, min(n, 64<<10))
	for n > 0 {
		part := zeros[:min(uint64(len(zeros)), n)]
		if _, err := w.Write(part); err != nil {
			return err
		}
		n -= uint64(len(part))
	}
	return nil
}
