package channelmonitor_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/channelmonitor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var chid = dt.ChannelID{Initiator: "me", Responder: "them", ID: 7}

// fakeManager notes what the monitor does, with the time since the start.
type fakeManager struct {
	mu         sync.Mutex
	start      time.Time
	restarts   []time.Duration
	closed     []string
	restartErr error
	connectErr error
}

func (f *fakeManager) PeerID() peer.ID { return "me" }

func (f *fakeManager) ConnectTo(context.Context, peer.ID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.connectErr
}

func (f *fakeManager) RestartDataTransferChannel(context.Context, dt.ChannelID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.restarts = append(f.restarts, time.Since(f.start))
	return f.restartErr
}

func (f *fakeManager) CloseDataTransferChannelWithError(_ context.Context, _ dt.ChannelID, err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = append(f.closed, err.Error())
	return nil
}

func (f *fakeManager) counts() (restarts int, closed []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.restarts), f.closed
}

// state is a channel in a status; the monitor asks for nothing else.
type state struct {
	dt.ChannelState
	status dt.Status
}

func (s state) ChannelID() dt.ChannelID { return chid }
func (s state) Status() dt.Status       { return s.status }

// run starts a monitor with a watched channel inside a bubble of fake time.
func run(t *testing.T, cfg channelmonitor.Config, f func(t *testing.T, m *channelmonitor.Monitor, mgr *fakeManager)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		mgr := &fakeManager{start: time.Now()}
		m := channelmonitor.NewMonitor(mgr, &cfg)
		defer m.Shutdown()
		m.AddPullChannel(chid)
		f(t, m, mgr)
	})
}

func see(m *channelmonitor.Monitor, e dt.EventCode, s dt.Status) {
	m.Observe(dt.Event{Code: e}, state{status: s})
	synctest.Wait()
}

func config() channelmonitor.Config {
	return channelmonitor.Config{AcceptTimeout: 10 * time.Second, RestartDebounce: time.Second, RestartBackoff: 5 * time.Second,
		MaxConsecutiveRestarts: 3, CompleteTimeout: 20 * time.Second}
}

func TestAcceptTimeout(t *testing.T) {
	run(t, config(), func(t *testing.T, _ *channelmonitor.Monitor, mgr *fakeManager) {
		time.Sleep(10*time.Second - 1)
		synctest.Wait()
		_, closed := mgr.counts()
		require.Empty(t, closed)
		time.Sleep(2 * time.Nanosecond)
		synctest.Wait()
		_, closed = mgr.counts()
		require.Equal(t, []string{chid.String() + ": timed out waiting 10s for Accept message from remote peer"}, closed)
	})
}

// TestR84AcceptTimer: whatever shows that the other side took the channel stops the accept timer.
func TestR84AcceptTimer(t *testing.T) {
	for _, e := range []dt.EventCode{dt.Accept, dt.Restart, dt.DataReceived, dt.DataSent, dt.PauseResponder, dt.ResumeResponder} {
		t.Run(dt.Events[e], func(t *testing.T) {
			run(t, config(), func(t *testing.T, m *channelmonitor.Monitor, mgr *fakeManager) {
				see(m, e, dt.Ongoing)
				time.Sleep(time.Minute)
				synctest.Wait()
				_, closed := mgr.counts()
				require.Empty(t, closed)
			})
		})
	}
}

// TestR87Spacing: attempts that fail are spaced by growing pauses with jitter, and the budget ends the channel.
func TestR87Spacing(t *testing.T) {
	run(t, config(), func(t *testing.T, m *channelmonitor.Monitor, mgr *fakeManager) {
		see(m, dt.Accept, dt.Ongoing)
		mgr.restartErr = errors.New("unreachable")
		see(m, dt.ReceiveDataError, dt.Ongoing)
		time.Sleep(time.Minute)
		synctest.Wait()
		n, closed := mgr.counts()
		require.Equal(t, 3, n)
		require.Equal(t, []string{chid.String() + ": after 3 consecutive restarts failed to transfer any data"}, closed)
		pause := mgr.restarts[0]
		for i, at := range mgr.restarts[1:] {
			next := at - mgr.restarts[i]
			require.Greater(t, next, pause, "pause %d", i)
			pause = next
		}
		require.GreaterOrEqual(t, mgr.restarts[0], time.Second)
		require.LessOrEqual(t, mgr.restarts[0], 5*time.Second/4+1)
	})
}

// TestR87BackAgain: attempts while the other side was away do not make the next ones wait once it is back.
func TestR87BackAgain(t *testing.T) {
	cfg := config()
	cfg.MaxConsecutiveRestarts = 20
	run(t, cfg, func(t *testing.T, m *channelmonitor.Monitor, mgr *fakeManager) {
		see(m, dt.Accept, dt.Ongoing)
		mgr.connectErr = errors.New("away")
		see(m, dt.Disconnected, dt.Ongoing)
		time.Sleep(2 * time.Minute) // the pause has grown to more than one
		mgr.mu.Lock()
		require.Empty(t, mgr.restarts)
		mgr.connectErr, mgr.restartErr = nil, errors.New("refused")
		mgr.mu.Unlock()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		mgr.mu.Lock()
		defer mgr.mu.Unlock()
		require.Greater(t, len(mgr.restarts), 2)
		require.LessOrEqual(t, mgr.restarts[1]-mgr.restarts[0], 3*time.Second)
	})
}

