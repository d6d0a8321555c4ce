package storagedeal

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
)

// ErrBusy means that data is being imported for the same deal.
var ErrBusy = errors.New("data is being imported for this deal")

// ImportData takes the CAR at path as the data of a deal that waits for it: it must be of the deal's piece, alone or with zeros
// behind it. After an error the deal waits as before and nothing is left. It returns when the piece can be retrieved.
func (p *Provider) ImportData(ctx context.Context, proposal cid.Cid, path string, progress func(done, total int64)) (Deal, error) {
	if p.claimDeal(proposal) != nil {
		return Deal{}, fmt.Errorf("%w: %s", ErrBusy, proposal)
	}
	defer p.unlockDeal(proposal)
	d, err := p.recs.getRecord(ctx, proposal)
	if err != nil {
		return d, err
	}
	if d.State == StorageDealPublish { // the data is here
		return p.publishDeal(ctx, d)
	}
	if d.State != StorageDealWaitingForData {
		return d, fmt.Errorf("deal %s is in state %s, data is taken in %s only", proposal, d.State, StorageDealWaitingForData)
	}
	if err := p.checkStart(ctx, d); err != nil {
		return d, err
	}
	err = p.cfg.Pieces.Add(ctx, Data{Path: path, Piece: d.Proposal.Proposal.PieceCID, Size: d.Proposal.Proposal.PieceSize, Progress: progress})
	if err != nil {
		return d, err
	}
	d.State = StorageDealPublish
	if err := p.recs.putRecord(ctx, d); err != nil {
		return d, err
	}
	return p.publishDeal(ctx, d)
}

// publishDeal ends a deal whose data is here.
func (p *Provider) publishDeal(ctx context.Context, d Deal) (Deal, error) {
	id, err := p.cfg.Publisher.Publish(ctx, d)
	if err != nil {
		return d, fmt.Errorf("publish deal %s: %w: importing its data again, or a start, tries it again", d.ProposalCid, err)
	}
	d.DealID, d.State = id, StorageDealActive
	return d, p.recs.putRecord(ctx, d)
}
