package storagedeal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p/core/network"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/shared"
)

// Blocks are where the data of online deals is read from.
type Blocks interface {
	// Open reads what is below a root; it is closed when the transfer has ended.
	Open(ctx context.Context, root cid.Cid) (ipld.LinkSystem, io.Closer, error)
	// Piece is the piece that the archive of it makes.
	Piece(ctx context.Context, root cid.Cid) (cid.Cid, abi.UnpaddedPieceSize, error)
}

// PusherConfig is what a Pusher needs.
type PusherConfig struct {
	Client    *Client
	Transfers *Transfers
	Store     datastore.Batching
	Blocks    Blocks
	Log       *slog.Logger
}

// Pusher proposes online deals and pushes their data. Unlike the stateless client it keeps a record of each, and goes on after a
// restart. It is safe for concurrent use.
type Pusher struct {
	cfg   PusherConfig
	recs  recordStore[Push, *Push]
	group lifecycle.Group

	ctx    context.Context
	cancel context.CancelFunc

	mu         sync.Mutex
	sources    map[cid.Cid]*source
	attempting map[cid.Cid]bool // deals of which something is done by an attempt
	// opening are deals whose next channel is being opened: the one in their record is an earlier one.
	opening map[cid.Cid]bool
}

// source is where the data of a running transfer is read from.
type source struct {
	links ipld.LinkSystem
	io.Closer
}

// NewPusher makes a pusher, before the manager of its transfers starts; Start lets it go on with what it has.
func NewPusher(cfg PusherConfig) *Pusher {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	p := &Pusher{cfg: cfg, recs: newPushStore(cfg.Store), sources: map[cid.Cid]*source{}, attempting: map[cid.Cid]bool{}, opening: map[cid.Cid]bool{}}
	p.ctx, p.cancel = shared.Lifetime()
	cfg.Transfers.pusher = p
	return p
}

// startWait is how long a start tries to reach a provider before a push is one that has failed.
const startWait = time.Hour

// Start goes on with the deals of the last run.
func (p *Pusher) Start(ctx context.Context) error {
	list, err := p.recs.unfinishedRecords(ctx)
	for _, r := range list {
		p.group.Go(func() { _ = p.runAttempt(r.Proposal, func() error { return p.resumePush(p.ctx, r) }) })
	}
	p.group.Go(p.maintainPushes)
	return err
}

// Stop ends what runs and waits for it, or until ctx ends. Transfers go on at the next start.
func (p *Pusher) Stop(ctx context.Context) error {
	p.cancel()
	return p.group.Close(ctx)
}

func (p *Pusher) closeSources() (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, s := range p.sources {
		err = errors.Join(err, s.Close())
		delete(p.sources, name)
	}
	return err
}

// ErrProposed means that the same proposal was made before.
var ErrProposed = errors.New("this deal was proposed already")

// runAttempt runs an attempt for a deal, unless there is one, and records its failure.
func (p *Pusher) runAttempt(name cid.Cid, attempt func() error) error {
	p.mu.Lock()
	if p.attempting[name] {
		p.mu.Unlock()
		return fmt.Errorf("%w: %s is being proposed, or its transfer is beginning", ErrProposed, name)
	}
	p.attempting[name] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.attempting, name)
	}()
	err := attempt()
	if err != nil && p.ctx.Err() == nil {
		p.updateLogged(name, func(r *Push) { r.State, r.Message = StorageDealError, clipText(err.Error()) })
		p.releaseSource(name)
	}
	return err
}

