package storagedeal

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/dagstore"
	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/blob"
)

// JoinTransfers lets a provider take online deals: their clients push the data. Arriving data is kept in a file of its own below dir. It
// is called once, before the manager of t starts.
func (p *Provider) JoinTransfers(t *Transfers, fsys blob.FS, dir string) {
	p.transfers, p.staging = t, &staging{fs: fsys, dir: dir, open: map[cid.Cid]*carstore.Store{}}
	t.provider = p
}

// admitPush decides on a client's push: it has to be of the data of a deal of its own that waits for it. A newer channel takes the
// place of an earlier one, and goes on from what is here.
func (p *Provider) admitPush(chid dt.ChannelID, sender peer.ID, proposal, base cid.Cid, sel ipld.Node) error {
	if p.claim(proposal) != nil {
		return fmt.Errorf("%w: %s", ErrBusy, proposal)
	}
	defer p.free(proposal)
	ctx := p.ctx
	d, err := p.recs.get(ctx, proposal)
	switch {
	case err != nil:
		return err
	case d.Client != sender:
		return fmt.Errorf("deal %s is of peer %s, the data comes from %s", proposal, d.Client, sender)
	case d.Ref.TransferType != TTGraphsync:
		return fmt.Errorf("deal %s is an offline one: transfer type %q", proposal, d.Ref.TransferType)
	case !d.Ref.Root.Equals(base):
		return fmt.Errorf("deal %s is of payload %s, the data is of %s", proposal, d.Ref.Root, base)
	case d.State != StorageDealWaitingForData && d.State != StorageDealTransferring:
		return fmt.Errorf("deal %s is in state %s, data is taken in %s only", proposal, d.State, StorageDealWaitingForData)
	}
	if err := errors.Join(checkWhole(sel), p.checkStart(ctx, d)); err != nil {
		return err
	}
	p.mu.Lock()
	old, replaced := p.pushes[proposal]
	p.pushes[proposal] = chid
	p.mu.Unlock()
	if replaced && old != chid {
		p.group.Go(func() { _ = p.transfers.dt.CloseDataTransferChannel(p.ctx, old) })
	}
	if d.State == StorageDealTransferring {
		return nil
	}
	d.State, d.Message = StorageDealTransferring, ""
	return p.recs.put(ctx, d)
}

// checkStart refuses data for a deal that had to start before now.
func (p *Provider) checkStart(ctx context.Context, d Deal) error {
	if p.skip["epochs"] {
		return nil
	}
	head, err := p.cfg.Chain.Head(ctx)
	if start := d.Proposal.Proposal.StartEpoch; err == nil && head > start {
		return fmt.Errorf("deal %s had to start at epoch %d, the chain is at %d", d.ProposalCid, start, head)
	}
	return err
}

// linkSystem is where the data of a deal goes; nil if it cannot go anywhere, which ends the channel at its first block.
func (p *Provider) linkSystem(proposal cid.Cid) *ipld.LinkSystem {
	d, err := p.recs.get(p.ctx, proposal)
	if err == nil {
		var ls ipld.LinkSystem
		most := uint64(d.Proposal.Proposal.PieceSize.Unpadded())
		tell := func() { p.refuse(proposal, fmt.Sprintf("more data than its piece of %d bytes holds", most)) }
		if ls, err = p.staging.links(proposal, d.Ref.Root, most, tell); err == nil {
			return &ls
		}
	}
	p.cfg.Log.Error("storage deal: no place for its data", "proposal", proposal, "error", err)
	return nil
}

// refuse ends the transfer of data that cannot be right; the end of the channel ends the deal.
func (p *Provider) refuse(proposal cid.Cid, reason string) {
	p.mu.Lock()
	p.refused[proposal] = reason
	chid, running := p.pushes[proposal]
	p.mu.Unlock()
	if running {
		p.group.Go(func() { _ = p.transfers.dt.CloseDataTransferChannel(p.ctx, chid) })
	}
}

// ended takes up a deal whose channel has ended.
func (p *Provider) ended(proposal cid.Cid, chid dt.ChannelID, status dt.Status, message string) {
	p.mu.Lock()
	current := p.pushes[proposal] == chid
	if current {
		delete(p.pushes, proposal)
	}
	p.mu.Unlock()
	if !current {
		return
	}
	p.group.Go(func() { p.settle(proposal, status, message) })
}

