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
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/shared"
)

// Blocks are where the data of online deals is read from. It is closed when the transfer has ended.
type Blocks interface {
	Open(ctx context.Context, root cid.Cid) (ipld.LinkSystem, io.Closer, error)
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
	recs  pushes
	group shared.Group

	ctx    context.Context
	cancel context.CancelFunc

	mu   sync.Mutex
	open map[cid.Cid]*source
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
	p := &Pusher{cfg: cfg, recs: pushes{cfg.Store}, open: map[cid.Cid]*source{}}
	p.ctx, p.cancel = shared.Lifetime()
	cfg.Transfers.pusher = p
	return p
}

// Start goes on with the transfers of the last run.
func (p *Pusher) Start(ctx context.Context) error {
	list, err := p.recs.running(ctx)
	for _, r := range list {
		p.group.Go(func() {
			if err := p.goOn(p.ctx, r); err != nil && p.ctx.Err() == nil {
				p.fail(r.Proposal, err)
			}
		})
	}
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
	for name, s := range p.open {
		err = errors.Join(err, s.Close())
		delete(p.open, name)
	}
	return err
}

// StartDeal proposes a free, online deal and begins to push its data when the provider waits for it. It returns the CID of the signed
// proposal, under which the push can be followed. The data is checked to be there before anything is sent.
func (p *Pusher) StartDeal(ctx context.Context, params StartDealParams) (cid.Cid, error) {
	if err := params.check(TTGraphsync); err != nil {
		return cid.Undef, err
	}
	root := params.Data.Root
	src, err := p.source(ctx, root)
	if err != nil {
		return cid.Undef, err
	}
	rec := Push{Root: root, Wallet: params.Wallet, Miner: params.Miner, State: StorageDealStartDataTransfer, Created: time.Now()}
	begun := false
	_, err = p.cfg.Client.deal(ctx, params, func(name cid.Cid, miner MinerInfo) error {
		rec.Proposal, rec.Peer = name, miner.Peer.ID
		err := p.begin(ctx, &rec)
		begun = err == nil
		return err
	})
	if !begun {
		return cid.Undef, errors.Join(err, src.Close())
	}
	p.keep(rec.Proposal, src)
	if err == nil {
		err = p.push(ctx, rec)
	}
	if err != nil {
		p.fail(rec.Proposal, err)
	}
	return rec.Proposal, err
}

// ErrProposed means that the same proposal was made before.
var ErrProposed = errors.New("this deal was proposed already")

// begin records a proposal before it is sent. One that failed may be made again.
func (p *Pusher) begin(ctx context.Context, rec *Push) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	old, err := p.recs.get(ctx, rec.Proposal)
	switch {
	case err == nil && old.State != StorageDealError:
		return fmt.Errorf("%w: %s is in state %s", ErrProposed, rec.Proposal, old.State)
	case err == nil:
		rec.Channel = old.Channel
	case !errors.Is(err, ErrUnknownDeal):
		return err
	}
	return p.recs.put(ctx, *rec)
}

// source opens the data below root, whose first block must be there.
func (p *Pusher) source(ctx context.Context, root cid.Cid) (*source, error) {
	ls, closer, err := p.cfg.Blocks.Open(ctx, root)
	if err != nil {
		return nil, err
	}
	if _, err := ls.LoadRaw(ipld.LinkContext{Ctx: ctx}, cidlink.Link{Cid: root}); err != nil {
		return nil, errors.Join(fmt.Errorf("data of the deal: %w", err), closer.Close())
	}
	return &source{ls, closer}, nil
}

// keep makes a source that of a proposal, unless there is one.
func (p *Pusher) keep(name cid.Cid, s *source) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open[name] != nil || p.ctx.Err() != nil {
		_ = s.Close()
		return
	}
	p.open[name] = s
}

// release closes the source of a proposal.
func (p *Pusher) release(name cid.Cid) {
	p.mu.Lock()
	s := p.open[name]
	delete(p.open, name)
	p.mu.Unlock()
	if s != nil {
		_ = s.Close()
	}
}

// linkSystem is where the data of a deal is read from. A provider that asks to go on, before this side has taken the push up, finds it too.
func (p *Pusher) linkSystem(name cid.Cid) *ipld.LinkSystem {
	if s := p.opened(name); s != nil {
		return &s.links
	}
	rec, err := p.recs.get(p.ctx, name)
	if err == nil {
		var src *source
		if src, err = p.source(p.ctx, rec.Root); err == nil {
			p.keep(name, src)
		}
	}
	if s := p.opened(name); s != nil {
		return &s.links
	}
	p.cfg.Log.Error("storage deal: no place to read its data from", "proposal", name, "error", err)
	return nil
}

func (p *Pusher) opened(name cid.Cid) *source {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open[name]
}

// push opens a channel for a deal. A crash before it is recorded finds it by its voucher.
func (p *Pusher) push(ctx context.Context, rec Push) error {
	err := p.change(rec.Proposal, func(r *Push) { r.State, r.Message = StorageDealTransferring, "" })
	if err != nil {
		return err
	}
	chid, err := p.cfg.Transfers.dt.OpenPushDataChannel(ctx, rec.Peer, &DataTransferVoucher{rec.Proposal}, rec.Root, shared.AllSelector())
	if err != nil {
		return err
	}
	return p.change(rec.Proposal, func(r *Push) { r.Channel = max(r.Channel, chid.ID) })
}