// StartDeal proposes a free, online deal and begins to push its data when the provider waits for it. It returns the CID of the signed
// proposal, under which the push can be followed. The data is checked to be there before anything is sent; its piece is computed if the
// params do not name it.
func (p *Pusher) StartDeal(ctx context.Context, params StartDealParams) (cid.Cid, error) {
	if err := params.check(TTGraphsync); err != nil {
		return cid.Undef, err
	}
	if _, _, err := p.cfg.Client.dealParties(ctx, params); err != nil { // before a piece is computed for nobody
		return cid.Undef, err
	}
	if err := p.checkReadable(ctx, params.Data.Root); err != nil {
		return cid.Undef, err
	}
	if params.Data.PieceCid == nil {
		piece, size, err := p.cfg.Blocks.Piece(ctx, params.Data.Root)
		if err != nil {
			return cid.Undef, err
		}
		ref := *params.Data
		ref.PieceCid, ref.PieceSize = &piece, size
		params.Data = &ref
	}
	deal, miner, err := p.cfg.Client.signProposal(ctx, params)
	if err != nil {
		return cid.Undef, err
	}
	name, err := ProposalCID(deal)
	if err != nil {
		return cid.Undef, err
	}
	rec := Push{Proposal: name, Deal: *deal, Ref: *params.Data, FastRetrieval: params.FastRetrieval, Wallet: params.Wallet, Peer: miner.Peer.ID,
		State: StorageDealStartDataTransfer, Created: time.Now()}
	if err := p.recordProposal(ctx, &rec); err != nil {
		return cid.Undef, err
	}
	return name, p.runAttempt(name, func() error { return p.proposeAndPush(ctx, rec) })
}

// checkReadable tells whether the first block of some data can be read.
func (p *Pusher) checkReadable(ctx context.Context, root cid.Cid) error {
	ls, closer, err := p.cfg.Blocks.Open(ctx, root)
	if err != nil {
		return err
	}
	if _, err = ls.LoadRaw(ipld.LinkContext{Ctx: ctx}, cidlink.Link{Cid: root}); err != nil {
		err = fmt.Errorf("data of the deal: %w", err)
	}
	return errors.Join(err, closer.Close())
}

// recordProposal records a proposal before it is sent. One that failed may be made again.
func (p *Pusher) recordProposal(ctx context.Context, rec *Push) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	old, err := p.recs.getRecord(ctx, rec.Proposal)
	switch {
	case err == nil && old.State != StorageDealError:
		return fmt.Errorf("%w: %s is in state %s", ErrProposed, rec.Proposal, old.State)
	case err == nil:
		rec.Channel = old.Channel
	case !errors.Is(err, ErrUnknownDeal):
		return err
	}
	return p.recs.putRecord(ctx, *rec)
}

// proposeAndPush proposes a deal, which changes nothing if the provider has it, and pushes its data if that is waited for.
func (p *Pusher) proposeAndPush(ctx context.Context, rec Push) error {
	miner, err := p.cfg.Client.cfg.Chain.MinerInfo(ctx, rec.Miner())
	if err != nil {
		return err
	}
	state, message, err := p.cfg.Client.offerDeal(ctx, miner, rec.Proposal, &Proposal{DealProposal: &rec.Deal, Piece: &rec.Ref, FastRetrieval: rec.FastRetrieval})
	if err != nil {
		return err
	}
	switch state {
	case StorageDealWaitingForData, StorageDealTransferring:
		return p.openPushChannel(ctx, rec)
	case StorageDealFailing, StorageDealRejecting, StorageDealError, StorageDealProposalRejected:
		return &RefusedError{Proposal: rec.Proposal, State: state, Message: message}
	}
	return p.updatePush(rec.Proposal, func(r *Push) { r.State, r.Message = StorageDealCheckForAcceptance, "" }) // it has the data
}

// openPushChannel opens a channel for a deal. A crash before it is recorded finds it by its voucher.
func (p *Pusher) openPushChannel(ctx context.Context, rec Push) error {
	if err := p.checkReadable(ctx, rec.Ref.Root); err != nil {
		return err
	}
	open := func(yes bool) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if delete(p.opening, rec.Proposal); yes {
			p.opening[rec.Proposal] = true
		}
	}
	open(true)
	defer open(false)
	err := p.updatePush(rec.Proposal, func(r *Push) { r.State, r.Message = StorageDealTransferring, "" })
	if err != nil {
		return err
	}
	chid, err := p.cfg.Transfers.dt.OpenPushDataChannel(ctx, rec.Peer, &DataTransferVoucher{rec.Proposal}, rec.Ref.Root, shared.AllSelector())
	if err != nil {
		return err
	}
	return p.updatePush(rec.Proposal, func(r *Push) { r.Channel = max(r.Channel, chid.ID) })
}

