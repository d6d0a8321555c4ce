package impl_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/channelmonitor"
	"github.com/cartage-dev/cartage/datatransfer/impl"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/internal/faults"
	"github.com/cartage-dev/cartage/shared"
)

// till is a revalidator whose account survives the process, as that of an application would: what was paid is durable, what
// was sent is what the channel says after a restart.
type till struct {
	mu         sync.Mutex
	every      uint64
	sent, paid uint64
	demands    int
}

func (m *till) reopen(counted uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sent = counted
}

func (m *till) Revalidate(dt.ChannelID, dt.Voucher) (dt.VoucherResult, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.paid = max(m.paid, m.sent)
	return testutil.NewFakeDTType("paid"), dt.ErrResume
}

func (m *till) count(n uint64) (bool, dt.VoucherResult, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sent += n; m.sent >= m.paid+m.every {
		m.demands++
		return true, testutil.NewFakeDTType("pay"), dt.ErrPause
	}
	return true, nil, nil
}

func (m *till) OnPullDataSent(_ dt.ChannelID, n uint64) (bool, dt.VoucherResult, error) {
	return m.count(n)
}

func (m *till) OnPushDataReceived(_ dt.ChannelID, n uint64) (bool, dt.VoucherResult, error) {
	return m.count(n)
}

func (m *till) OnComplete(dt.ChannelID) (bool, dt.VoucherResult, error) { return true, nil, nil }

// mortal refuses connections from the crash on: a host takes a moment to close, a process does not.
type mortal struct{ sw *faults.Switch }

func (m mortal) InterceptPeerDial(peer.ID) bool                      { return !m.sw.Crashed() }
func (m mortal) InterceptAddrDial(peer.ID, multiaddr.Multiaddr) bool { return !m.sw.Crashed() }
func (m mortal) InterceptAccept(network.ConnMultiaddrs) bool         { return !m.sw.Crashed() }
func (m mortal) InterceptSecured(network.Direction, peer.ID, network.ConnMultiaddrs) bool {
	return !m.sw.Crashed()
}
func (m mortal) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) {
	return !m.sw.Crashed(), 0
}

// member is a side that can die and come back.
type member struct {
	t    *testing.T
	cfg  testutil.PeerConfig
	base datastore.Batching
	mu   sync.Mutex
	peer *testutil.Peer
	log  []string
}

// history is what a member saw, over all its lives.
func (m *member) history() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.log, " ")
}

func (m *member) note(e dt.Event, s dt.ChannelState) {
	if blockEvent(e.Code) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log = append(m.log, fmt.Sprintf("%d:%s", s.TransferID()%1000, dt.Events[e.Code]))
}

func newMember(t *testing.T, prepare func(*member, dt.Manager), opts ...impl.DataTransferOption) *member {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	require.NoError(t, err)
	m := &member{t: t, base: dssync.MutexWrap(datastore.NewMapDatastore())}
	m.cfg = testutil.PeerConfig{Stream: testutil.OverStreams(t), Later: testutil.DecidesLater(t), Key: key, Store: testutil.NewMemStore(), Options: opts, Prepare: func(mgr dt.Manager) {
		mgr.SubscribeToEvents(m.note)
		prepare(m, mgr)
	}}
	return m
}

// start starts the process; with a switch it dies at one of its writes.
func (m *member) start(ctx context.Context, sw *faults.Switch) error {
	if sw == nil {
		sw = &faults.Switch{}
	}
	m.cfg.Datastore = faults.Store{Batching: m.base, Switch: sw}
	m.cfg.Host = []libp2p.Option{libp2p.ConnectionGater(mortal{sw})}
	p, err := m.cfg.Start(ctx)
	m.mu.Lock()
	m.peer = p
	m.mu.Unlock()
	if sw.Crashed() { // while it started
		m.stop()
	}
	return err
}

func (m *member) stop() {
	m.mu.Lock()
	p := m.peer
	m.peer = nil
	m.log = append(m.log, "|")
	m.mu.Unlock()
	if p != nil {
		_ = p.Host.Close() // first of all nothing leaves any more
		_ = p.Close(context.Background())
	}
}

func (m *member) now() *testutil.Peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.peer
}

