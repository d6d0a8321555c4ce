package impl_test

import (
	"context"
	"sync"
	"testing"
	"time"

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
	done   chan struct{}
	pay    func(e dt.EventCode, s dt.ChannelState)
}

func follow(m dt.Manager) *trace {
	t := &trace{done: make(chan struct{})}
	m.SubscribeToEvents(func(e dt.Event, s dt.ChannelState) {
		t.mu.Lock()
		t.events = append(t.events, e.Code)
		t.last = s
		pay := t.pay
		t.mu.Unlock()
		if pay != nil {
			pay(e.Code, s)
		}
		if e.Code == dt.CleanupComplete {
			close(t.done)
		}
	})
	return t
}

func (t *trace) wait(tb testing.TB) {
	tb.Helper()
	select {
	case <-t.done:
	case <-time.After(20 * time.Second):
		t.mu.Lock()
		defer t.mu.Unlock()
		names := []string{}
		for _, e := range t.events {
			names = append(names, dt.Events[e])
		}
		tb.Fatalf("channel did not end: %v %s", names, dt.Statuses[t.last.Status()])
	}
}

// lifecycle leaves out the events of single blocks.
func (t *trace) lifecycle() (out []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.events {
		switch e {
		case dt.DataQueued, dt.DataQueuedProgress, dt.DataSent, dt.DataSentProgress, dt.DataReceived, dt.DataReceivedProgress:
		default:
			out = append(out, dt.Events[e])
		}
	}
	return out
}

func pair(t *testing.T) (ctx context.Context, a, b *testutil.Peer) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	a, err := testutil.NewPeer(ctx, nil)
	require.NoError(t, err)
	b, err = testutil.NewPeer(ctx, nil)
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

func payer(ctx context.Context, t *testing.T, m dt.Manager, tr *trace) {
	tr.pay = func(e dt.EventCode, s dt.ChannelState) {
		if e == dt.NewVoucherResult {
			if r, ok := s.LastVoucherResult().(*testutil.FakeDTType); ok && (r.Data == "pay" || r.Data == "last") {
				go func() { _ = m.SendVoucher(ctx, s.ChannelID(), testutil.NewFakeDTType("payment")) }()
			}
		}
	}
}

func TestPullSequences(t *testing.T) {
	for name, tc := range map[string]struct {
		meter    *testutil.Meter
		validate func(bool, dt.ChannelID, dt.Voucher) (dt.VoucherResult, error)
		payments int
		status   dt.Status
	}{
		"free":           {status: dt.Completed},
		"paid":           {meter: &testutil.Meter{Every: 5000}, payments: 4, status: dt.Completed},
		"paid with last": {meter: &testutil.Meter{Every: 6000, Last: true}, payments: 4, status: dt.Completed},
		"rejected": {validate: func(bool, dt.ChannelID, dt.Voucher) (dt.VoucherResult, error) {
			return testutil.NewFakeDTType("no"), dt.ErrRejected
		}, status: dt.Failed},
		"result on acceptance": {validate: func(bool, dt.ChannelID, dt.Voucher) (dt.VoucherResult, error) {
			return testutil.NewFakeDTType("yes"), nil
		}, status: dt.Completed},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, a, b := pair(t)
			root, total, err := b.Store.BuildDAG(20, 1024, 7)
			require.NoError(t, err)
			require.NoError(t, b.Manager.RegisterVoucherType(testutil.NewFakeDTType(""), &testutil.Validator{Pull: tc.validate}))
			require.NoError(t, a.Manager.RegisterVoucherType(testutil.NewFakeDTType(""), nil))
			if tc.meter != nil {
				require.NoError(t, b.Manager.RegisterRevalidator(testutil.NewFakeDTType(""), tc.meter))
			}
			ta, tb := follow(a.Manager), follow(b.Manager)
			payer(ctx, t, a.Manager, ta)
			chid, err := a.Manager.OpenPullDataChannel(ctx, b.Host.ID(), testutil.NewFakeDTType("open"), root, shared.AllSelector())
			require.NoError(t, err)
			ta.wait(t)
			require.Equal(t, tc.status, ta.last.Status(), ta.last.Message())
			if tc.status != dt.Completed {
				require.Empty(t, tb.lifecycle())
				return
			}
			tb.wait(t)
			require.Equal(t, dt.Completed, tb.last.Status())
			require.Equal(t, total, ta.last.Received())
			require.Equal(t, total, tb.last.Queued())
			require.Equal(t, 21, a.Store.Len())
			require.Len(t, ta.last.Vouchers(), 1+tc.payments)
			t.Log("initiator", ta.lifecycle())
			t.Log("responder", tb.lifecycle())
			s, err := a.Manager.ChannelState(ctx, chid)
			require.NoError(t, err)
			require.Equal(t, dt.Completed, s.Status())
		})
	}
}
