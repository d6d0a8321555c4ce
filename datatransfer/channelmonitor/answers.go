package channelmonitor

import (
	"time"

	dt "github.com/cartage-dev/cartage/datatransfer"
)

const restartAckTimeout = 30 * time.Second

// answers tells whether an event shows that the other side has got a restart. What this side does by itself does not, nor do blocks that are still
// being counted, nor an answer to a payment, which goes another way: the restart may be lost all the same.
func answers(e dt.EventCode) bool {
	switch e {
	case dt.Accept, dt.Restart, dt.FinishTransfer, dt.ResponderCompletes, dt.ResponderBeginsFinalization:
		return true
	}
	return false
}

// Asked is told that a restart goes out: without an answer in time, and while nothing moves, there is another one.
func (m *Monitor) Asked(chid dt.ChannelID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if mc := m.channels[chid]; mc != nil && !m.closed {
		m.awaitAnswer(chid, mc, m.ackTimeout())
	}
}

func (m *Monitor) ackTimeout() time.Duration {
	if d := m.cfg.RestartAckTimeout; d > 0 {
		return d
	}
	return restartAckTimeout
}

// awaitAnswer restarts a channel once more after d, if the last restart is not answered and nothing moved for that long; mu is held.
func (m *Monitor) awaitAnswer(chid dt.ChannelID, mc *monitored, d time.Duration) {
	stop(mc.ack)
	var t *time.Timer
	t = time.AfterFunc(d, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.channels[chid] != mc || mc.ack != t || m.closed {
			return
		}
		if rest := m.ackTimeout() - time.Since(mc.moved); rest > 0 {
			m.awaitAnswer(chid, mc, rest)
			return
		}
		mc.ack = nil
		m.schedule(chid, mc)
	})
	mc.ack = t
}