// settle is the end of a transfer: the data is looked at, or is waited for as before. What arrived is kept in both cases.
func (p *Provider) settle(proposal cid.Cid, status dt.Status, message string) {
	if p.sole(p.ctx, proposal) != nil {
		return // this side stops: the next start takes it up
	}
	defer p.free(proposal)
	p.mu.Lock()
	_, newer := p.pushes[proposal]
	refused := p.refused[proposal]
	delete(p.refused, proposal)
	p.mu.Unlock()
	if newer { // it goes on from what is here, and ends itself
		return
	}
	d, err := p.recs.get(p.ctx, proposal)
	switch {
	case err != nil:
	case d.State == StorageDealTransferring && refused != "":
		d.State, d.Message = StorageDealFailing, refused
		err = errors.Join(p.recs.put(p.ctx, d), p.staging.remove(proposal))
	case d.State == StorageDealTransferring && status != dt.Completed:
		d.State, d.Message = StorageDealWaitingForData, clip("the transfer of the data ended early: "+message)
		err = errors.Join(p.staging.shut(proposal), p.recs.put(p.ctx, d))
	case d.State == StorageDealTransferring:
		d.State, d.Message = StorageDealVerifyData, ""
		if err = p.recs.put(p.ctx, d); err == nil {
			err = p.check(p.ctx, d)
		}
	}
	if err != nil && p.ctx.Err() == nil {
		p.cfg.Log.Error("storage deal", "proposal", proposal, "error", err)
	}
}

// check makes the data that arrived the piece of its deal, if it is that piece. The deal is claimed.
func (p *Provider) check(ctx context.Context, d Deal) error {
	err := p.cfg.Pieces.Add(ctx, Data{Path: p.staging.path(d.ProposalCid), Piece: d.Proposal.Proposal.PieceCID, Size: d.Proposal.Proposal.PieceSize,
		Build: func(ctx context.Context, to string) error { return p.archive(ctx, d, to) }})
	var wrong *dagstore.WrongPieceError
	switch {
	case err == nil:
		d.State = StorageDealPublish
	case ctx.Err() != nil:
		return err // the next start goes on
	case errors.As(err, &wrong):
		d.State, d.Message = StorageDealFailing, clip(err.Error())
	case errors.Is(err, carstore.ErrNotFound):
		d.State, d.Message = StorageDealWaitingForData, clip("data is missing: "+err.Error())
	default: // of this side, and no fault of the data: the next start looks again
		d.Message = clip(err.Error())
		return errors.Join(err, p.recs.put(ctx, d))
	}
	if err := p.recs.put(ctx, d); err != nil {
		return err
	}
	if d.State == StorageDealWaitingForData {
		return p.staging.shut(d.ProposalCid)
	}
	if err := p.staging.remove(d.ProposalCid); err != nil {
		p.cfg.Log.Warn("remove the data of a storage deal that has its piece", "proposal", d.ProposalCid, "error", err)
	}
	if d.State == StorageDealPublish {
		_, err = p.publish(ctx, d)
		return err
	}
	return nil
}

// archive writes the piece of the data that arrived: each block once, in the order of the traversal, as the client counted it.
func (p *Provider) archive(ctx context.Context, d Deal, to string) error {
	s, err := p.staging.store(d.ProposalCid, d.Ref.Root)
	if err != nil {
		return err
	}
	ls := s.LinkSystem()
	return carstore.ExportCARFrom(ctx, p.cfg.FS, &ls, d.Ref.Root, to, false)
}

// takeUp goes on with a deal that the last run left on its way, and clears away staged data that no deal waits for.
func (p *Provider) takeUp(ctx context.Context, d Deal) error {
	switch d.State {
	case StorageDealPublish:
		_, err := p.publish(ctx, d)
		return err
	case StorageDealTransferring, StorageDealVerifyData:
	default:
		return nil
	}
	if p.transfers == nil {
		return errors.New("its data was on the way, and this node takes no online deals any more")
	}
	if d.State == StorageDealVerifyData {
		p.group.Go(func() {
			if p.sole(p.ctx, d.ProposalCid) != nil {
				return
			}
			defer p.free(d.ProposalCid)
			if err := p.check(p.ctx, d); err != nil && p.ctx.Err() == nil {
				p.cfg.Log.Error("storage deal", "proposal", d.ProposalCid, "error", err)
			}
		})
		return nil
	}
	s, err := newest(ctx, p.transfers.dt, d.ProposalCid, func(chid dt.ChannelID) bool { return chid.Responder == p.transfers.self })
	switch {
	case err != nil:
		return err
	case s == nil:
		p.group.Go(func() { p.settle(d.ProposalCid, dt.Failed, "there is no channel") })
	case over(s.Status()):
		p.group.Go(func() { p.settle(d.ProposalCid, s.Status(), s.Message()) })
	default: // the client restarts it
		p.mu.Lock()
		if _, newer := p.pushes[d.ProposalCid]; !newer {
			p.pushes[d.ProposalCid] = s.ChannelID()
		}
		p.mu.Unlock()
	}
	return nil
}

// sweep removes the staged data of deals that do not wait for it, or that had to start before now.
func (p *Provider) sweep(ctx context.Context) error {
	if p.staging == nil {
		return nil
	}
	list, err := p.staging.list()
	for _, name := range list {
		d, gerr := p.recs.get(ctx, name)
		switch {
		case gerr == nil && (d.State == StorageDealTransferring || d.State == StorageDealVerifyData):
		case gerr == nil && d.State == StorageDealWaitingForData && p.checkStart(ctx, d) == nil:
		case gerr == nil || errors.Is(gerr, ErrUnknownDeal):
			err = errors.Join(err, p.staging.remove(name))
		default:
			err = errors.Join(err, gerr)
		}
	}
	return err
}
