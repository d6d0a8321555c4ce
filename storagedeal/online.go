package storagedeal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/dagstore"
	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/reason"
)

// admitWait is how long a push waits for what else is done with its deal: it must not hold up a transport.
const admitWait = 5 * time.Second

// incoming is the push that brings the data of a deal.
type incoming struct {
	chid dt.ChannelID
	size uint64 // that its piece holds
	had  uint64 // bytes in its file when that was looked at last, and when they became more
	at   time.Time
}

// admitPush decides on a client's push: it has to be of the data of a deal of its own that waits for it, and there has to be room. A
// newer channel takes the place of an earlier one, and goes on from what is here.
func (p *Provider) admitPush(chid dt.ChannelID, sender peer.ID, proposal, base cid.Cid, sel ipld.Node) error {
	ctx, cancel := context.WithTimeout(p.ctx, admitWait)
	defer cancel()
	if p.lockDeal(ctx, proposal) != nil {
		return fmt.Errorf("%w: %s", ErrBusy, proposal)
	}
	defer p.unlockDeal(proposal)
	d, err := p.recs.getRecord(ctx, proposal)
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
	old, replaced, err := p.enterPush(proposal, chid, uint64(d.Proposal.Proposal.PieceSize.Unpadded()))
	if err != nil {
		return err
	}
	if replaced {
		p.group.Go(func() { _ = p.transfers.dt.CloseDataTransferChannel(p.ctx, old) })
	}
	if d.State == StorageDealTransferring {
		return nil
	}
	d.State, d.Message = StorageDealTransferring, ""
	return p.recs.putRecord(ctx, d)
}

// checkStart refuses data for a deal that had to start before now.
func (p *Provider) checkStart(ctx context.Context, d Deal) error {
	late, head, err := p.isTooLate(ctx, d)
	if late {
		return fmt.Errorf("deal %s had to start at epoch %d, the chain is at %d", d.ProposalCid, d.Proposal.Proposal.StartEpoch, head)
	}
	return err
}

// linkSystem is where the data of a deal goes; nil if it cannot go anywhere, which ends the channel at its first block.
func (p *Provider) linkSystem(proposal cid.Cid) *ipld.LinkSystem {
	d, err := p.recs.getRecord(p.ctx, proposal)
	if err == nil {
		var ls ipld.LinkSystem
		most := uint64(d.Proposal.Proposal.PieceSize.Unpadded())
		if ls, err = p.staging.linkSystem(proposal, d.Ref.Root, most, func(why string) { p.refuseData(proposal, why) }); err == nil {
			return &ls
		}
	}
	p.cfg.Log.Error("storage deal: no place for its data", "proposal", proposal, "error", err)
	return nil
}

// refuseData ends the transfer of data that cannot be right; the end of the channel ends the deal.
func (p *Provider) refuseData(proposal cid.Cid, why string) {
	p.mu.Lock()
	p.refused[proposal] = why
	in, running := p.pushes[proposal]
	p.mu.Unlock()
	if running {
		p.group.Go(func() { _ = p.transfers.dt.CloseDataTransferChannel(p.ctx, in.chid) })
	}
}

// transferEnded takes up a deal whose channel has ended.
func (p *Provider) transferEnded(proposal cid.Cid, chid dt.ChannelID, status dt.Status, message string) {
	p.mu.Lock()
	in := p.pushes[proposal]
	current := in != nil && in.chid == chid
	if current {
		delete(p.pushes, proposal)
	}
	p.mu.Unlock()
	if current {
		p.group.Go(func() { p.recordTransferEnd(proposal, status, message) })
	}
}

// recordTransferEnd is the end of a transfer: the data is looked at, or is waited for as before. What arrived is kept in both cases.
func (p *Provider) recordTransferEnd(proposal cid.Cid, status dt.Status, message string) {
	if p.lockDeal(p.ctx, proposal) != nil {
		return // this side stops: the next start takes it up
	}
	defer p.unlockDeal(proposal)
	p.mu.Lock()
	_, newer := p.pushes[proposal]
	refused := p.refused[proposal]
	if !newer {
		delete(p.refused, proposal)
	}
	p.mu.Unlock()
	if newer { // it goes on from what is here, and ends itself
		return
	}
	d, err := p.recs.getRecord(p.ctx, proposal)
	switch {
	case err != nil:
	case d.State == StorageDealTransferring && refused != "":
		err = p.rejectDeal(d, refused)
	case d.State == StorageDealTransferring && status != dt.Completed:
		d.State, d.Message = StorageDealWaitingForData, clipText(reason.ToldStrangers(p.cfg.Log, "the transfer of the data ended early", errors.New(message)))
		err = errors.Join(p.staging.closeStore(proposal), p.recs.putRecord(p.ctx, d))
	case d.State == StorageDealTransferring:
		d.State, d.Message = StorageDealVerifyData, ""
		if err = p.recs.putRecord(p.ctx, d); err == nil {
			err = p.checkArrived(p.ctx, d)
		}
	}
	if err != nil && p.ctx.Err() == nil {
		p.cfg.Log.Error("storage deal", "proposal", proposal, "error", err)
	}
}

