package storagedeal

import (
	"context"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"

	dt "github.com/cartage-dev/cartage/datatransfer"
)

// linkSystem is where the data of a deal is read from while it is pushed.
func (p *Pusher) linkSystem(name cid.Cid) *ipld.LinkSystem {
	if s := p.openSource(name); s != nil {
		return &s.links
	}
	rec, err := p.recs.getRecord(p.ctx, name)
	if err == nil {
		var src source
		if src.links, src.Closer, err = p.cfg.Blocks.Open(p.ctx, rec.Ref.Root); err == nil {
			p.keepSource(name, &src)
		}
	}
	if s := p.openSource(name); s != nil {
		return &s.links
	}
	p.cfg.Log.Error("storage deal: no place to read its data from", "proposal", name, "error", err)
	return nil
}

func (p *Pusher) openSource(name cid.Cid) *source {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sources[name]
}

// keepSource makes a source that of a proposal, unless there is one.
func (p *Pusher) keepSource(name cid.Cid, s *source) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sources[name] != nil || p.ctx.Err() != nil {
		_ = s.Close()
		return
	}
	p.sources[name] = s
}

// releaseSource closes the source of a proposal.
func (p *Pusher) releaseSource(name cid.Cid) {
	p.mu.Lock()
	s := p.sources[name]
	delete(p.sources, name)
	p.mu.Unlock()
	if s != nil {
		_ = s.Close()
	}
}

// updatePush changes the record of a push.
func (p *Pusher) updatePush(name cid.Cid, f func(*Push)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	rec, err := p.recs.getRecord(p.ctx, name)
	if err != nil {
		return err
	}
	f(&rec)
	return p.recs.putRecord(p.ctx, rec)
}

// updateLogged is change where nobody can hear of an error.
func (p *Pusher) updateLogged(name cid.Cid, f func(*Push)) {
	if err := p.updatePush(name, f); err != nil && p.ctx.Err() == nil {
		p.cfg.Log.Error("record of the push of a storage deal", "proposal", name, "error", err)
	}
}

// Pushes returns all pushes, in no order.
func (p *Pusher) Pushes(ctx context.Context) ([]Push, error) {
	list, err := p.recs.listRecords(ctx)
	for i := range list {
		p.measurePush(ctx, &list[i])
	}
	return list, err
}

// Push returns the push of a proposal.
func (p *Pusher) Push(ctx context.Context, name cid.Cid) (Push, error) {
	rec, err := p.recs.getRecord(ctx, name)
	if err == nil {
		p.measurePush(ctx, &rec)
	}
	return rec, err
}

// measurePush fills in how much was sent.
func (p *Pusher) measurePush(ctx context.Context, rec *Push) {
	if rec.Channel == 0 {
		return
	}
	chid := dt.ChannelID{Initiator: p.cfg.Transfers.self, Responder: rec.Peer, ID: rec.Channel}
	if s, err := p.cfg.Transfers.dt.ChannelState(ctx, chid); err == nil {
		rec.Sent = s.Sent()
	}
}
