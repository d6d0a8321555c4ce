package impl

import (
	"context"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/channels"
)

// Suspend is for a responder whose application stops before its manager does: nothing is sent on a channel any more and nothing but a
// cancel is answered, so that no request is refused for good. The other side goes on after the next start.
func (m *Manager) Suspend(ctx context.Context, chid dt.ChannelID) error {
	c, err := m.live(chid)
	if err != nil {
		return err
	}
	c.Do(func(_ *channels.Record, cr *channels.Credit) { cr.Silent = true })
	return m.transport.Halt(ctx, chid)
}

// Unsuspend is for an application that starts again over the same manager.
func (m *Manager) Unsuspend(chid dt.ChannelID) {
	if c := m.channels.Resident(chid); c != nil {
		c.Do(func(_ *channels.Record, cr *channels.Credit) { cr.Silent = false })
	}
}

// silent tells whether a channel is suspended.
func (m *Manager) silent(chid dt.ChannelID) (yes bool) {
	if c := m.channels.Resident(chid); c != nil {
		c.Do(func(_ *channels.Record, cr *channels.Credit) { yes = cr.Silent })
	}
	return yes
}
