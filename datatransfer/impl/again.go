package impl

import (
	"context"
	"errors"
	"fmt"
	"time"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/channels"
	"github.com/cartage-dev/cartage/datatransfer/message"
)

// A sender is done when its last block has left, a recipient when it has come: a connection that breaks in between, or a
// recipient that dies, loses the tail of a channel that is Completed here. It is sent again: only blocks that were counted, a
// few times, and without an event.

const (
	maxAgain   = 3                // times that a completed channel is sent again, in one process
	againWorth = 10 * time.Minute // after which the transport forgets it
	maxServed  = 4096             // channels that are remembered for it, those of the last while first
)

// served is how often a channel was sent again, and when last.
type served struct {
	times int
	at    time.Time
}

// sayCompleted tells an initiator who did not hear it that a channel is done. With a graphsync request the data follows.
func (m *Manager) sayCompleted(s dt.ChannelState) (dt.Response, error) {
	chid := s.ChannelID()
	if !m.serveAgain(chid) {
		return m.reject(chid, true, nil, errors.New("channel is already terminated"))
	}
	if s.IsPull() {
		m.configure(chid, s.Voucher())
	}
	res := s.LastVoucherResult()
	resp, err := message.CompleteResponse(chid.ID, true, false, resultType(res), res)
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// serveAgain counts how often a channel was sent again.
func (m *Manager) serveAgain(chid dt.ChannelID) bool {
	m.againMu.Lock()
	defer m.againMu.Unlock()
	s := m.again[chid]
	if s.times >= maxAgain {
		return false
	}
	if s.times == 0 && len(m.again) >= maxServed {
		forgetServed(m)
	}
	m.again[chid] = served{s.times + 1, time.Now()}
	return true
}

// forgetServed makes room for another channel: those that the transport has forgotten go, else the one that was served first.
func forgetServed(m *Manager) {
	var first dt.ChannelID
	var at time.Time
	for chid, s := range m.again {
		if time.Since(s.at) > againWorth {
			delete(m.again, chid)
		} else if at.IsZero() || s.at.Before(at) {
			first, at = chid, s.at
		}
	}
	if len(m.again) >= maxServed {
		delete(m.again, first)
	}
}

// AdoptForSending prepares the transport for a channel of which this side is the sender, after a start over its store: the recipient goes
// on with it before anybody has restarted it.
func (m *Manager) AdoptForSending(chid dt.ChannelID) error {
	c, err := m.live(chid)
	if err != nil {
		return err
	}
	s := c.State()
	v := s.Voucher()
	again := s.Status() == dt.Completed || s.Status() == dt.Completing // MayAskAgain bounds it
	if again && s.Sender() == m.peerID && v != nil {
		m.configure(chid, v)
		return nil
	}
	if over(c) || s.Status() == dt.Requested || s.Sender() != m.peerID || v == nil {
		return fmt.Errorf("channel %s is %s: there is nothing to go on with", chid, dt.Statuses[s.Status()])
	}
	m.configure(chid, v)
	m.net.Protect(chid.OtherParty(m.peerID), chid.String())
	if chid.Initiator == m.peerID {
		m.monitor.Add(chid)
	}
	return nil
}

// HoldForPayment pauses a channel that waits for a payment. One that comes meanwhile lets it go on, whichever of the two reaches
// the transport first.
func (m *Manager) HoldForPayment(ctx context.Context, chid dt.ChannelID) {
	c, err := m.live(chid)
	if err != nil {
		return
	}
	waits := func() (yes bool) { // with a limit the transport asks before each block
		c.Do(func(_ *channels.Record, cr *channels.Credit) { yes = cr.Paused && !cr.Limited })
		return yes
	}
	if !waits() {
		return
	}
	m.hold(ctx, chid)
	if !waits() {
		_ = m.transport.ResumeChannel(ctx, nil, chid)
	}
}

// OnDataAsked is told by a transport that the other side asks for the data of a channel.
func (m *Manager) OnDataAsked(chid dt.ChannelID) {
	if c := m.channels.Resident(chid); c != nil {
		c.Do(func(_ *channels.Record, cr *channels.Credit) { cr.Unasked = false })
		return
	}
	time.AfterFunc(againWorth, func() { m.transport.CleanupChannel(chid) })
}

// queuedAgain lets a block of a completed channel out if it was counted before.
func queuedAgain(s dt.ChannelState, c *channels.Channel, index int64) error {
	counted := false
	c.Do(func(r *channels.Record, _ *channels.Credit) { counted = r.Counted(uint64(max(index, 0))) })
	if s.Status() == dt.Completed && s.IsPull() && counted {
		return nil
	}
	return dt.ErrPause // cleanup cancels the response: a failure would tell the other side another story
}