// goOn takes up a push of an earlier run.
func (p *Pusher) goOn(ctx context.Context, rec Push) error {
	s, err := p.channel(ctx, rec)
	switch {
	case err != nil:
		return err
	case s == nil || over(s.Status()) && s.Status() != dt.Completed:
		return p.again(ctx, rec)
	case s.Status() == dt.Completed:
		p.settle(rec.Proposal, s.ChannelID(), s.Status(), s.Message())
		return nil
	}
	src, err := p.source(ctx, rec.Root)
	if err != nil {
		return err
	}
	p.keep(rec.Proposal, src)
	if err := p.reach(ctx, rec.Miner); err != nil {
		return err
	}
	return p.cfg.Transfers.dt.RestartDataTransferChannel(ctx, s.ChannelID())
}

// channel is the last channel of a push; nil if there is none.
func (p *Pusher) channel(ctx context.Context, rec Push) (dt.ChannelState, error) {
	if rec.Channel == 0 {
		return newest(ctx, p.cfg.Transfers.dt, rec.Proposal, func(chid dt.ChannelID) bool { return chid.Initiator == p.cfg.Transfers.self })
	}
	return p.cfg.Transfers.dt.ChannelState(ctx, dt.ChannelID{Initiator: p.cfg.Transfers.self, Responder: rec.Peer, ID: rec.Channel})
}

// reach connects to a provider; one that is away for a moment, as when it starts again, is tried a few times.
func (p *Pusher) reach(ctx context.Context, miner address.Address) error {
	c := &p.cfg.Client.cfg
	ctx, cancel := context.WithTimeout(ctx, c.Timeouts.Open)
	defer cancel()
	to, err := c.Chain.MinerInfo(ctx, miner)
	if err != nil {
		return err
	}
	for wait := 250 * time.Millisecond; ; wait *= 2 {
		err := c.Host.Connect(ctx, to.Peer)
		if err == nil {
			return nil
		}
		if wait > 8*time.Second || !shared.Sleep(ctx, wait) {
			return fmt.Errorf("%w: provider %s: %w", ErrUnreachable, miner, err)
		}
	}
}

// Resume lets a push go on that failed, or whose data the provider waits for although all was sent. Blocks that have arrived are not sent
// again, and where nothing is missing it does nothing.
func (p *Pusher) Resume(ctx context.Context, name cid.Cid) error {
	rec, err := p.recs.get(ctx, name)
	if err != nil || rec.State.Pushing() {
		return err
	}
	if rec.State != StorageDealError {
		s, err := p.cfg.Client.DealStatus(ctx, rec.Miner, rec.Wallet, name)
		if err != nil || s.State != StorageDealWaitingForData {
			return err
		}
	}
	if err := p.again(ctx, rec); err != nil {
		p.fail(name, err)
		return err
	}
	return nil
}

// again opens another channel for a push whose last one has ended.
func (p *Pusher) again(ctx context.Context, rec Push) error {
	src, err := p.source(ctx, rec.Root)
	if err != nil {
		return err
	}
	p.keep(rec.Proposal, src)
	if err := p.reach(ctx, rec.Miner); err != nil {
		return err
	}
	return p.push(ctx, rec)
}

// ended takes up the end of a channel.
func (p *Pusher) ended(name cid.Cid, chid dt.ChannelID, status dt.Status, message string) {
	p.group.Go(func() { p.settle(name, chid, status, message) })
}

// settle records the end of a channel, unless a later one has taken its place.
func (p *Pusher) settle(name cid.Cid, chid dt.ChannelID, status dt.Status, message string) {
	last := true
	p.note(name, func(r *Push) {
		if last = r.Channel <= chid.ID; !last {
			return
		}
		r.Channel, r.State, r.Message = chid.ID, StorageDealCheckForAcceptance, ""
		if status != dt.Completed {
			r.State, r.Message = StorageDealError, clip("the transfer of the data ended early: "+message)
		}
	})
	if last {
		p.release(name)
	}
}

// fail records why a push does not go on by itself.
func (p *Pusher) fail(name cid.Cid, cause error) {
	p.note(name, func(r *Push) { r.State, r.Message = StorageDealError, clip(cause.Error()) })
	p.release(name)
}

// change changes the record of a push.
func (p *Pusher) change(name cid.Cid, f func(*Push)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	rec, err := p.recs.get(p.ctx, name)
	if err != nil {
		return err
	}
	f(&rec)
	return p.recs.put(p.ctx, rec)
}

// note is change where nobody can hear of an error.
func (p *Pusher) note(name cid.Cid, f func(*Push)) {
	if err := p.change(name, f); err != nil && p.ctx.Err() == nil {
		p.cfg.Log.Error("record of the push of a storage deal", "proposal", name, "error", err)
	}
}

// Pushes returns all pushes, in no order.
func (p *Pusher) Pushes(ctx context.Context) ([]Push, error) {
	list, err := p.recs.list(ctx)
	for i := range list {
		p.measure(ctx, &list[i])
	}
	return list, err
}

// Push returns the push of a proposal.
func (p *Pusher) Push(ctx context.Context, name cid.Cid) (Push, error) {
	rec, err := p.recs.get(ctx, name)
	if err == nil {
		p.measure(ctx, &rec)
	}
	return rec, err
}

// measure fills in how much was sent.
func (p *Pusher) measure(ctx context.Context, rec *Push) {
	if rec.Channel == 0 {
		return
	}
	if s, err := p.channel(ctx, *rec); err == nil {
		rec.Sent = s.Sent()
	}
}
