package impl

import (
	"fmt"
	"time"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/channels"
	"github.com/cartage-dev/cartage/internal/reason"
)

// OnResponseReceived implements datatransfer.EventsHandler (section 4.4).
func (m *Manager) OnResponseReceived(chid dt.ChannelID, resp dt.Response) error {
	c, err := m.live(chid)
	if err != nil {
		return err
	}
	if chid.Initiator != m.peerID {
		return fmt.Errorf("channel %s: a response comes from the responder", chid)
	}
	if over(c) {
		return nil
	}
	c.Inbound.Lock()
	defer c.Inbound.Unlock()
	c.Hold()
	defer c.Release()
	if resp.IsCancel() {
		return c.Apply(dt.Cancel) // cleanup cancels our own request too
	}
	if resp.IsRestart() && !resp.Accepted() && m.askOnceMore(c) {
		return nil
	}
	if resp.IsVoucherResult() {
		done, err := m.receiveResult(c, resp)
		if err != nil || done {
			return err
		}
	}
	switch {
	case resp.IsNew():
		err = c.Apply(dt.Accept)
	case resp.IsRestart():
		err = c.Apply(dt.Restart)
	case resp.IsComplete() && !resp.IsPaused():
		return m.responderCompletes(c)
	case resp.IsComplete() && c.Status() == dt.ResponderCompleted: // it left before the last payment came, by another way than the answer to that
		return nil
	case resp.IsComplete():
		err = c.Apply(dt.ResponderBeginsFinalization)
	}
	if err != nil {
		return err
	}
	if resp.IsPaused() {
		return c.Apply(dt.PauseResponder)
	}
	if err := c.Apply(dt.ResumeResponder); err != nil {
		return err
	}
	if c.State().Status() == dt.InitiatorPaused {
		return dt.ErrPause // our own pause goes on
	}
	return nil
}

// maxRefused is how often a restart may be refused before the first request has been answered.
const maxRefused = 2

// askOnceMore keeps a channel whose restart was refused before it was ever accepted: the restart may have overtaken the request that
// opens it, over a new connection.
func (m *Manager) askOnceMore(c *channels.Channel) (yes bool) {
	if c.Status() != dt.Requested {
		return false
	}
	c.Do(func(_ *channels.Record, cr *channels.Credit) {
		if yes = cr.Refused < maxRefused; yes {
			cr.Refused++
			cr.Ignore = true
		}
	})
	return yes && m.monitor.Restart(c.ID())
}

// OnLateAcceptance is told by a transport that a responder accepts a channel that has no request any more. If it was cancelled here,
// the cancel may have overtaken the request: it is said once more.
func (m *Manager) OnLateAcceptance(chid dt.ChannelID) {
	c, err := m.live(chid)
	if err != nil {
		return
	}
	if s := c.Status(); over(c) && s != dt.Completed && s != dt.Completing {
		m.outbox.once(chid, chid.Responder, m.cancelMessage(chid))
	}
}

// responderCompletes ends a push at once whose data the responder never asked for, at all or since the restart: it has
// all of it.
func (m *Manager) responderCompletes(c *channels.Channel) error {
	s := c.State()
	if err := c.Apply(dt.ResponderCompletes); err != nil {
		return err
	}
	still := false
	c.Do(func(_ *channels.Record, cr *channels.Credit) { still = cr.Unasked })
	if s.IsPull() || s.Status() != dt.Requested && !still {
		return nil
	}
	c.Do(func(r *channels.Record, _ *channels.Credit) { r.AllSent() })
	return ignoreOver(c, c.Apply(dt.FinishTransfer))
}

func (m *Manager) receiveResult(c *channels.Channel, resp dt.Response) (done bool, err error) {
	if !resp.EmptyVoucherResult() {
		d, ok := m.results.Decoder(resp.VoucherResultType())
		if !ok {
			return true, m.refuse(c, fmt.Errorf("unknown voucher result type: %s", resp.VoucherResultType()))
		}
		v, err := resp.VoucherResult(d)
		if err != nil {
			return true, m.refuse(c, err)
		}
		res, ok := v.(dt.VoucherResult)
		if !ok {
			return true, m.refuse(c, fmt.Errorf("%T is not a voucher result", v))
		}
		if err := record(c, res); err != nil {
			return true, err
		}
	}
	if !resp.Accepted() {
		return true, c.Apply(dt.Error, dt.ErrRejected)
	}
	return false, nil
}

// refuse ends a channel because of what the other side sent.
func (m *Manager) refuse(c *channels.Channel, err error) error {
	m.outbox.send(c.ID(), c.ID().OtherParty(m.peerID), m.cancelMessage(c.ID()), 30*time.Second)
	_ = c.Apply(dt.Error, reason.PeerClaims.Errorf("%w", err))
	return err
}
