package node

import (
	"context"
	"errors"
	"os"

	"github.com/filecoin-project/go-state-types/big"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/dagstore"
	"github.com/cartage-dev/cartage/internal/reason"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

// Stock answers what becomes of the pieces that are for sale.
type Stock struct{ n *Node }

// VerifyPiece answers Cartage.VerifyPiece: every block of a piece is read and compared with its hash.
func (s Stock) VerifyPiece(ctx context.Context, key string) (*api.PieceVerified, error) {
	c, err := shardKey(key)
	if err != nil {
		return nil, err
	}
	a, err := s.n.Pieces.Acquire(ctx, c)
	if err != nil {
		return nil, coded(unknownPiece(err, key))
	}
	sh := a.Shard()
	v, err := a.Verify(ctx, nil)
	out := &api.PieceVerified{PieceCID: sh.Piece.String(), Root: sh.Root.String(), Blocks: v.Blocks, Bytes: v.Bytes, Bad: v.Bad, OK: err == nil && v.Bad == 0}
	if err = errors.Join(v.First, err); err != nil {
		out.Fault = err.Error()
	}
	return out, coded(errors.Join(ctx.Err(), a.Close()))
}

func unknownPiece(err error, key string) error {
	if errors.Is(err, dagstore.ErrShardUnknown) {
		return reason.IDUnknown.Errorf("there is no piece %s here: %w", key, err).WithHint("Pieces are listed by cartage pieces.")
	}
	return err
}

// RemovePiece answers Cartage.RemovePiece: a piece is for sale no more, and its file is removed if the node made it. One that somebody reads stays.
func (s Stock) RemovePiece(ctx context.Context, r api.RemovePiece) (*api.PieceRemoved, error) {
	c, err := shardKey(r.PieceCID)
	if err != nil {
		return nil, err
	}
	sh, err := s.n.Pieces.Info(c)
	if err != nil {
		return nil, coded(unknownPiece(err, r.PieceCID))
	}
	out := &api.PieceRemoved{PieceCID: sh.Piece.String(), Root: sh.Root.String(), Bytes: sh.Bytes, Path: s.n.Pieces.File(sh), Readers: s.n.Pieces.Readers(sh.Number), DryRun: r.DryRun}
	if sh.Owned {
		if st, err := os.Stat(out.Path); err == nil {
			out.Freed = uint64(st.Size())
		}
	}
	if err := s.addSold(ctx, sh, out); err != nil {
		return nil, coded(err)
	}
	if r.DryRun {
		return out, nil
	}
	err = s.n.Pieces.Destroy(ctx, c)
	if errors.Is(err, dagstore.ErrShardInUse) {
		err = reason.PieceInUse.Errorf("piece %s is being read: %w", c, err).WithHint("Its deals are listed by cartage deals; try again when they have ended.")
	}
	return out, coded(err)
}

// addSold adds up the deals over the roots of a piece.
func (s Stock) addSold(ctx context.Context, sh dagstore.Shard, out *api.PieceRemoved) error {
	sold, err := s.n.sold(ctx)
	sum := big.Zero()
	for _, d := range sold {
		for _, root := range sh.Roots() {
			if d.PayloadCID.Equals(root) && d.Status == rm.DealStatusCompleted {
				out.Sold++
				sum = big.Add(sum, d.FundsReceived)
			}
		}
	}
	out.Earned = sum.String()
	return err
}
