package impl

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/channels"
	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/reason"
)

// Limits bound what the other sides may cost a responder. Zero is no limit. What is over a limit is refused;
// channels that exist go on.
type Limits struct {
	// ChannelsPerPeer and Channels are how many live channels of others this node answers, of one peer and in all.
	ChannelsPerPeer, Channels int
	// RestartBurst restarts of a channel are taken at once, and one more each RestartEvery.
	RestartBurst int
	RestartEvery time.Duration
	// IdleTimeout fails a channel of another side on which nothing happens.
	IdleTimeout time.Duration
	// YieldAfter is after how long without anything a channel gives its place to one that is new; 0: never.
	YieldAfter time.Duration
	// Refused is told of a channel that is over a limit, of its peer or of all, and may return what the peer is answered. It may be nil.
	Refused func(ofPeer bool) error
}

// ChannelLimits sets the limits of a manager; without it there are none.
func ChannelLimits(l Limits) DataTransferOption { return func(m *Manager) { m.limits = l } }

// admit refuses a new channel of a peer that has too many. A place is taken until done is called: validators may be asked about
// several at once. A channel that stands still makes room, if there is one.
func (m *Manager) admit(p peer.ID) (done func(), err error) {
	if m.limits.ChannelsPerPeer == 0 && m.limits.Channels == 0 {
		return func() {}, nil
	}
	m.comingMu.Lock()
	idle, err := m.findPlace(p)
	if err == nil {
		m.coming[p]++
	}
	m.comingMu.Unlock()
	if err != nil {
		return nil, err
	}
	if idle != nil {
		m.endIdle(idle, m.limits.YieldAfter)
	}
	return func() {
		m.comingMu.Lock()
		defer m.comingMu.Unlock()
		if m.coming[p]--; m.coming[p] == 0 {
			delete(m.coming, p)
		}
	}, nil
}

// findPlace looks whether there is a place for another channel of a peer, and which channel has to yield it; nil: none has to. comingMu is held.
func (m *Manager) findPlace(p peer.ID) (yields *channels.Channel, err error) {
	ofPeer, all := m.coming[p], 0
	for _, n := range m.coming {
		all += n
	}
	var idle, idleOfPeer *channels.Channel // those that have stood still for longest
	for _, c := range m.channels.Live() {
		if c.ID().Initiator == m.peerID || over(c) {
			continue
		}
		all++
		idle = idlest(idle, c)
		if c.ID().Initiator == p {
			ofPeer++
			idleOfPeer = idlest(idleOfPeer, c)
		}
	}
	l := m.limits
	if n := l.ChannelsPerPeer; n > 0 && ofPeer >= n {
		if ofPeer == n && l.yields(idleOfPeer) {
			return idleOfPeer, nil
		}
		return nil, l.refuse(true, fmt.Errorf("peer %s has %d open channels, the limit is %d", p, ofPeer, n))
	}
	if n := l.Channels; n > 0 && all >= n {
		if all == n && l.yields(idle) {
			return idle, nil
		}
		return nil, l.refuse(false, fmt.Errorf("%d channels are open, the limit is %d", all, n))
	}
	return nil, nil
}

func idlest(a, b *channels.Channel) *channels.Channel {
	if a == nil || b.Idle() > a.Idle() {
		return b
	}
	return a
}

func (l *Limits) yields(c *channels.Channel) bool {
	return l.YieldAfter > 0 && c != nil && c.Idle() >= l.YieldAfter
}

func (l *Limits) refuse(ofPeer bool, err error) error {
	if l.Refused == nil {
		return err
	}
	if told := l.Refused(ofPeer); told != nil {
		return told
	}
	return err
}

// endIdle ends a channel of another side on which nothing happened for so long.
func (m *Manager) endIdle(c *channels.Channel, after time.Duration) {
	slog.Info("data-transfer channel ended: nothing happened on it", "channel", c.ID(), "for", after)
	m.outbox.once(c.ID(), c.ID().Initiator, m.cancelMessage(c.ID()))
	_ = c.Apply(dt.Error, reason.Idle.Errorf("nothing happened for %s", after))
}

// maxEarly bounds the cancels that are remembered for channels that there are not yet.
const maxEarly = 1024

// cancelEarly remembers that a channel was cancelled by its initiator that is not there: its validator may be being asked.
func (m *Manager) cancelEarly(chid dt.ChannelID) {
	m.comingMu.Lock()
	defer m.comingMu.Unlock()
	if len(m.early) < maxEarly && !m.early[chid] {
		m.early[chid] = true
		time.AfterFunc(earlyFor, func() { m.cancelledEarly(chid) })
	}
}

// earlyFor is how long a cancel is remembered.
const earlyFor = time.Minute

// cancelledEarly tells, once, whether a channel was cancelled before it was there.
func (m *Manager) cancelledEarly(chid dt.ChannelID) bool {
	m.comingMu.Lock()
	defer m.comingMu.Unlock()
	yes := m.early[chid]
	delete(m.early, chid)
	return yes
}

// pace refuses restarts of a channel that come too fast.
func (m *Manager) pace(c *channels.Channel) (err error) {
	l := m.limits
	if l.RestartBurst == 0 || l.RestartEvery == 0 {
		return nil
	}
	now := time.Now()
	c.Do(func(_ *channels.Record, cr *channels.Credit) {
		// One time stands for the bucket: how far in the future it is says how much of the burst is used.
		next := cr.NextRestart
		if next.Before(now) {
			next = now
		}
		if ahead := next.Sub(now); ahead > time.Duration(l.RestartBurst-1)*l.RestartEvery {
			err = fmt.Errorf("channel was restarted too often: at most %d times at once and then each %s", l.RestartBurst, l.RestartEvery)
			return
		}
		cr.NextRestart = next.Add(l.RestartEvery)
	})
	return err
}

// watchIdle fails channels of others that stand still, with one goroutine for all of them.
func (m *Manager) watchIdle(ctx context.Context) {
	lifecycle.Every(ctx, max(m.limits.IdleTimeout/4, time.Millisecond), func() {
		for _, c := range m.channels.Live() {
			if c.ID().Initiator == m.peerID || over(c) || c.Idle() < m.limits.IdleTimeout {
				continue
			}
			m.endIdle(c, m.limits.IdleTimeout)
		}
	})
}

// Prune deletes the records of channels that ended before a time and reports how many. Nothing is deleted without it.
func (m *Manager) Prune(ctx context.Context, before time.Time) (int, error) {
	if err := m.awaitReady(ctx); err != nil {
		return 0, err
	}
	return m.channels.Prune(ctx, before)
}
