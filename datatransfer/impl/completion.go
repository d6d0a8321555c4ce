package impl

import (
	"context"
	"errors"
	"time"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/channels"
	"github.com/cartage-dev/cartage/datatransfer/message"
	"github.com/cartage-dev/cartage/internal/reason"
)

// The end of data and a voucher may be decided on at once, and neither decision knows of the other: a voucher that was looked at before the
// end does not complete the channel, and one that was taken meanwhile is not waited for. Whichever comes second has the end decided
// on again.

// complete is the end of data on the responder's side (section 4.7).
func (m *Manager) complete(c *channels.Channel) error {
	return m.completeWith(c, m.sayEnd)
}

// OnAllSent is OnChannelCompleted for a transport that carries what is said to it: it is stored already.
func (m *Manager) OnAllSent(chid dt.ChannelID) (msg dt.Message, err error) {
	c, err := m.live(chid)
	if err != nil {
		return nil, err
	}
	if channels.IsChannelTerminated(c.Status()) { // sent again
		m.transport.CleanupChannel(chid)
		return nil, nil
	}
	return msg, m.completeWith(c, func(c *channels.Channel, result dt.VoucherResult, rerr error) error {
		if m.delay(chid.Initiator) > 0 {
			return m.sayEnd(c, result, rerr)
		}
		end, err := message.CompleteResponse(chid.ID, accepted(rerr), errors.Is(rerr, dt.ErrPause), resultType(result), result)
		if err == nil {
			err = c.Stored(m.ctx)
		}
		if err == nil {
			msg = end
		}
		return err
	})
}

func (m *Manager) completeWith(c *channels.Channel, say func(*channels.Channel, dt.VoucherResult, error) error) error {
	for !over(c) {
		var settled uint64
		c.Do(func(_ *channels.Record, cr *channels.Credit) { settled = cr.Settled })
		result, rerr := m.decideEnd(c)
		if err := record(c, result); err != nil {
			return err
		}
		paused := errors.Is(rerr, dt.ErrPause)
		var err error
		switch {
		case paused:
			var applied bool
			applied, err = c.ApplyIf(func(_ *channels.Record, cr *channels.Credit) bool { return cr.Settled == settled }, dt.BeginFinalizing)
			if !applied && err == nil {
				continue
			}
		case accepted(rerr):
			err = c.Apply(dt.Complete)
		default:
			err = c.Apply(dt.Error, orUnknown(rerr))
		}
		return errors.Join(err, say(c, result, rerr))
	}
	return nil
}

// decideEnd asks the application what the end of data means.
func (m *Manager) decideEnd(c *channels.Channel) (result dt.VoucherResult, err error) {
	err = m.ask(func(r dt.Revalidator) (bool, dt.VoucherResult, error) { return r.OnComplete(c.ID()) }, &result)
	return result, err
}

// sayEnd tells the initiator what was decided, after the acceptance of the channel.
func (m *Manager) sayEnd(c *channels.Channel, result dt.VoucherResult, rerr error) error {
	chid := c.ID()
	msg, err := message.CompleteResponse(chid.ID, accepted(rerr), errors.Is(rerr, dt.ErrPause), resultType(result), result)
	if err != nil {
		return err
	}
	var after time.Time
	if c.IsPull() {
		after = time.Now().Add(m.delay(chid.Initiator))
	}
	m.outbox.sendAfter(chid, chid.OtherParty(m.peerID), msg, completeWorth, after)
	return nil
}

// resumeResponder lets an accepted voucher end the pause it was for. It tells that all data was sent since the voucher was looked at: then
// the voucher says nothing about the end.
func (m *Manager) resumeResponder(c *channels.Channel, final bool) (ended bool, err error) {
	applied, err := c.ApplyIf(func(r *channels.Record, cr *channels.Credit) bool {
		cr.Settled++
		return r.Status != dt.Finalizing || final
	}, dt.ResumeResponder)
	return !applied && err == nil, err
}

// KeepBeforeFinish implements port.RecipientControl.
func (m *Manager) KeepBeforeFinish(keep func(dt.ChannelID) error) { m.keep = keep }

// finishReceived is the end of data on the initiator's side: what came is on stable storage before the channel says so, as a loss of power may take the one and
// leave the other.
func finishReceived(m *Manager, c *channels.Channel) error {
	if m.keep != nil {
		if err := m.keep(c.ID()); err != nil {
			return ignoreOver(c, c.Apply(dt.Error, reason.StoreFailed.Errorf("keep what was received: %w", err)))
		}
	}
	return c.Apply(dt.FinishTransfer)
}

// HasAll tells the channel that everything is here already: then the word of the responder that it is done ends it, and no data has to move again.
func (m *Manager) HasAll(ctx context.Context, chid dt.ChannelID) error {
	c, err := m.get(ctx, chid)
	if err != nil || c.State().Status() == dt.Requested {
		return err
	}
	return ignoreOver(c, finishReceived(m, c))
}
