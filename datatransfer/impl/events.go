package impl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/channels"
	"github.com/cartage-dev/cartage/datatransfer/encoding"
	"github.com/cartage-dev/cartage/datatransfer/message"
	"github.com/cartage-dev/cartage/datatransfer/registry"
	"github.com/cartage-dev/cartage/datatransfer/transport/flow"
	"github.com/cartage-dev/cartage/internal/port"
	"github.com/cartage-dev/cartage/shared"
)

// completeWorth is how long the last message of a channel is worth delivering.
const completeWorth = 10 * time.Minute

func (m *Manager) live(chid dt.ChannelID) (*channels.Channel, error) {
	return m.get(m.ctx, chid)
}

// OnChannelOpened implements datatransfer.EventsHandler.
func (m *Manager) OnChannelOpened(chid dt.ChannelID) error {
	c, err := m.live(chid)
	if err != nil {
		return err
	}
	if over(c) {
		return fmt.Errorf("channel %s has ended", chid)
	}
	return c.Apply(dt.Opened)
}

func (m *Manager) apply(chid dt.ChannelID, event dt.EventCode, args ...any) error {
	c, err := m.live(chid)
	if err != nil {
		return err
	}
	return c.Apply(event, args...)
}

// OnTransferQueued implements datatransfer.EventsHandler.
func (m *Manager) OnTransferQueued(chid dt.ChannelID) { _ = m.apply(chid, dt.TransferRequestQueued) }

// OnRequestCancelled implements datatransfer.EventsHandler.
func (m *Manager) OnRequestCancelled(chid dt.ChannelID, err error) error {
	return m.apply(chid, dt.RequestCancelled, errText(err))
}

// OnRequestDisconnected implements datatransfer.EventsHandler.
func (m *Manager) OnRequestDisconnected(chid dt.ChannelID, err error) error {
	return m.apply(chid, dt.Disconnected, errText(err))
}

// OnSendDataError implements datatransfer.EventsHandler.
func (m *Manager) OnSendDataError(chid dt.ChannelID, err error) error {
	return m.apply(chid, dt.SendDataError, errText(err))
}

// OnReceiveDataError implements datatransfer.EventsHandler.
func (m *Manager) OnReceiveDataError(chid dt.ChannelID, err error) error {
	return m.apply(chid, dt.ReceiveDataError, errText(err))
}

// OnContextAugment implements datatransfer.EventsHandler.
func (m *Manager) OnContextAugment(chid dt.ChannelID) func(context.Context) context.Context {
	return func(ctx context.Context) context.Context {
		ctx, _ = m.spans.SpanForChannel(ctx, chid)
		return ctx
	}
}

// OnDataSent implements datatransfer.EventsHandler.
func (m *Manager) OnDataSent(chid dt.ChannelID, _ ipld.Link, size uint64, index int64, unique bool) error {
	c, err := m.live(chid)
	if err != nil {
		return err
	}
	_, _, err = c.Block(dt.DataSent, dt.DataSentProgress, size, index, unique)
	return err
}

// OnBlocksSent is OnDataSent for blocks that left together.
func (m *Manager) OnBlocksSent(chid dt.ChannelID, blocks []port.BlockRef) error {
	c, err := m.live(chid)
	if err != nil {
		return err
	}
	return c.Blocks(dt.DataSent, dt.DataSentProgress, blocks)
}

// OnDataReceived implements datatransfer.EventsHandler.
func (m *Manager) OnDataReceived(chid dt.ChannelID, _ ipld.Link, size uint64, index int64, unique bool) error {
	c, err := m.live(chid)
	if err != nil {
		return err
	}
	var grants uint64
	if chid.Initiator != m.peerID {
		c.Do(func(_ *channels.Record, cr *channels.Credit) { grants = cr.Grants })
	}
	fresh, _, err := c.Block(dt.DataReceived, dt.DataReceivedProgress, size, index, unique)
	if err != nil || !fresh || chid.Initiator == m.peerID {
		return err
	}
	var result dt.VoucherResult
	rerr := m.ask(func(r dt.Revalidator) (bool, dt.VoucherResult, error) {
		h, res, err := r.OnPushDataReceived(chid, size)
		result = res
		return h, res, err
	}, &result)
	if rerr == nil && result == nil {
		return nil
	}
	if errors.Is(rerr, dt.ErrPause) && !m.pauseAt(c, 0, grants) {
		return nil // it was paid while we asked
	}
	msg, err := m.answer(c, rerr, result)
	if err != nil {
		return err
	}
	m.outbox.send(chid, chid.Initiator, msg, completeWorth)
	return rerr
}

