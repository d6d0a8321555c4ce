package storagedeal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/lifecycle"
)

// ReceiveConfig bounds what a provider takes in for online deals. Zeros are the defaults.
type ReceiveConfig struct {
	Dir string // the arriving data is kept there, a file for each deal
	// Quota is how many bytes all arriving data may take, what was announced and has not come counted too; 256 GiB.
	Quota uint64
	// PushesPerPeer is how many deals of one client arrive at once; 8.
	PushesPerPeer int
	// Idle is how long a transfer may bring nothing; 30 minutes. Its deal waits for its data again then.
	Idle time.Duration
	// Tick is how often transfers are looked after; one minute.
	Tick time.Duration
}

func (c *ReceiveConfig) setDefaults() {
	if c.Quota == 0 {
		c.Quota = 256 << 30
	}
	if c.PushesPerPeer == 0 {
		c.PushesPerPeer = 8
	}
	if c.Idle == 0 {
		c.Idle = 30 * time.Minute
	}
	if c.Tick == 0 {
		c.Tick = time.Minute
	}
}

// JoinTransfers lets a provider take online deals: their clients push the data. It is called once, before the manager of t starts.
func (p *Provider) JoinTransfers(t *Transfers, cfg ReceiveConfig) {
	cfg.setDefaults()
	p.receive, p.transfers = cfg, t
	p.staging = &staging{fs: p.cfg.FS, dir: cfg.Dir, open: map[cid.Cid]*carstore.Store{}}
	t.provider = p
}