// TestR89Paused: restarts of a paused channel cost nothing if they reach the other side, and do if they do not.
func TestR89Paused(t *testing.T) {
	run(t, config(), func(t *testing.T, m *channelmonitor.Monitor, mgr *fakeManager) {
		for range 10 {
			see(m, dt.PauseResponder, dt.ResponderPaused)
			see(m, dt.Disconnected, dt.ResponderPaused)
			time.Sleep(20 * time.Second)
		}
		synctest.Wait()
		n, closed := mgr.counts()
		require.Equal(t, 10, n)
		require.Empty(t, closed)
		mgr.restartErr = errors.New("unreachable")
		see(m, dt.Disconnected, dt.ResponderPaused)
		time.Sleep(time.Minute)
		synctest.Wait()
		_, closed = mgr.counts()
		require.Len(t, closed, 1)
	})
}

// TestProgressRefillsBudget: data between restarts makes them no longer consecutive.
func TestProgressRefillsBudget(t *testing.T) {
	run(t, config(), func(t *testing.T, m *channelmonitor.Monitor, mgr *fakeManager) {
		see(m, dt.Accept, dt.Ongoing)
		for range 10 {
			see(m, dt.ReceiveDataError, dt.Ongoing)
			time.Sleep(10 * time.Second)
			see(m, dt.DataReceived, dt.Ongoing)
		}
		n, closed := mgr.counts()
		require.Equal(t, 10, n)
		require.Empty(t, closed)
	})
}

// TestDebounce: errors that come together are one restart, and one that comes during a round is one more.
func TestDebounce(t *testing.T) {
	run(t, config(), func(t *testing.T, m *channelmonitor.Monitor, mgr *fakeManager) {
		for range 5 {
			see(m, dt.Disconnected, dt.Ongoing)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		n, _ := mgr.counts()
		require.Equal(t, 1, n)
		see(m, dt.Disconnected, dt.Ongoing) // during the back-off
		time.Sleep(time.Minute)
		synctest.Wait()
		n, _ = mgr.counts()
		require.Equal(t, 2, n)
	})
}

// TestR88CompleteTimeout: after the last data the responder must say that it is done.
func TestR88CompleteTimeout(t *testing.T) {
	run(t, config(), func(t *testing.T, m *channelmonitor.Monitor, mgr *fakeManager) {
		see(m, dt.Accept, dt.Ongoing)
		see(m, dt.FinishTransfer, dt.TransferFinished)
		time.Sleep(10 * time.Second)
		see(m, dt.FinishTransfer, dt.TransferFinished) // does not start it again
		time.Sleep(10*time.Second + 1)
		synctest.Wait()
		_, closed := mgr.counts()
		require.Equal(t, []string{chid.String() + ": timed out waiting 20s for Complete message from remote peer"}, closed)
	})
}

// TestR85ShutdownStopsEverything: also a channel that ended is forgotten, whatever was running for it.
func TestR85ShutdownStopsEverything(t *testing.T) {
	run(t, config(), func(t *testing.T, m *channelmonitor.Monitor, mgr *fakeManager) {
		see(m, dt.ReceiveDataError, dt.Ongoing)
		see(m, dt.CleanupComplete, dt.Completed)
		time.Sleep(time.Hour)
		synctest.Wait()
		n, closed := mgr.counts()
		require.Zero(t, n)
		require.Empty(t, closed)
		m.Add(chid)
		see(m, dt.ReceiveDataError, dt.Ongoing)
		m.Shutdown()
		m.Add(chid)
		time.Sleep(time.Hour)
		synctest.Wait()
		n, closed = mgr.counts()
		require.Zero(t, n)
		require.Empty(t, closed)
	})
}

func TestBeforeRestart(t *testing.T) {
	cfg := config()
	calls := 0
	cfg.BeforeRestart = func(context.Context, dt.ChannelID) error {
		if calls++; calls == 1 {
			return errors.New("not ready")
		}
		return nil
	}
	rounds := 0
	cfg.OnRestartComplete = func(dt.ChannelID) { rounds++ }
	run(t, cfg, func(t *testing.T, m *channelmonitor.Monitor, mgr *fakeManager) {
		see(m, dt.SendDataError, dt.Ongoing)
		time.Sleep(time.Minute)
		synctest.Wait()
		n, _ := mgr.counts()
		require.Equal(t, 1, n)
		require.Equal(t, 2, calls)
		require.Equal(t, 1, rounds)
	})
}

func TestR10Config(t *testing.T) {
	require.Panics(t, func() { channelmonitor.NewMonitor(nil, &channelmonitor.Config{}) })
	require.NotPanics(t, func() {
		m := channelmonitor.NewMonitor(nil, nil)
		m.AddPushChannel(chid)
		m.Observe(dt.Event{Code: dt.Error}, state{})
		m.Shutdown()
	})
	require.ErrorContains(t, (&channelmonitor.Config{MaxConsecutiveRestarts: 1, AcceptTimeout: -1}).Check(), ">= 0")
}