// TakesBatches implements port.Handler: the revalidator of a push is asked about each block.
func (m *Manager) TakesBatches(chid dt.ChannelID) bool { return chid.Initiator == m.peerID }

// OnBlocksReceived is OnDataReceived for blocks of a channel of this side that came together.
func (m *Manager) OnBlocksReceived(chid dt.ChannelID, blocks []port.BlockRef) error {
	c, err := m.live(chid)
	if err != nil {
		return err
	}
	return c.Blocks(dt.DataReceived, dt.DataReceivedProgress, blocks)
}

// OnDataQueued implements datatransfer.EventsHandler.
func (m *Manager) OnDataQueued(chid dt.ChannelID, _ ipld.Link, size uint64, index int64, unique bool) (dt.Message, error) {
	c, err := m.live(chid)
	if err != nil {
		return nil, err
	}
	msg, err := m.queued(c, size, index, unique)
	if s := c.Status(); err == nil && (s == dt.InitiatorPaused || s == dt.BothPaused) && c.IsPull() {
		return msg, dt.ErrPause // the recipient asks anew when it goes on; what it does not want now must not be lost on it
	}
	return msg, err
}

// queued counts a block. It is the one place where position and limit are compared on the way out: with a Limiter no user code
// runs below the limit.
func (m *Manager) queued(c *channels.Channel, size uint64, index int64, unique bool) (dt.Message, error) {
	chid := c.ID()
	if over(c) {
		return nil, queuedAgain(c.State(), c, index)
	}
	fresh, _, err := c.Block(dt.DataQueued, dt.DataQueuedProgress, size, index, unique)
	if err != nil || chid.Initiator == m.peerID {
		return nil, err
	}
	if cr := m.credit(c); !cr.Limited && !fresh {
		return nil, nil
	}
	verdict, _, exact := m.decideRelease(c, uint64(index)+1, 0)
	switch {
	case verdict == flow.Send && exact: // asked again, with the size of the next block
		return nil, dt.ErrPause
	case verdict == flow.Send:
		return nil, nil
	}
	return m.demand(c, size)
}

// OnRestartPosition notes how many blocks the recipient has when it asks again.
func (m *Manager) OnRestartPosition(chid dt.ChannelID, blocks int64) {
	if c, err := m.live(chid); err == nil { // which a start has left in the store
		c.Do(func(_ *channels.Record, cr *channels.Credit) { cr.Has, cr.Next = uint64(max(blocks, 0)), 0 })
	}
}

// credit reads the limit of a channel from its validator, once for each time it was reached.
func (m *Manager) credit(c *channels.Channel) channels.Credit {
	var cr channels.Credit
	open := false
	c.Do(func(r *channels.Record, k *channels.Credit) { cr, open = *k, k.Open(r.Queued) })
	if cr.Limited && open {
		return cr
	}
	p, _ := m.validated.Processor(c.VoucherType())
	l, ok := p.(dt.Limiter)
	if !ok {
		return cr
	}
	limit, limited := l.Limit(c.ID())
	exact := false
	if e, ok := p.(port.ExactLimiter); ok {
		exact = e.LimitIsExact(c.ID())
	}
	c.Do(func(_ *channels.Record, k *channels.Credit) {
		k.Limited, k.Exact = limited, exact
		k.Limit = max(k.Limit, limit)
		cr = *k
	})
	return cr
}

// pauseAt decides under the channel's lock whether a pause at total still holds: if the limit has grown beyond it,
// nothing is paused, so that the order in which a pause and a payment arrive cannot matter. Without a limit a voucher that was
// taken since the demand was decided on, when there had been so many grants, is its payment.
func (m *Manager) pauseAt(c *channels.Channel, total, grants uint64) (paused bool) {
	c.Do(func(_ *channels.Record, cr *channels.Credit) {
		paused = !cr.Limited && cr.Grants == grants || cr.Limited && !cr.Open(total)
		cr.Paused = cr.Paused || paused
	})
	return paused
}

