// Package channelmonitor restarts broken channels and ends those that stay broken.
package channelmonitor

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/shared"
)

// Config says when a channel is restarted and when it is given up. A zero duration is off.
type Config struct {
	// AcceptTimeout bounds the time to the acceptance.
	AcceptTimeout time.Duration
	// RestartDebounce is the quiet time after an error before the restart, and the least pause between two attempts: it
	// doubles with each restart that moved nothing, up to 5 minutes, and some jitter comes on top. 0 stands for one second.
	RestartDebounce time.Duration
	// RestartBackoff is the pause after a restart that was sent.
	RestartBackoff time.Duration
	// RestartAckTimeout is how long a restart may go unanswered before the next attempt: a message can be lost without an error,
	// on a connection that the other side has forgotten. 0 stands for 30 seconds.
	RestartAckTimeout time.Duration
	// MaxConsecutiveRestarts is how many restarts without any data end the channel.
	MaxConsecutiveRestarts uint32
	// CompleteTimeout bounds the time from the last data to the end.
	CompleteTimeout time.Duration
	// OnRestartComplete is told after a round.
	OnRestartComplete func(id dt.ChannelID)
	// BeforeRestart prepares a restart, with the peer connected; its error counts as a failed attempt.
	BeforeRestart func(ctx context.Context, id dt.ChannelID) error
}

// Check tells what is wrong with a configuration.
func (c *Config) Check() error {
	if c.MaxConsecutiveRestarts == 0 {
		return errors.New("data-transfer channel monitor MaxConsecutiveRestarts must be > 0")
	}
	if c.AcceptTimeout < 0 || c.CompleteTimeout < 0 {
		return errors.New("data-transfer channel monitor timeouts must be >= 0")
	}
	return nil
}

// Manager is what the monitor needs of the data-transfer manager.
type Manager interface {
	ConnectTo(ctx context.Context, p peer.ID) error
	PeerID() peer.ID
	RestartDataTransferChannel(ctx context.Context, chid dt.ChannelID) error
	CloseDataTransferChannelWithError(ctx context.Context, chid dt.ChannelID, cherr error) error
}

// Monitor watches the channels that this node initiated. One subscription serves all.
type Monitor struct {
	mgr    Manager
	cfg    *Config
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	channels map[dt.ChannelID]*monitored
	closed   bool
}

type monitored struct {
	failures   uint32
	unreached  uint32 // failures up to the last time that the other side came back
	away       bool
	paused     bool
	restarting bool
	again      bool
	accept     *time.Timer
	complete   *time.Timer
	ack        *time.Timer // a restart that has not been answered
	moved      time.Time   // data was counted last
}

// NewMonitor returns a monitor; a nil config makes one that does nothing. An invalid config panics.
func NewMonitor(mgr Manager, cfg *Config) *Monitor {
	if cfg != nil {
		if err := cfg.Check(); err != nil {
			panic(err)
		}
	}
	ctx, cancel := shared.Lifetime()
	return &Monitor{mgr: mgr, cfg: cfg, ctx: ctx, cancel: cancel, channels: map[dt.ChannelID]*monitored{}}
}

// AddPushChannel watches a push channel.
func (m *Monitor) AddPushChannel(chid dt.ChannelID) { m.Add(chid) }

// AddPullChannel watches a pull channel.
func (m *Monitor) AddPullChannel(chid dt.ChannelID) { m.Add(chid) }

// Add watches a channel; adding it again does nothing.
func (m *Monitor) Add(chid dt.ChannelID) {
	if m.cfg == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.channels[chid] != nil {
		return
	}
	mc := &monitored{}
	m.channels[chid] = mc
	mc.accept = m.timer(chid, m.cfg.AcceptTimeout, "Accept")
}

// timer ends a channel after d; mu is held.
func (m *Monitor) timer(chid dt.ChannelID, d time.Duration, what string) *time.Timer {
	if d <= 0 {
		return nil
	}
	return time.AfterFunc(d, func() {
		m.end(chid, reason.PeerSilent.Errorf("%s: timed out waiting %s for %s message from remote peer", chid, d, what))
	})
}

// Shutdown ends all timers and restarts and waits for them.
func (m *Monitor) Shutdown() {
	m.cancel()
	m.mu.Lock()
	m.closed = true
	for id := range m.channels {
		m.drop(id)
	}
	m.mu.Unlock()
	m.wg.Wait()
}

// drop forgets a channel; mu is held.
func (m *Monitor) drop(chid dt.ChannelID) {
	mc := m.channels[chid]
	if mc == nil {
		return
	}
	stop(mc.accept)
	stop(mc.complete)
	stop(mc.ack)
	delete(m.channels, chid)
}

func stop(t *time.Timer) {
	if t != nil {
		t.Stop()
	}
}

// Observe is told each event of each channel.
func (m *Monitor) Observe(e dt.Event, s dt.ChannelState) {
	if m.cfg == nil {
		return
	}
	chid := s.ChannelID()
	m.mu.Lock()
	defer m.mu.Unlock()
	mc := m.channels[chid]
	if mc == nil {
		return
	}
	switch s.Status() {
	case dt.Completing, dt.Failing, dt.Cancelling, dt.Completed, dt.Failed, dt.Cancelled:
		m.drop(chid)
		return
	}
	m.note(chid, mc, s.Status())
	if answers(e.Code) {
		stop(mc.ack)
		mc.ack = nil
	}
	switch e.Code {
	case dt.Accept, dt.Restart, dt.PauseResponder, dt.ResumeResponder:
		stop(mc.accept)
	case dt.DataSent, dt.DataReceived:
		stop(mc.accept)
		mc.failures, mc.unreached, mc.moved = 0, 0, time.Now()
	case dt.SendDataError, dt.ReceiveDataError, dt.Disconnected:
		m.schedule(chid, mc)
	}
}

