package impl

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/network"
	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/serial"
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

	group lifecycle.Group
	queue *serial.Keyed[dt.ChannelID, outgoing]
}

// maxOutgoing is how many messages wait for one channel; further ones are dropped, as the other side asks again.
const maxOutgoing = 1024

// outgoing is a message that waits.
type outgoing struct {
	to       peer.ID
	msg      dt.Message
	deadline time.Time
	after    time.Time                   // not before
	noRetry  bool                        // not worth a second attempt
	stored   func(context.Context) error // what it says has to be in the store first
}

func newOutbox(ctx context.Context, n network.DataTransferNetwork, failed func(dt.ChannelID, error), durable func(context.Context, dt.ChannelID) error) *outbox {
	o := &outbox{ctx: ctx, net: n, ordered: network.OrderedOf(n), failed: failed, durable: durable}
	o.queue = serial.NewKeyed(&o.group, maxOutgoing, o.deliver)
	return o
}

// send queues a message that is worth delivering for the given time.
func (o *outbox) send(chid dt.ChannelID, to peer.ID, msg dt.Message, ttl time.Duration) {
	o.sendAfter(chid, to, msg, ttl, time.Time{})
}

// sendAfter queues a message that is not to be told before a time.
func (o *outbox) sendAfter(chid dt.ChannelID, to peer.ID, msg dt.Message, ttl time.Duration, after time.Time) {
	o.queue.Put(chid, outgoing{to: to, msg: msg, after: after, deadline: time.Now().Add(ttl), stored: func(ctx context.Context) error { return o.durable(ctx, chid) }})
}

// once queues a message that is sent if the other side can be reached now: an answer to somebody whose channel we do not
// keep costs nothing later.
func (o *outbox) once(chid dt.ChannelID, to peer.ID, msg dt.Message) {
	o.queue.Put(chid, outgoing{to: to, msg: msg, deadline: time.Now().Add(10 * time.Second), noRetry: true})
}

func (o *outbox) deliver(chid dt.ChannelID, l outgoing) {
	ctx, cancel := context.WithDeadline(o.ctx, l.deadline)
	defer cancel()
	if l.stored != nil && l.stored(ctx) != nil {
		return // the other side will ask
	}
	if !l.after.IsZero() && !lifecycle.Sleep(ctx, time.Until(l.after)) {
		return
	}
	_ = lifecycle.Retry(ctx, lifecycle.Backoff{Min: 100 * time.Millisecond, Max: 10 * time.Second}, func() (bool, error) {
		sctx, done := context.WithTimeout(ctx, 10*time.Second)
		defer done()
		err := o.sendNow(sctx, l)
		if err == nil || l.noRetry {
			return false, err
		}
		o.failed(chid, err)
		return true, err
	})
}

// sendNow hands a message over, in order: the next one leaves when the other side has taken this one.
func (o *outbox) sendNow(ctx context.Context, l outgoing) error {
	if l.noRetry {
		return o.net.SendMessage(ctx, l.to, l.msg)
	}
	return o.ordered.SendInOrder(ctx, l.to, l.msg)
}

// wait ends when all goroutines have; the context of the outbox must be over.
func (o *outbox) wait(ctx context.Context) error { return o.group.Close(ctx) }
