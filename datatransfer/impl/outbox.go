package impl

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/network"
	"github.com/cartage-dev/cartage/shared"
)

// outbox sends messages of a channel in order, off the threads of the transport, and tries again while the
// other side is away.
type outbox struct {
	ctx     context.Context
	net     network.DataTransferNetwork
	ordered network.OrderedSender
	failed  func(dt.ChannelID, error)
	// durable waits until what happened on a channel is stored.
	durable func(context.Context, dt.ChannelID) error

	mu     sync.Mutex
	queues map[dt.ChannelID][]letter
	group  shared.Group
}

type letter struct {
	to       peer.ID
	msg      dt.Message
	deadline time.Time
	after    time.Time                   // not before
	once     bool                        // not worth a second attempt
	stored   func(context.Context) error // what it says has to be in the store first
}

func newOutbox(ctx context.Context, n network.DataTransferNetwork, failed func(dt.ChannelID, error), durable func(context.Context, dt.ChannelID) error) *outbox {
	return &outbox{ctx: ctx, net: n, ordered: network.OrderedOf(n), failed: failed, durable: durable, queues: map[dt.ChannelID][]letter{}}
}

// send queues a message that is worth delivering for the given time.
func (o *outbox) send(chid dt.ChannelID, to peer.ID, msg dt.Message, worth time.Duration) {
	o.sendAfter(chid, to, msg, worth, time.Time{})
}

// sendAfter queues a message that is not to be told before a time.
func (o *outbox) sendAfter(chid dt.ChannelID, to peer.ID, msg dt.Message, worth time.Duration, after time.Time) {
	o.put(chid, letter{to: to, msg: msg, after: after, deadline: time.Now().Add(worth), stored: func(ctx context.Context) error { return o.durable(ctx, chid) }})
}

// once queues a message that is sent if the other side can be reached now: an answer to somebody whose channel we do not
// keep costs nothing later.
func (o *outbox) once(chid dt.ChannelID, to peer.ID, msg dt.Message) {
	o.put(chid, letter{to: to, msg: msg, deadline: time.Now().Add(10 * time.Second), once: true})
}

func (o *outbox) put(chid dt.ChannelID, l letter) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queues[chid]) >= 1024 {
		return
	}
	_, running := o.queues[chid]
	o.queues[chid] = append(o.queues[chid], l)
	if !running && !o.group.Go(func() { o.run(chid) }) {
		delete(o.queues, chid)
	}
}

func (o *outbox) run(chid dt.ChannelID) {
	for {
		o.mu.Lock()
		q := o.queues[chid]
		if len(q) == 0 || o.ctx.Err() != nil {
			delete(o.queues, chid)
			o.mu.Unlock()
			return
		}
		l := q[0]
		o.queues[chid] = q[1:]
		o.mu.Unlock()
		o.deliver(chid, l)
	}
}

func (o *outbox) deliver(chid dt.ChannelID, l letter) {
	ctx, cancel := context.WithDeadline(o.ctx, l.deadline)
	defer cancel()
	if l.stored != nil && l.stored(ctx) != nil {
		return // the other side will ask
	}
	if !l.after.IsZero() && !shared.Sleep(ctx, time.Until(l.after)) {
		return
	}
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		sctx, done := context.WithTimeout(ctx, 10*time.Second)
		err := o.sendNow(sctx, l)
		done()
		if err == nil || l.once {
			return
		}
		o.failed(chid, err)
		if !shared.Sleep(ctx, wait) {
			return
		}
	}
}

// sendNow hands a message over, in order: the next one leaves when the other side has taken this one.
func (o *outbox) sendNow(ctx context.Context, l letter) error {
	if l.once {
		return o.net.SendMessage(ctx, l.to, l.msg)
	}
	return o.ordered.SendInOrder(ctx, l.to, l.msg)
}

// wait ends when all goroutines have; the context of the outbox must be over.
func (o *outbox) wait(ctx context.Context) error { return o.group.Close(ctx) }
