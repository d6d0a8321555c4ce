package node

import (
	"context"
	"errors"
	"io"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/dagstore"
	"github.com/cartage-dev/cartage/dagstore/index"
	"github.com/cartage-dev/cartage/gateway"
	"github.com/cartage-dev/cartage/internal/denylist"
)

// servedBlocks shows the dagstore to the gateway: what is for sale, and nothing else of this node.
type servedBlocks struct{ store *dagstore.Store }

var _ gateway.Blocks = servedBlocks{}

// Find implements gateway.Blocks.
func (s servedBlocks) Find(ctx context.Context, c cid.Cid) (gateway.Place, error) {
	rows, err := s.store.Find(ctx, c.Hash())
	if err != nil {
		return gateway.Place{}, err
	}
	if len(rows) == 0 {
		return gateway.Place{}, gateway.ErrNotFound
	}
	r := rows[0]
	return gateway.Place{Piece: r.Piece, Offset: r.Offset, Size: uint32(min(r.Size, 1<<32-1)), Overhead: uint32(min(r.Overhead, 1<<32-1))}, nil
}

// Read implements gateway.Blocks. A block that one piece cannot give is tried in the others.
func (s servedBlocks) Read(ctx context.Context, c cid.Cid, p gateway.Place, buf []byte) ([]byte, error) {
	data, err := s.readRow(ctx, c, index.Row{Piece: p.Piece, Record: index.Record{Offset: p.Offset, Size: uint64(p.Size), Overhead: uint64(p.Overhead)}}, buf)
	if err == nil || ctx.Err() != nil {
		return data, errors.Join(err, ctx.Err())
	}
	rows, ferr := s.store.Find(ctx, c.Hash())
	if ferr != nil {
		return nil, ferr
	}
	for _, r := range rows {
		if r.Piece == p.Piece && r.Offset == p.Offset {
			continue
		}
		if data, err = s.readRow(ctx, c, r, buf); err == nil {
			return data, nil
		}
	}
	return nil, errors.Join(gateway.ErrNotFound, err)
}

func (s servedBlocks) readRow(ctx context.Context, c cid.Cid, r index.Row, buf []byte) ([]byte, error) {
	a, err := s.store.AcquireNumber(ctx, r.Piece)
	if err != nil {
		return nil, err
	}
	data, err := a.GetRow(buf, c, r.Record)
	return data, errors.Join(err, a.Close())
}

// servedPieces shows the pieces of the dagstore to the gateway.
type servedPieces struct{ store *dagstore.Store }

var _ gateway.Pieces = servedPieces{}

// Piece implements gateway.Pieces.
func (s servedPieces) Piece(_ context.Context, c cid.Cid) (gateway.Piece, error) {
	sh, err := s.store.Info(c)
	switch {
	case errors.Is(err, dagstore.ErrShardUnknown):
		return gateway.Piece{}, gateway.ErrNotFound
	case err != nil:
		return gateway.Piece{}, err
	case sh.State != dagstore.StateAvailable && sh.State != dagstore.StateServing:
		return gateway.Piece{}, gateway.ErrNotFound
	}
	return gateway.Piece{CID: sh.Piece, Size: sh.CarSize, Padded: sh.Padded, Open: func(ctx context.Context) (gateway.ReaderAtCloser, error) {
		a, err := s.store.Acquire(ctx, sh.Piece)
		if err != nil {
			return nil, err
		}
		return openPiece{a.Payload(), a}, nil
	}}, nil
}

// openPiece is the payload of a piece that is being read.
type openPiece struct {
	io.ReaderAt
	io.Closer
}

// denier shows the denylists of a home to the gateway.
type denier struct{ set *denylist.Set }

var _ gateway.Denier = denier{}

// Denied implements gateway.Denier.
func (d denier) Denied(c cid.Cid, path string) (gateway.Verdict, bool) {
	v, denied := d.set.Denied(c, path)
	return gateway.Verdict{List: v.List, Line: v.Line, Legal: v.Legal}, denied
}

// Generation implements gateway.Denier.
func (d denier) Generation() uint64 { return d.set.Generation() }