// ask lets the revalidators in order of registration answer until one knows the channel.
func (m *Manager) ask(f func(dt.Revalidator) (bool, dt.VoucherResult, error), result *dt.VoucherResult) (err error) {
	*result = nil
	stop := errors.New("handled")
	_ = m.revalidators.Each(func(_ dt.TypeIdentifier, _ encoding.Decoder, p registry.Processor) error {
		r, ok := p.(dt.Revalidator)
		if !ok || r == nil {
			return nil
		}
		handled, res, rerr := guarded(func() (bool, dt.VoucherResult, error) { return f(r) })
		if !handled {
			return nil
		}
		*result, err = res, rerr
		return stop
	})
	return err
}

// guarded turns a panic of user code into a refusal.
func guarded(f func() (bool, dt.VoucherResult, error)) (handled bool, res dt.VoucherResult, err error) {
	defer func() {
		if p := recover(); p != nil {
			handled, res, err = true, nil, fmt.Errorf("validation panicked: %v", p)
		}
	}()
	return f()
}

func accepted(err error) bool {
	return err == nil || errors.Is(err, dt.ErrPause) || errors.Is(err, dt.ErrResume)
}

func resultType(r dt.VoucherResult) dt.TypeIdentifier {
	if r == nil {
		return dt.EmptyTypeIdentifier
	}
	return r.Type()
}

// answer records a result and what it means for the channel, and makes the message that says so.
func (m *Manager) answer(c *channels.Channel, rerr error, result dt.VoucherResult) (dt.Message, error) {
	c.Hold()
	defer c.Release()
	if err := record(c, result); err != nil {
		return nil, err
	}
	paused := errors.Is(rerr, dt.ErrPause)
	if paused {
		if err := c.Apply(dt.PauseResponder); err != nil {
			return nil, err
		}
	}
	return m.resultMessage(c, accepted(rerr), paused, result)
}

func record(c *channels.Channel, result dt.VoucherResult) error {
	if result == nil {
		return nil
	}
	enc, err := channels.Encode(result)
	if err != nil {
		return err
	}
	return c.Result(enc)
}

func (m *Manager) resultMessage(c *channels.Channel, ok, paused bool, result dt.VoucherResult) (dt.Message, error) {
	mk := message.VoucherResultResponse
	if s := c.State().Status(); s == dt.Finalizing || s == dt.Completing || s == dt.Completed {
		mk = message.CompleteResponse
	}
	return mk(c.ID().ID, ok, paused, resultType(result), result)
}

// OnChannelCompleted implements datatransfer.EventsHandler.
func (m *Manager) OnChannelCompleted(chid dt.ChannelID, cerr error) error {
	c, err := m.live(chid)
	if err != nil {
		return err
	}
	if cerr != nil {
		if channels.IsChannelTerminated(c.State().Status()) {
			m.transport.CleanupChannel(chid) // sent again, in vain
		}
		ignore := false
		c.Do(func(_ *channels.Record, cr *channels.Credit) { ignore, cr.Ignore = cr.Ignore, false })
		if over(c) || ignore {
			return nil
		}
		return ignoreOver(c, c.Apply(dt.Error, fmt.Errorf("data transfer channel %s failed to transfer data: %w", chid, cerr)))
	}
	if chid.Initiator == m.peerID {
		return finishReceived(m, c)
	}
	if channels.IsChannelTerminated(c.State().Status()) { // sent again
		m.transport.CleanupChannel(chid)
		return nil
	}
	return m.complete(c)
}

// CheckRequest compares a graphsync request with the channel whose data it asks for: one that answers our push, or
// one that goes on after a pause of the requester.
func (m *Manager) CheckRequest(chid dt.ChannelID, root ipld.Link, selector ipld.Node) error {
	c, err := m.live(chid)
	if err != nil {
		return err
	}
	s := c.State()
	if s.Sender() != m.peerID {
		return errors.New("the other side asks for data of a channel on which it sends")
	}
	if l, ok := root.(cidlink.Link); !ok || !l.Cid.Equals(s.BaseCID()) || !shared.SameNode(selector, s.Selector()) {
		return errors.New("graphsync root or selector is not that of the channel")
	}
	return nil
}