// resumePush takes up a deal of an earlier run: its transfer goes on, or what came before that is done again.
func (p *Pusher) resumePush(ctx context.Context, rec Push) error {
	s, err := newestChannel(ctx, p.cfg.Transfers.dt, rec.Proposal, func(chid dt.ChannelID) bool { return chid.Initiator == p.cfg.Transfers.self })
	if err != nil {
		return err
	}
	if s != nil && s.Status() == dt.Completed {
		p.recordTransferEnd(rec.Proposal, s.ChannelID(), s.Status(), s.Message())
		return nil
	}
	if err := p.connectWithRetry(ctx, rec.Miner(), startWait); err != nil {
		return err
	}
	if s == nil || isOverStatus(s.Status()) {
		return p.proposeAndPush(ctx, rec)
	}
	if s.Status() == dt.Requested { // the provider may never have heard of it: another takes its place
		err := p.updatePush(rec.Proposal, func(r *Push) { r.State, r.Channel = StorageDealStartDataTransfer, max(r.Channel, s.ChannelID().ID) })
		if err == nil {
			err = p.cfg.Transfers.dt.CloseDataTransferChannel(ctx, s.ChannelID())
		}
		if err != nil {
			return err
		}
		return p.proposeAndPush(ctx, rec)
	}
	return p.cfg.Transfers.dt.RestartDataTransferChannel(ctx, s.ChannelID())
}

// connectWithRetry connects to a provider; one that is away for a moment, as when it starts again, is tried for a while.
func (p *Pusher) connectWithRetry(ctx context.Context, miner address.Address, most time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	err := lifecycle.Retry(ctx, lifecycle.Backoff{Min: 250 * time.Millisecond, Max: 30 * time.Second}, func() (bool, error) {
		to, err := p.cfg.Client.cfg.Chain.MinerInfo(ctx, miner)
		if err == nil {
			dctx, done := context.WithTimeout(network.WithForceDirectDial(ctx, "push"), dialTime)
			err = p.cfg.Client.cfg.Host.Connect(dctx, to.Peer)
			done()
		}
		return err != nil, err
	})
	if err != nil {
		return fmt.Errorf("%w: provider %s: %w", ErrUnreachable, miner, err)
	}
	return nil
}

// Resume lets a deal go on that failed, or whose data the provider waits for although all was sent. Blocks that have arrived are not sent
// again, and where nothing is missing it does nothing.
func (p *Pusher) Resume(ctx context.Context, name cid.Cid) error {
	rec, err := p.recs.getRecord(ctx, name)
	if err != nil || rec.State.Pushing() {
		return err
	}
	err = p.runAttempt(name, func() error { return p.proposeAndPush(ctx, rec) })
	if errors.Is(err, ErrProposed) { // it goes on just now
		return nil
	}
	return err
}

// transferEnded takes up the end of a channel.
func (p *Pusher) transferEnded(name cid.Cid, chid dt.ChannelID, status dt.Status, message string) {
	p.group.Go(func() { p.recordTransferEnd(name, chid, status, message) })
}

// recordTransferEnd records the end of a channel, unless a later one has taken its place or is about to.
func (p *Pusher) recordTransferEnd(name cid.Cid, chid dt.ChannelID, status dt.Status, message string) {
	last := true
	p.updateLogged(name, func(r *Push) {
		if last = r.Channel < chid.ID || r.Channel == chid.ID && r.State == StorageDealTransferring && !p.opening[name]; !last {
			return
		}
		r.Channel, r.State, r.Message = chid.ID, StorageDealCheckForAcceptance, ""
		if status != dt.Completed {
			r.State, r.Message = StorageDealError, clipText("the transfer of the data ended early: "+message)
		}
	})
	if last {
		p.releaseSource(name)
	}
}
