package storagedeal

import (
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
)

// tendEvery is how often pushes are looked after whose provider says nothing.
const tendEvery = time.Minute

// maintainPushes asks again for pushes that nobody has answered: when the connection to their provider is lost, which no transfer notices that has not
// begun, and from time to time.
func (p *Pusher) maintainPushes() {
	lost := make(chan peer.ID, 64)
	bundle := &network.NotifyBundle{DisconnectedF: func(_ network.Network, c network.Conn) {
		select {
		case lost <- c.RemotePeer():
		default: // the clock finds it
		}
	}}
	net := p.cfg.Client.cfg.Host.Network()
	net.Notify(bundle)
	defer net.StopNotify(bundle)
	t := time.NewTicker(tendEvery)
	defer t.Stop()
	for {
		var err error
		select {
		case <-p.ctx.Done():
			return
		case from := <-lost:
			err = p.retryUnanswered(func(r *Push) bool { return r.Peer == from })
		case <-t.C:
			err = p.retryUnanswered(func(*Push) bool { return true })
		}
		if err != nil && p.ctx.Err() == nil {
			p.cfg.Log.Warn("look after the data of storage deals", "error", err)
		}
	}
}

// retryUnanswered takes up pushes whose channel was never answered.
func (p *Pusher) retryUnanswered(which func(*Push) bool) error {
	list, err := p.recs.unfinishedRecords(p.ctx)
	for _, r := range list {
		if r.Channel == 0 || !which(&r) {
			continue
		}
		s, serr := p.cfg.Transfers.dt.ChannelState(p.ctx, dt.ChannelID{Initiator: p.cfg.Transfers.self, Responder: r.Peer, ID: r.Channel})
		if serr == nil && s.Status() == dt.Requested {
			p.group.Go(func() { _ = p.runAttempt(r.Proposal, func() error { return p.resumePush(p.ctx, r) }) })
		}
	}
	return err
}