// enterPush makes a channel the one that brings the data of a deal, if there is room for it.
func (p *Provider) enterPush(proposal cid.Cid, chid dt.ChannelID, size uint64) (old dt.ChannelID, replaced bool, err error) {
	waiting, err := p.staging.listArchives()
	if err != nil {
		return old, false, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.pushes[proposal]
	if was == nil {
		if err := p.checkDiskSpace(proposal, chid, size, waiting); err != nil {
			return old, false, err
		}
	}
	p.pushes[proposal] = &incoming{chid: chid, size: size, at: time.Now()}
	if was == nil || was.chid == chid {
		return old, false, nil
	}
	return was.chid, true, nil
}

// checkDiskSpace refuses a transfer for which there is no room: of its client, in all, or on the disk. mu is held.
func (p *Provider) checkDiskSpace(proposal cid.Cid, chid dt.ChannelID, size uint64, waiting []cid.Cid) error {
	of, all, missing := 0, size, size-min(size, p.staging.archiveSize(proposal))
	for name, in := range p.pushes {
		if in.chid.Initiator == chid.Initiator {
			of++
		}
		all += in.size
		missing += in.size - min(in.size, p.staging.archiveSize(name))
	}
	for _, name := range waiting { // data of deals that wait for the rest of it
		if p.pushes[name] == nil && !name.Equals(proposal) {
			all += p.staging.archiveSize(name)
		}
	}
	switch free, _, known := blob.Free(p.receive.Dir); {
	case of >= p.receive.PushesPerPeer:
		return fmt.Errorf("%d deals of this client are arriving already: wait for one to end", of)
	case all > p.receive.Quota:
		return fmt.Errorf("there is no room for the data of this deal now: try it again later")
	case known && missing > free:
		p.cfg.Log.Warn("too little disk for the data of a storage deal", "proposal", proposal, "missing", missing, "free", free)
		return fmt.Errorf("there is no room for the data of this deal now: try it again later")
	}
	return nil
}

// maintainDeals looks after what arrives for as long as the provider runs.
func (p *Provider) maintainDeals() {
	waits := map[cid.Cid]nextCheck{}
	lifecycle.Every(p.ctx, p.receive.Tick, func() {
		err := errors.Join(p.endIdleTransfers(), p.sweepStaging(p.ctx), p.checkWaiting(waits))
		if err != nil && p.ctx.Err() == nil {
			p.cfg.Log.Warn("look after the data of storage deals", "error", err)
		}
	})
}

// endIdleTransfers ends transfers that bring nothing, and those that never had a channel.
func (p *Provider) endIdleTransfers() error {
	var idle []dt.ChannelID
	gone := map[cid.Cid]dt.ChannelID{}
	p.mu.Lock()
	for name, in := range p.pushes {
		if n := p.staging.archiveSize(name); n != in.had {
			in.had, in.at = n, time.Now()
		} else if time.Since(in.at) > p.receive.Idle {
			idle = append(idle, in.chid)
			gone[name] = in.chid
		}
	}
	p.mu.Unlock()
	var errs []error
	for _, chid := range idle {
		errs = append(errs, p.transfers.dt.CloseDataTransferChannel(p.ctx, chid))
	}
	for name, chid := range gone {
		if s, err := p.transfers.dt.ChannelState(p.ctx, chid); err != nil || isOverStatus(s.Status()) {
			p.transferEnded(name, chid, dt.Failed, "nothing came")
		}
	}
	return errors.Join(errs...)
}

// nextCheck is when something is tried again, and how long that was from the time before.
type nextCheck struct {
	at    time.Time
	after time.Duration
}

// checkWaiting looks again at data that could not be looked at, less and less often.
func (p *Provider) checkWaiting(waits map[cid.Cid]nextCheck) error {
	list, err := p.recs.unfinishedRecords(p.ctx)
	there := map[cid.Cid]bool{}
	for _, d := range list {
		if d.State != StorageDealVerifyData {
			continue
		}
		there[d.ProposalCid] = true
		w, known := waits[d.ProposalCid]
		if known && time.Now().Before(w.at) {
			continue
		}
		if known {
			p.checkAgain(d.ProposalCid)
		}
		w.after = min(time.Hour, max(p.receive.Tick, 2*w.after))
		w.at = time.Now().Add(w.after)
		waits[d.ProposalCid] = w
	}
	maps.DeleteFunc(waits, func(name cid.Cid, _ nextCheck) bool { return !there[name] })
	return err
}

// isTooLate tells whether a deal had to start before now.
func (p *Provider) isTooLate(ctx context.Context, d Deal) (late bool, head abi.ChainEpoch, err error) {
	if p.skip["epochs"] {
		return false, 0, nil
	}
	head, err = p.cfg.Chain.Head(ctx)
	return err == nil && head > d.Proposal.Proposal.StartEpoch, head, err
}

// sweepStaging gives up deals that had to start while their data was waited for, and removes data that no deal waits for.
func (p *Provider) sweepStaging(ctx context.Context) error {
	list, err := p.staging.listArchives()
	for _, name := range list {
		err = errors.Join(err, p.sweepDeal(ctx, name))
	}
	return err
}

func (p *Provider) sweepDeal(ctx context.Context, name cid.Cid) error {
	if p.claimDeal(name) != nil { // something is done with it just now
		return nil
	}
	defer p.unlockDeal(name)
	d, err := p.recs.getRecord(ctx, name)
	switch {
	case errors.Is(err, ErrUnknownDeal):
		return p.staging.removeArchive(name)
	case err != nil || d.State == StorageDealVerifyData:
		return err
	case d.State != StorageDealWaitingForData && d.State != StorageDealTransferring:
		return p.staging.removeArchive(name)
	}
	late, head, err := p.isTooLate(ctx, d)
	if err != nil || !late {
		return err
	}
	p.mu.Lock()
	in := p.pushes[name]
	delete(p.pushes, name)
	p.mu.Unlock()
	if in != nil {
		err = p.transfers.dt.CloseDataTransferChannel(ctx, in.chid)
	}
	return errors.Join(err, p.rejectDeal(d, fmt.Sprintf("it had to start at epoch %d, the chain is at %d", d.Proposal.Proposal.StartEpoch, head)))
}
