package retrievalimpl

import (
	"context"
	"fmt"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/piecestore"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/askstore"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/blockunsealing"
)

// PricingInput is what the price of a deal may depend on.
type PricingInput struct {
	PayloadCID, PieceCID cid.Cid
	PieceSize            abi.UnpaddedPieceSize
	Client               peer.ID
	VerifiedDeal         bool
	Unsealed             bool // an unsealed copy is at hand
	CurrentAsk           rm.Ask
}

// RetrievalPricingFunc returns the ask of one deal, in attoFIL and bytes. It is called for each query and each proposal, and has 5 s.
type RetrievalPricingFunc func(ctx context.Context, in PricingInput) (rm.Ask, error)

// DefaultPricingFunc asks no unseal price for a piece with an unsealed copy and, if verified deals are free, no price per byte for
// those.
func DefaultPricingFunc(verifiedDealsFreeTransfer bool) RetrievalPricingFunc {
	return func(_ context.Context, in PricingInput) (rm.Ask, error) {
		ask := in.CurrentAsk
		if in.Unsealed {
			ask.UnsealPrice = big.Zero()
		}
		if in.VerifiedDeal && verifiedDealsFreeTransfer {
			ask.PricePerByte = big.Zero()
		}
		return ask, nil
	}
}

// pricingNode is optional on a provider's node: what the chain says about the deals that hold a piece.
type pricingNode interface {
	GetRetrievalPricingInput(ctx context.Context, piece cid.Cid, deals []abi.DealID) (PricingInput, error)
}

// price is the ask of a deal.
func (p *Provider) price(ctx context.Context, client peer.ID, payload cid.Cid, piece piecestore.PieceInfo) (*rm.Ask, error) {
	ask := p.GetAsk()
	if p.cfg.Pricing == nil {
		return ask, nil
	}
	ctx, cancel := context.WithTimeout(ctx, queryWork)
	defer cancel()
	in := PricingInput{}
	if n, ok := p.cfg.Node.(pricingNode); ok {
		ids := make([]abi.DealID, 0, len(piece.Deals))
		for _, d := range piece.Deals {
			ids = append(ids, d.DealID)
		}
		var err error
		if in, err = n.GetRetrievalPricingInput(ctx, piece.PieceCID, ids); err != nil {
			return nil, fmt.Errorf("retrieval pricing of piece %s: %w", piece.PieceCID, err)
		}
	}
	in.PayloadCID, in.PieceCID, in.Client, in.CurrentAsk = payload, piece.PieceCID, client, *ask
	if in.PieceSize == 0 && len(piece.Deals) > 0 {
		in.PieceSize = piece.Deals[0].Length.Unpadded()
	}
	in.Unsealed = blockunsealing.AtHand(ctx, p.cfg.Node, piece)
	out, err := p.cfg.Pricing(ctx, in)
	if err == nil {
		err = askstore.Check(&out)
	}
	if err != nil {
		return nil, fmt.Errorf("retrieval pricing of piece %s: %w", piece.PieceCID, err)
	}
	return &out, nil
}