// note takes what the status alone tells; mu is held.
func (m *Monitor) note(chid dt.ChannelID, mc *monitored, s dt.Status) {
	switch s {
	case dt.TransferFinished, dt.ResponderFinalizingTransferFinished, dt.ResponderCompleted: // R-88, also after a restart
		if mc.complete == nil {
			mc.complete = m.timer(chid, m.cfg.CompleteTimeout, "Complete")
		}
	}
	mc.paused = s == dt.InitiatorPaused || s == dt.ResponderPaused || s == dt.BothPaused
}

// Restart starts a round for a channel and reports whether it is watched.
func (m *Monitor) Restart(chid dt.ChannelID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	mc := m.channels[chid]
	if mc == nil {
		return false
	}
	m.schedule(chid, mc)
	return true
}

// schedule starts a round, or queues one more behind the running one; mu is held.
func (m *Monitor) schedule(chid dt.ChannelID, mc *monitored) {
	if m.closed {
		return
	}
	if mc.restarting {
		mc.again = true
		return
	}
	mc.restarting = true
	m.wg.Add(1)
	go func() {
		defer m.wg.Done()
		m.round(chid)
	}()
}

// round restarts until it worked, with growing pauses, or until the budget is used up.
func (m *Monitor) round(chid dt.ChannelID) {
	attempts := 0
	for {
		wait := m.spacing(chid, attempts)
		if !lifecycle.Sleep(m.ctx, wait+rand.N(wait/4+1)) {
			return
		}
		attempts++
		n, ok := m.attempt(chid)
		if !ok {
			return
		}
		if n > m.cfg.MaxConsecutiveRestarts {
			m.end(chid, reason.PeerUnreachable.Errorf("%s: after %d consecutive restarts failed to transfer any data", chid, n-1))
			return
		}
		back, err := m.restart(chid)
		if back {
			attempts = 1
		}
		if err != nil {
			continue
		}
		m.sent(chid)
		if !lifecycle.Sleep(m.ctx, m.cfg.RestartBackoff) || !m.finished(chid) {
			break
		}
		attempts = 0
	}
	if m.cfg.OnRestartComplete != nil {
		m.cfg.OnRestartComplete(chid)
	}
}

func (m *Monitor) attempt(chid dt.ChannelID) (uint32, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	mc := m.channels[chid]
	if mc == nil {
		return 0, false
	}
	mc.again = false
	mc.failures++
	return mc.failures, true
}

// sent gives an attempt back that reached the other side of a paused channel: nothing can move on it.
func (m *Monitor) sent(chid dt.ChannelID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if mc := m.channels[chid]; mc != nil && mc.paused && mc.failures > 0 {
		mc.failures--
	}
}

// maxSpacing bounds the pause between attempts.
const maxSpacing = 5 * time.Minute

// spacing is how long to wait before the next attempt: it doubles with each one that moved nothing.
func (m *Monitor) spacing(chid dt.ChannelID, attempts int) time.Duration {
	wait := m.cfg.RestartDebounce
	if wait <= 0 {
		wait = time.Second
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if mc := m.channels[chid]; mc != nil {
		attempts = max(attempts, int(mc.failures-min(mc.failures, mc.unreached)))
	}
	for ; attempts > 0 && wait < maxSpacing; attempts-- {
		wait *= 2
	}
	return min(wait, maxSpacing)
}

// finished ends a round and reports whether another one was asked for.
func (m *Monitor) finished(chid dt.ChannelID) (again bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	mc := m.channels[chid]
	if mc == nil {
		return false
	}
	again, mc.again = mc.again, false
	mc.restarting = again
	return again
}

// reached notes whether the other side could be connected to, and tells whether it is back. The attempts while it was away say nothing
// about it: pauses begin anew.
func (m *Monitor) reached(chid dt.ChannelID, yes bool) (back bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	mc := m.channels[chid]
	if mc == nil {
		return false
	}
	if back = yes && mc.away; back {
		mc.unreached = mc.failures - 1
	}
	mc.away = !yes
	return back
}

func (m *Monitor) restart(chid dt.ChannelID) (back bool, err error) {
	ctx, cancel := context.WithTimeout(m.ctx, 30*time.Second)
	defer cancel()
	err = m.mgr.ConnectTo(ctx, chid.OtherParty(m.mgr.PeerID()))
	back = m.reached(chid, err == nil)
	if err != nil {
		return back, err
	}
	if m.cfg.BeforeRestart != nil {
		if err := m.cfg.BeforeRestart(ctx, chid); err != nil {
			if reason.From(err).Parked() { // who restarts it adds it again
				m.mu.Lock()
				m.drop(chid)
				m.mu.Unlock()
			}
			return back, err
		}
	}
	return back, m.mgr.RestartDataTransferChannel(ctx, chid)
}

func (m *Monitor) end(chid dt.ChannelID, err error) {
	m.mu.Lock()
	_, known := m.channels[chid]
	m.drop(chid)
	closed := m.closed
	if known && !closed {
		m.wg.Add(1)
	}
	m.mu.Unlock()
	if !known || closed {
		return
	}
	defer m.wg.Done()
	ctx, cancel := context.WithTimeout(m.ctx, 30*time.Second)
	defer cancel()
	_ = m.mgr.CloseDataTransferChannelWithError(ctx, chid, err)
}