// crashRun is one trade in which one side dies at one write.
type crashRun struct {
	t     *testing.T
	ctx   context.Context
	pull  bool
	a, b  *member
	till  *till
	root  cid.Cid
	total uint64
	chid  dt.ChannelID
}

const crashLeaves = 24

func newCrashRun(t *testing.T, pull bool, every uint64) *crashRun {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	r := &crashRun{t: t, ctx: ctx, pull: pull, till: &till{every: every}}
	monitor := impl.ChannelRestartConfig(channelmonitor.Config{RestartDebounce: 5 * time.Millisecond, MaxConsecutiveRestarts: 20})
	r.a = newMember(t, func(m *member, mgr dt.Manager) {
		_ = mgr.RegisterVoucherType(testutil.NewFakeDTType(""), nil)
		_ = mgr.RegisterVoucherResultType(testutil.NewFakeDTType(""))
		mgr.SubscribeToEvents(func(e dt.Event, s dt.ChannelState) {
			if e.Code == dt.PauseResponder {
				go func() { _ = mgr.SendVoucher(ctx, s.ChannelID(), testutil.NewFakeDTType("payment")) }()
			}
		})
	}, monitor)
	r.b = newMember(t, func(m *member, mgr dt.Manager) {
		_ = mgr.RegisterVoucherType(testutil.NewFakeDTType(""), &testutil.Validator{})
		_ = mgr.RegisterRevalidator(testutil.NewFakeDTType(""), r.till)
		_ = mgr.RegisterVoucherResultType(testutil.NewFakeDTType(""))
	})
	sender := r.a
	if pull {
		sender = r.b
	}
	var err error
	r.root, r.total, err = sender.cfg.Store.BuildDAG(crashLeaves, 1024, 3)
	require.NoError(t, err)
	t.Cleanup(func() { r.a.stop(); r.b.stop() })
	return r
}

func (r *crashRun) connect() {
	err := errors.New("not tried")
	for i := 0; i < 200 && err != nil; i++ { // an attempt may meet a listener on its way out
		ctx, cancel := context.WithTimeout(network.WithForceDirectDial(r.ctx, "no pause"), time.Second)
		pair := [2]*testutil.Peer{r.a.now(), r.b.now()} // a dial that hangs is shared by all who dial from that side
		err = pair[i%2].Host.Connect(ctx, *host.InfoFromHost(pair[1-i%2].Host))
		cancel()
		time.Sleep(time.Duration(i) * time.Millisecond)
	}
	require.NoError(r.t, err)
}

func (r *crashRun) open() error {
	a, b := r.a.now(), r.b.now()
	if a == nil || b == nil {
		return errors.New("crashed")
	}
	f := a.Manager.OpenPushDataChannel
	if r.pull {
		f = a.Manager.OpenPullDataChannel
	}
	chid, err := f(r.ctx, b.Host.ID(), testutil.NewFakeDTType("open"), r.root, shared.AllSelector())
	if err == nil {
		r.chid = chid
	}
	return err
}

// counters are those of both sides, as the stores have them.
func (r *crashRun) counters() (out [2]uint64) {
	for i, m := range []*member{r.a, r.b} {
		if p := m.now(); p != nil && r.chid.ID != 0 {
			if s, err := p.Manager.ChannelState(r.ctx, r.chid); err == nil {
				out[i] = s.Queued() + s.Received()
			}
		}
	}
	return out
}

func (r *crashRun) status(m *member) dt.Status {
	if p := m.now(); p != nil && r.chid.ID != 0 {
		return p.Manager.TransferChannelStatus(r.ctx, r.chid)
	}
	return dt.ChannelNotFoundError
}

// finish brings the trade to its end after a crash: a channel that was never stored on both sides is opened anew, any other one
// goes on where it was.
func (r *crashRun) finish() {
	for tries := 0; ; tries++ {
		require.Less(r.t, tries, 40, "initiator %s %s\nresponder %s %s", dt.Statuses[r.status(r.a)], r.a.history(), dt.Statuses[r.status(r.b)], r.b.history())
		i, p := r.status(r.a), r.status(r.b)
		if i == dt.Completed && p == dt.Completed {
			return
		}
		switch i {
		case dt.Failed, dt.Cancelled, dt.ChannelNotFoundError:
			s, err := r.a.now().Manager.ChannelState(r.ctx, r.chid)
			require.True(r.t, err != nil || s.Received()+s.Sent() == 0, "a channel on which data moved must not be lost: %s\n%s\n%s", message1(s), r.a.history(), r.b.history())
			r.till.reopen(0)
			require.NoError(r.t, r.open())
		default:
			_ = r.a.now().Manager.RestartDataTransferChannel(r.ctx, r.chid)
		}
		if r.settled() {
			return
		}
	}
}