// rejectDeal gives a deal up, with its data. The deal is claimed.
func (p *Provider) rejectDeal(d Deal, why string) error {
	d.State, d.Message = StorageDealFailing, clipText(why)
	if err := p.recs.putRecord(p.ctx, d); err != nil {
		return err
	}
	return p.staging.removeArchive(d.ProposalCid)
}

// errTooMuch means that the archive of what arrived is larger than the piece of its deal.
var errTooMuch = errors.New("the archive of the data is larger than its piece")

// checkArrived makes the data that arrived the piece of its deal, if it is that piece. The deal is claimed.
func (p *Provider) checkArrived(ctx context.Context, d Deal) error {
	err := p.cfg.Pieces.Add(ctx, Data{Path: "deal " + d.ProposalCid.String(), Piece: d.Proposal.Proposal.PieceCID, Size: d.Proposal.Proposal.PieceSize,
		Build: func(ctx context.Context, to string) error { return p.writeArchive(ctx, d, to) }})
	var wrong *dagstore.WrongPieceError
	switch {
	case err == nil:
		d.State, d.Message = StorageDealPublish, ""
	case ctx.Err() != nil:
		return err // the next start goes on
	case errors.As(err, &wrong):
		return p.rejectDeal(d, wrong.Error())
	case errors.Is(err, errTooMuch):
		return p.rejectDeal(d, errTooMuch.Error())
	case errors.Is(err, carstore.ErrNotFound):
		d.State, d.Message = StorageDealWaitingForData, "blocks of the data are missing"
		return errors.Join(err, p.recs.putRecord(ctx, d), p.staging.closeStore(d.ProposalCid))
	default: // of this side, and no fault of the data: it is looked at again
		return err
	}
	if err := p.recs.putRecord(ctx, d); err != nil {
		return err
	}
	if err := p.staging.removeArchive(d.ProposalCid); err != nil {
		p.cfg.Log.Warn("remove the data of a storage deal that has its piece", "proposal", d.ProposalCid, "error", err)
	}
	_, err = p.publishDeal(ctx, d)
	return err
}

// writeArchive writes the piece of the data that arrived: each block once, in the order of the traversal, as the client counted it.
func (p *Provider) writeArchive(ctx context.Context, d Deal, to string) error {
	s, err := p.staging.openStore(d.ProposalCid, d.Ref.Root)
	if err != nil {
		return err
	}
	ls := s.LinkSystem()
	return carstore.WriteAside(p.cfg.FS, to, false, func(w io.Writer) error {
		return carstore.WriteCARFrom(ctx, &ls, d.Ref.Root, &bounded{w, uint64(d.Proposal.Proposal.PieceSize.Unpadded())})
	})
}

// bounded is a writer that takes so many bytes.
type bounded struct {
	w    io.Writer
	left uint64
}

// Write implements io.Writer.
func (b *bounded) Write(data []byte) (int, error) {
	if uint64(len(data)) > b.left {
		return 0, errTooMuch
	}
	b.left -= uint64(len(data))
	return b.w.Write(data)
}

// checkAgain is check for a deal whose data was not looked at to the end.
func (p *Provider) checkAgain(proposal cid.Cid) {
	if p.lockDeal(p.ctx, proposal) != nil {
		return
	}
	defer p.unlockDeal(proposal)
	d, err := p.recs.getRecord(p.ctx, proposal)
	if err == nil && d.State == StorageDealVerifyData {
		err = p.checkArrived(p.ctx, d)
	}
	if err != nil && p.ctx.Err() == nil {
		p.cfg.Log.Error("storage deal", "proposal", proposal, "error", err)
	}
}

// resumeDeal goes on with a deal that the last run left on its way.
func (p *Provider) resumeDeal(ctx context.Context, d Deal) error {
	name := d.ProposalCid
	switch {
	case d.State == StorageDealPublish:
		_, err := p.publishDeal(ctx, d)
		return err
	case p.transfers == nil:
		return errors.New("its data was on the way, and this node takes no online deals any more")
	case d.State == StorageDealVerifyData:
		p.group.Go(func() { p.checkAgain(name) })
		return nil
	}
	s, err := newestChannel(ctx, p.transfers.dt, name, func(chid dt.ChannelID) bool { return chid.Responder == p.transfers.self })
	if err != nil {
		return err
	}
	if s == nil {
		p.group.Go(func() { p.recordTransferEnd(name, dt.Failed, "there is no channel") })
		return nil
	}
	chid := s.ChannelID()
	p.mu.Lock()
	if p.pushes[name] == nil {
		p.pushes[name] = &incoming{chid: chid, size: uint64(d.Proposal.Proposal.PieceSize.Unpadded()), at: time.Now()}
	}
	p.mu.Unlock()
	if s, err = p.transfers.dt.ChannelState(ctx, chid); err != nil {
		return err
	}
	if isOverStatus(s.Status()) { // its end was told before anybody listened
		p.transferEnded(name, chid, s.Status(), s.Message())
	}
	return nil
}
