package impl

import (
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/channels"
)

// A recipient that pays for what it has verified before it is asked has a voucher on its way when the sender reaches the limit. The sender
// waits for it without a word: neither pause, request and resumption are told, nor stored. It asks when nothing comes for a while.

const quietFor = 250 * time.Millisecond

// QuietPause says which peers pay unasked.
func QuietPause(pays func(peer.ID) bool) DataTransferOption {
	return func(m *Manager) { m.paysUnasked = pays }
}

// waitQuietly pauses a channel that has reached its limit, if its first payment has come and more are taken to come unasked.
func (m *Manager) waitQuietly(c *channels.Channel, total, grants uint64) (paused bool) {
	if grants == 0 || m.paysUnasked == nil || !m.paysUnasked(c.ID().Initiator) {
		return false
	}
	c.Do(func(r *channels.Record, cr *channels.Credit) {
		paused = r.Status == dt.Ongoing && cr.Limited && total >= cr.Limit && cr.Grants == grants
		if paused {
			cr.Paused, cr.Quiet = true, true
		}
	})
	if paused {
		time.AfterFunc(quietFor, func() { m.askAfterAll(c, grants) })
	}
	return paused
}

// askAfterAll tells of a pause that was not told, if it still lasts.
func (m *Manager) askAfterAll(c *channels.Channel, grants uint64) {
	var total, additional uint64
	still := false
	c.Do(func(r *channels.Record, cr *channels.Credit) {
		if still = cr.Quiet && cr.Grants == grants && r.Status == dt.Ongoing; still {
			cr.Quiet = false
			total = r.Queued
			additional, cr.Asked = total-min(cr.Asked, total), total
		}
	})
	if !still || m.ctx.Err() != nil {
		return
	}
	var result dt.VoucherResult
	rerr := m.ask(func(r dt.Revalidator) (bool, dt.VoucherResult, error) {
		return r.OnPullDataSent(c.ID(), additional)
	}, &result)
	if rerr == nil && result == nil || errors.Is(rerr, dt.ErrPause) && !m.pauseAt(c, total, grants) {
		return // it was paid while we asked
	}
	if msg, err := m.answer(c, rerr, result); err == nil {
		m.outbox.send(c.ID(), c.ID().Initiator, msg, completeWorth)
	}
}
