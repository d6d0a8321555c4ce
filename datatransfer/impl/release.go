package impl

import (
	"errors"
	"log/slog"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/channels"
	"github.com/cartage-dev/cartage/datatransfer/transport/flow"
	"github.com/cartage-dev/cartage/internal/port"
)

// releaseTries is how often a verdict is computed anew because a payment came while one was asked for.
const releaseTries = 3

// MaySend implements port.Handler: the verdict of flow on the block that is next, and what the other side has to hear because of it: the
// verdict is reported once at each of its edges.
func (m *Manager) MaySend(chid dt.ChannelID, next int64, size uint64) (may port.Release, say []dt.Message) {
	c, err := m.live(chid)
	if err != nil || chid.Initiator == m.peerID || over(c) { // what goes out again of a channel that is over is bounded block by block
		return port.ReleaseAsTold, nil
	}
	for range releaseTries {
		verdict, told, exact := m.decideRelease(c, uint64(max(next, 0)), size)
		switch {
		case verdict == flow.AsTold:
			return port.ReleaseAsTold, say
		case verdict == flow.Send && exact && size == 0:
			return port.ReleaseBySize, say
		case verdict == flow.Send && told:
			return port.ReleaseNow, m.reportResumed(c, say)
		case verdict == flow.Send:
			return port.ReleaseNow, say
		case verdict == flow.AwaitHold || told:
			return port.ReleaseLater, say
		}
		msg, err := m.demand(c, 0)
		if msg != nil {
			say = append(say, msg)
		}
		if err != nil && !errors.Is(err, dt.ErrPause) {
			slog.Debug("demand for payment refused", "channel", chid, "error", err)
		}
	}
	return port.ReleaseLater, say
}

// decideRelease computes the verdict, and tells whether the other side was told what no longer holds: that a channel is paused which is
// below its limit, or, at its limit, that it waits. The size of the block is 0 if it has not been read; exact tells that it has to be asked for.
func (m *Manager) decideRelease(c *channels.Channel, next, size uint64) (verdict flow.Verdict, told, exact bool) {
	m.credit(c)
	c.Do(func(r *channels.Record, k *channels.Credit) {
		k.Next = size
		again := r.Counted(next) && next > 0
		verdict = flow.Decide(flow.Facts{
			HighWater: r.QueuedTotal, Limited: k.Limited, Open: k.Open(r.Queued), HeldByUs: k.Held || k.Awaiting || k.Silent,
			HeldByPeer: c.IsPull() && (r.Status == dt.InitiatorPaused || r.Status == dt.BothPaused),
		}, next, r.Withheld(next))
		told = k.Paused && (verdict != flow.Send || k.Open(r.Queued)) // what goes out again ends no pause
		if exact = k.Exact && !again; verdict == flow.Send && told && (!exact || size > 0) {
			k.Paused = false
		}
	})
	return verdict, told, exact
}

// reportResumed reports that a sender is not paused any more for whom a payment came before its pause was told.
func (m *Manager) reportResumed(c *channels.Channel, say []dt.Message) []dt.Message {
	if err := c.Apply(dt.ResumeResponder); err != nil {
		return say
	}
	return append(say, m.updateMessage(c.ID(), false))
}

// demand asks the revalidators for what the recipient has to pay. nil is no demand: a payment came meanwhile.
func (m *Manager) demand(c *channels.Channel, additional uint64) (dt.Message, error) {
	var total, grants uint64
	var limited bool
	c.Do(func(r *channels.Record, k *channels.Credit) {
		total, grants, limited = r.Queued, k.Grants, k.Limited
		if limited {
			additional, k.Asked = total-min(k.Asked, total), total
		}
	})
	var result dt.VoucherResult
	known := false
	rerr := m.ask(func(r dt.Revalidator) (bool, dt.VoucherResult, error) {
		h, res, err := r.OnPullDataSent(c.ID(), additional)
		known = known || h
		return h, res, err
	}, &result)
	if !known && limited && m.pauseAt(c, total, grants) {
		rerr = dt.ErrPause // there is a limit, and nobody who could raise it
	}
	if rerr == nil && result == nil {
		return nil, nil
	}
	if errors.Is(rerr, dt.ErrPause) && !m.pauseAt(c, total, grants) {
		return nil, nil // it was paid while we asked
	}
	msg, err := m.answer(c, rerr, result)
	if err != nil {
		return nil, err
	}
	return msg, rerr
}

// Waiting implements port.SenderControl.
func (m *Manager) Waiting(chid dt.ChannelID) (size uint64) {
	if c := m.channels.Resident(chid); c != nil {
		c.Do(func(_ *channels.Record, k *channels.Credit) { size = k.Next })
	}
	return size
}
