package impl_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/shared"
)

// trace notes the events of one side.
type trace struct {
	mu     sync.Mutex
	events []dt.EventCode
	last   dt.ChannelState
	more   chan struct{}
	other  *trace
	on     func(e dt.EventCode, s dt.ChannelState)
}

func follow(m dt.Manager) *trace {
	t := &trace{more: make(chan struct{})}
	m.SubscribeToEvents(func(e dt.Event, s dt.ChannelState) {
		t.mu.Lock()
		t.events = append(t.events, e.Code)
		t.last = s
		on := t.on
		close(t.more)
		t.more = make(chan struct{})
		t.mu.Unlock()
		if on != nil {
			on(e.Code, s)
		}
	})
	return t
}

// until waits until ok holds, and reports whether it came to that.
func (t *trace) until(d time.Duration, ok func(events []dt.EventCode) bool) bool {
	deadline := time.After(d)
	for {
		t.mu.Lock()
		good, more := ok(t.events), t.more
		t.mu.Unlock()
		if good {
			return true
		}
		select {
		case <-more:
		case <-deadline:
			return false
		}
	}
}

// goesOn waits until ok holds for as long as events come, and reports whether it came to that: a busy machine takes its time, a channel that
// stands still does not go on.
func (t *trace) goesOn(quiet time.Duration, ok func(events []dt.EventCode) bool) bool {
	for {
		t.mu.Lock()
		before := len(t.events)
		t.mu.Unlock()
		if t.until(quiet, func(e []dt.EventCode) bool { return ok(e) || len(e) > before }) {
			t.mu.Lock()
			good := ok(t.events)
			t.mu.Unlock()
			if good {
				return true
			}
			continue
		}
		return false
	}
}

func has(code dt.EventCode, times int) func([]dt.EventCode) bool {
	return func(events []dt.EventCode) bool {
		n := 0
		for _, e := range events {
			if e == code {
				n++
			}
		}
		return n >= times
	}
}

func (t *trace) saw(tb testing.TB, code dt.EventCode, times int) {
	tb.Helper()
	if !t.until(20*time.Second, has(code, times)) {
		tb.Fatalf("waited in vain for %s: %s; the other side: %s %+v", dt.Events[code], t, t.other, t.other.state().Message())
	}
}

func (t *trace) wait(tb testing.TB) dt.ChannelState {
	tb.Helper()
	t.saw(tb, dt.CleanupComplete, 1)
	return t.state()
}

func (t *trace) state() dt.ChannelState {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

func blockEvent(e dt.EventCode) bool {
	switch e {
	case dt.DataQueued, dt.DataQueuedProgress, dt.DataSent, dt.DataSentProgress, dt.DataReceived, dt.DataReceivedProgress:
		return true
	}
	return false
}

// String is the events without those of single blocks.
func (t *trace) String() string {
	if t == nil {
		return ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var out strings.Builder
	for _, e := range t.events {
		if !blockEvent(e) {
			out.WriteString(dt.Events[e] + " ")
		}
	}
	return out.String()
}

func (t *trace) count(code dt.EventCode) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.events {
		if e == code {
			n++
		}
	}
	return n
}

// trade is two managers over real graphsync on loopback TCP; a is the initiator, b the responder.
type trade struct {
	ctx    context.Context
	a, b   *testutil.Peer
	ta, tb *trace
	pull   bool
	root   cid.Cid
	total  uint64
	blocks int
}

func pair(t *testing.T) (ctx context.Context, a, b *testutil.Peer) {
	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Minute)
	t.Cleanup(cancel)
	a, err := testutil.PeerConfig{Stream: testutil.OverStreams(t), Later: testutil.DecidesLater(t)}.Start(ctx)
	require.NoError(t, err)
	b, err = testutil.PeerConfig{Stream: testutil.OverStreams(t), Later: testutil.DecidesLater(t)}.Start(ctx)
	require.NoError(t, err)
	require.NoError(t, testutil.Connect(ctx, a, b))
	t.Cleanup(func() {
		require.NoError(t, a.Close(context.Background()))
		require.NoError(t, b.Close(context.Background()))
	})
	for _, p := range []*testutil.Peer{a, b} {
		require.NoError(t, p.Manager.RegisterVoucherResultType(testutil.NewFakeDTType("")))
	}
	return ctx, a, b
}

// newTrade stores a list of leaves with the sender. A nil validator accepts, a nil revalidator asks for nothing.
func newTrade(t *testing.T, pull bool, leaves, size int, v dt.RequestValidator, r dt.Revalidator) *trade {
	t.Helper()
	d := &trade{pull: pull, blocks: leaves + 1}
	d.ctx, d.a, d.b = pair(t)
	if v == nil {
		v = &testutil.Validator{}
	}
	require.NoError(t, d.a.Manager.RegisterVoucherType(testutil.NewFakeDTType(""), nil))
	require.NoError(t, d.b.Manager.RegisterVoucherType(testutil.NewFakeDTType(""), v))
	if r != nil {
		require.NoError(t, d.b.Manager.RegisterRevalidator(testutil.NewFakeDTType(""), r))
	}
	var err error
	d.root, d.total, err = d.sender().Store.BuildDAG(leaves, size, 7)
	require.NoError(t, err)
	d.ta, d.tb = follow(d.a.Manager), follow(d.b.Manager)
	d.ta.other, d.tb.other = d.tb, d.ta
	return d
}

func (d *trade) sender() *testutil.Peer {
	if d.pull {
		return d.b
	}
	return d.a
}

func (d *trade) recipient() *testutil.Peer {
	if d.pull {
		return d.a
	}
	return d.b
}

func (d *trade) open(t testing.TB) dt.ChannelID {
	t.Helper()
	f := d.a.Manager.OpenPushDataChannel
	if d.pull {
		f = d.a.Manager.OpenPullDataChannel
	}
	chid, err := f(d.ctx, d.b.Host.ID(), testutil.NewFakeDTType("open"), d.root, shared.AllSelector())
	require.NoError(t, err)
	return chid
}

// pay sends a voucher for each demand of a Meter.
func (d *trade) pay(voucher string) {
	d.ta.on = func(e dt.EventCode, s dt.ChannelState) {
		if e != dt.PauseResponder {
			return
		}
		if r, ok := s.LastVoucherResult().(*testutil.FakeDTType); ok && (r.Data == "pay" || r.Data == "last") {
			_ = d.a.Manager.SendVoucher(d.ctx, s.ChannelID(), testutil.NewFakeDTType(voucher))
		}
	}
}

// gate makes the sender wait before block n until the returned function is called.
func (d *trade) gate(n int) (reached chan struct{}, open func()) {
	reached, opened := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	read := 0
	d.sender().Store.OnRead(func(cid.Cid) {
		mu.Lock()
		read++
		at := read
		mu.Unlock()
		if at == n {
			close(reached)
		}
		if at >= n {
			<-opened
		}
	})
	return reached, sync.OnceFunc(func() { close(opened) })
}

// completed checks that both sides have everything and say so.
func (d *trade) completed(t testing.TB) {
	t.Helper()
	i, r := d.ta.wait(t), d.tb.wait(t)
	require.Equal(t, dt.Completed, i.Status(), i.Message())
	require.Equal(t, dt.Completed, r.Status(), r.Message())
	require.Equal(t, d.blocks, d.recipient().Store.Len())
	from, to := r, i
	if !d.pull {
		from, to = i, r
	}
	require.Equal(t, d.total, from.Queued())
	require.Equal(t, d.total, to.Received())
}