// settled waits for the end, or until nothing has happened for a while: who restarts a channel that is about to end loses what
// is on its way to it.
func (r *crashRun) settled() bool {
	last, quiet := 0, 0
	for quiet < 25 {
		time.Sleep(10 * time.Millisecond)
		if r.status(r.a) == dt.Completed && r.status(r.b) == dt.Completed {
			return true
		}
		n := len(r.a.history()) + len(r.b.history()) + int(r.counters()[0]+r.counters()[1])
		if quiet++; n != last {
			last, quiet = n, 0
		}
	}
	return false
}

func message1(s dt.ChannelState) string {
	if s == nil {
		return ""
	}
	return s.Message()
}

// run trades with a crash of one side at a write, and reports how many writes there were and whether it came to the crash.
func (r *crashRun) run(victim *member, at int) (writes int, crashed bool) {
	died := make(chan struct{})
	sw := &faults.Switch{At: at}
	sw.OnCrash = func() {
		victim.stop()
		close(died)
	}
	for _, m := range []*member{r.a, r.b} {
		if m == victim {
			_ = m.start(r.ctx, sw)
		} else {
			require.NoError(r.t, m.start(r.ctx, nil))
		}
	}
	if !sw.Crashed() {
		r.connect2()
		_ = r.open()
	}
	for range 3000 {
		if sw.Crashed() || r.status(r.a) == dt.Completed && r.status(r.b) == dt.Completed {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	time.Sleep(5 * time.Millisecond) // writes that follow the last event
	if !sw.Crashed() {
		return sw.Count(), false
	}
	<-died
	require.NoError(r.t, victim.start(r.ctx, nil))
	before := r.counters()
	if victim == r.b {
		r.till.reopen(before[1])
	}
	r.connect()
	if !r.settled() { // the monitor of an initiator that lives restarts by itself
		r.finish()
	}
	after := r.counters()
	for side := range after {
		require.GreaterOrEqual(r.t, after[side], min(before[side], r.total), "counters are monotone")
		require.LessOrEqual(r.t, after[side], r.total, "no byte counts twice")
	}
	recipient := r.a
	if !r.pull {
		recipient = r.b
	}
	require.Equal(r.t, crashLeaves+1, recipient.cfg.Store.Len(), "no block is missing")
	require.LessOrEqual(r.t, r.till.paid, r.total, "nothing is charged twice")
	return at, true
}

func (r *crashRun) connect2() {
	if a, b := r.a.now(), r.b.now(); a != nil && b != nil {
		_ = testutil.Connect(r.ctx, a, b)
	}
}

// TestChecklist07 is number 7 of the checklist, and the crash test of the data transfer: each side dies at each of its writes
// during a pull with three payments and a push with one, and comes back.
func TestChecklist07(t *testing.T) { testutil.EachDecision(t, checklist07) }

func checklist07(t *testing.T) {
	step := 1
	if testing.Short() {
		step = 5
	}
	for _, tc := range []struct {
		name  string
		pull  bool
		every uint64
	}{{"pull with three payments", true, 7 << 10}, {"push with one payment", false, 15 << 10}} {
		for _, side := range []string{"initiator", "responder"} {
			t.Run(tc.name+"/"+side, func(t *testing.T) {
				t.Parallel()
				points := 0
				for at := 1; ; at += step {
					r := newCrashRun(t, tc.pull, tc.every)
					victim := r.a
					if side == "responder" {
						victim = r.b
					}
					_, crashed := r.run(victim, at)
					r.a.stop()
					r.b.stop()
					if t.Failed() {
						t.Fatalf("crash at write %d", at)
					}
					if !crashed {
						break
					}
					points++
				}
				t.Logf("%d crash points", points)
				require.Greater(t, points, 5/step)
			})
		}
	}
}
