package impl_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagjson"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/channelmonitor"
	"github.com/cartage-dev/cartage/datatransfer/impl"
	"github.com/cartage-dev/cartage/datatransfer/message"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/datatransfer/transport/graphsync/extension"
	"github.com/cartage-dev/cartage/shared"
)

// The tests of this file carry the numbers of section 9 of the data-transfer specification. Elsewhere are 1 (message), 2
// (sequences_test.go, fakes_test.go), 7 (crash_test.go), 8 and 16 (channels), 13 (network) and 18 (module interop).

// TestChecklist03: a pull with five payments and a final one; each message with a result is one event.
func TestChecklist03(t *testing.T) {
	d := newTrade(t, true, 27, 1024, nil, &testutil.Meter{Every: 5 << 10, Last: true})
	d.pay("payment")
	d.open(t)
	d.completed(t)
	require.Equal(t, 1+5+1, len(d.ta.state().Vouchers()))
	// A demand and an answer for each payment.
	require.Equal(t, 2*(5+1), d.tb.count(dt.NewVoucherResult))
	// An answer and the next demand may leave in one graphsync message, where the later one stands in the place of both
	// (section 2.6). No message is taken twice.
	got := d.ta.count(dt.NewVoucherResult)
	require.LessOrEqual(t, got, 2*(5+1))
	require.GreaterOrEqual(t, got, 5+1)
	require.Len(t, d.ta.state().VoucherResults(), got)
}

// TestChecklist04: the answer to a voucher comes before the pause has taken effect, ten thousand times. The voucher is on
// its way as soon as the demand is made, in the thread that makes it.
func TestChecklist04(t *testing.T) {
	n := 10_000
	if testing.Short() {
		n = 1000
	}
	e := &eager{voucher: testutil.NewFakeDTType("payment")}
	d := newTrade(t, true, n, 40, nil, e)
	e.manager = d.a.Manager
	d.open(t)
	require.True(t, d.ta.goesOn(30*time.Second, has(dt.CleanupComplete, 1)), "a resume was lost, or a voucher was not sent: %v", e.unsent())
	d.completed(t)
	require.NoError(t, e.unsent())
	require.Equal(t, n+1, e.demands)
	require.Equal(t, 1+n+1, len(d.tb.state().Vouchers()))
}

// eager pays a demand before it is out.
type eager struct {
	testutil.Meter
	manager dt.Manager
	voucher *testutil.FakeDTType
	demands int
	wait    sync.WaitGroup

	mu     sync.Mutex
	failed error // of the first voucher that was not sent
}

func (e *eager) unsent() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.failed
}

func (e *eager) pay(chid dt.ChannelID) {
	err := e.manager.SendVoucher(context.Background(), chid, e.voucher)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failed == nil {
		e.failed = err
	}
}

func (e *eager) OnPullDataSent(chid dt.ChannelID, _ uint64) (bool, dt.VoucherResult, error) {
	e.demands++
	e.wait.Wait()
	e.wait.Go(func() { e.pay(chid) })
	return true, testutil.NewFakeDTType("pay"), dt.ErrPause
}

func (e *eager) OnComplete(dt.ChannelID) (bool, dt.VoucherResult, error) {
	e.wait.Wait()
	return true, nil, nil
}

// TestChecklist05: another root, another selector, a push inside a graphsync request, and a pull in the wrong direction are ended
// without data, and nothing is stored.
func TestChecklist05(t *testing.T) {
	d := newTrade(t, true, 20, 1024, nil, nil)
	r := newRawPeer(d.ctx, t, d.b)
	other, _, err := d.b.Store.BuildDAG(5, 100, 99)
	require.NoError(t, err)
	all, one := shared.AllSelector(), matcher(t)
	request := func(id dt.TransferID, restart, pull bool) dt.Request {
		m, err := message.NewRequest(id, restart, pull, "FakeDTType", testutil.NewFakeDTType("v"), d.root, all)
		require.NoError(t, err)
		return m
	}
	answer, err := message.NewResponse(5, true, false, "", nil)
	require.NoError(t, err)
	for name, id := range map[string]graphsync.RequestID{
		"root":              r.ask(other, all, request(1, false, true), 0),
		"selector":          r.ask(d.root, one, request(2, false, true), 0),
		"push in graphsync": r.ask(d.root, all, request(3, false, false), 0),
		"restart":           r.ask(d.root, all, request(4, true, true), 0),
		"wrong direction":   r.ask(d.root, all, answer, 0),
		"update":            r.ask(d.root, all, message.UpdateRequest(6, false), 0),
		"voucher":           r.ask(d.root, all, must(message.VoucherRequest(7, "FakeDTType", testutil.NewFakeDTType("v"))), 0),
	} {
		t.Run(name, func(t *testing.T) {
			r.answered(id, graphsync.RequestFailedUnknown, graphsync.RequestRejected)
		})
	}
	blocks, _ := r.got()
	require.Zero(t, blocks)
	stored, err := d.b.Manager.InProgressChannels(d.ctx)
	require.NoError(t, err)
	require.Empty(t, stored)
	require.Empty(t, d.tb.String())
	require.Empty(t, d.b.Transport.ChannelsForPeer(r.h.ID()).SendingChannels)
}

// matcher selects the root alone.
func matcher(t *testing.T) ipld.Node {
	n, err := ipld.Decode([]byte("{\".\":{}}"), dagjson.Decode)
	require.NoError(t, err)
	return n
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestChecklist06: restarts, and requests with any other message, bring an unpaid client not one byte more.
func TestChecklist06(t *testing.T) {
	d := newTrade(t, true, 40, 1024, nil, &testutil.Meter{Every: 5 << 10})
	r := newRawPeer(d.ctx, t, d.b)
	request := func(restart bool) dt.Request {
		return must(message.NewRequest(1, restart, true, "FakeDTType", testutil.NewFakeDTType("v"), d.root, shared.AllSelector()))
	}
	r.answered(r.ask(d.root, shared.AllSelector(), request(false), 0), graphsync.RequestPaused)
	blocks, bytes := r.got()
	skip := d.tb.state().QueuedCidsTotal()
	for _, m := range []dt.Message{
		request(true), message.UpdateRequest(1, false), request(true), must(message.VoucherRequest(1, "FakeDTType", testutil.NewFakeDTType("bad"))),
	} {
		r.answered(r.ask(d.root, shared.AllSelector(), m, skip), graphsync.RequestPaused, graphsync.RequestFailedUnknown)
		gotBlocks, gotBytes := r.got()
		require.Equal(t, blocks, gotBlocks)
		require.Equal(t, bytes, gotBytes)
	}
}

// TestVoucherInAnUpdate: a voucher that comes as an update of a paused graphsync request is taken on graphsync's own loop. It lets the response go
// on, and holds up nobody.
func TestVoucherInAnUpdate(t *testing.T) {
	d := newTrade(t, true, 50, 1024, nil, &testutil.Meter{Every: 5 << 10})
	r := newRawPeer(d.ctx, t, d.b)
	request := func(id dt.TransferID) dt.Request {
		return must(message.NewRequest(id, false, true, "FakeDTType", testutil.NewFakeDTType("v"), d.root, shared.AllSelector()))
	}
	first := r.ask(d.root, shared.AllSelector(), request(1), 0)
	r.answered(first, graphsync.RequestPaused)
	blocks, _ := r.got()
	exts, err := extension.ToExtensionData(must(message.VoucherRequest(1, "FakeDTType", testutil.NewFakeDTType("good"))), []graphsync.ExtensionName{extension.ExtensionDataTransfer1_1})
	require.NoError(t, err)
	r.send(gsmsg.NewUpdateRequest(first, exts...))
	require.Eventually(t, func() bool {
		more, _ := r.got()
		return more > blocks
	}, 20*time.Second, time.Millisecond)
	r.answered(r.ask(d.root, shared.AllSelector(), request(2), 0), graphsync.RequestPaused)
}

// TestW41SkippedBlocksCount: what a client says it has is neither sent nor paid; asked for later, it counts.
func TestW41SkippedBlocksCount(t *testing.T) {
	d := newTrade(t, true, 50, 1024, nil, &testutil.Meter{Every: 5 << 10})
	r := newRawPeer(d.ctx, t, d.b)
	request := func(restart bool) dt.Request {
		return must(message.NewRequest(1, restart, true, "FakeDTType", testutil.NewFakeDTType("v"), d.root, shared.AllSelector()))
	}
	reached, open := d.gate(50) // the last but one: a request that is cancelled in its last read ends well
	first := r.ask(d.root, shared.AllSelector(), request(false), 47)
	<-reached
	require.True(t, d.tb.until(10*time.Second, has(dt.DataQueued, 2)))
	require.Eventually(t, func() bool { // what is counted and still queued inside graphsync is lost by the cancel
		n, _ := r.got()
		return n == 2
	}, 10*time.Second, time.Millisecond)
	r.send(gsmsg.NewCancelRequest(first))
	// What is answered after the cancel shows that the cancel has come: only then may the last block be read.
	r.answered(r.ask(d.root, shared.AllSelector(), message.UpdateRequest(99, false), 0), graphsync.RequestFailedUnknown, graphsync.RequestRejected)
	open()
	now := func() uint64 { // subscribers hear of it a little later
		return must(d.b.Manager.ChannelState(d.ctx, dt.ChannelID{Initiator: r.h.ID(), Responder: d.b.Host.ID(), ID: 1})).Queued()
	}
	queued := now()
	r.answered(r.ask(d.root, shared.AllSelector(), request(true), 0), graphsync.RequestPaused)
	_, bytes := r.got()
	require.Equal(t, uint64(bytes), now())
	require.Greater(t, now(), queued)
	require.Less(t, now(), uint64(8<<10))
}

// TestRestartBesideTheOldResponse: a restart that comes while the response before it has not ended gets what that one has sent, or was asked to leave
// out: messages of it may be lost. The peer gives its requests no keys.
func TestRestartBesideTheOldResponse(t *testing.T) {
	d := newTrade(t, true, 50, 1024, nil, &testutil.Meter{Every: 5 << 10})
	r := newRawPeer(d.ctx, t, d.b)
	request := func(restart bool) dt.Request {
		return must(message.NewRequest(1, restart, true, "FakeDTType", testutil.NewFakeDTType("v"), d.root, shared.AllSelector()))
	}
	reached, goOn := make(chan struct{}), make(chan struct{})
	var reads atomic.Int32
	d.b.Store.OnRead(func(cid.Cid) {
		if reads.Add(1) == 50 { // one of the first request
			close(reached)
			<-goOn
		}
	})
	defer close(goOn)
	r.ask(d.root, shared.AllSelector(), request(false), 47)
	<-reached
	r.answered(r.ask(d.root, shared.AllSelector(), request(true), 0), graphsync.RequestPaused, graphsync.RequestCompletedFull)
	root, err := d.b.Store.Get(d.root)
	require.NoError(t, err)
	_, bytes := r.got()
	require.GreaterOrEqual(t, bytes, len(root)+3<<10, "it begins with the root")
	require.Equal(t, dt.ResponderPaused, d.tb.state().Status(), "at its first demand")
}

// TestChecklist09: a thousand refused requests leave nothing: no memory of the transport, no channel, no goroutine, no span.
func TestChecklist09(t *testing.T) {
	d := newTrade(t, true, 1, 100, &testutil.Validator{Pull: accepts("no", dt.ErrRejected), Push: accepts("no", dt.ErrRejected)}, nil)
	r := newRawPeer(d.ctx, t, d.b)
	refuse := func(id dt.TransferID) {
		m := must(message.NewRequest(id, false, true, "FakeDTType", testutil.NewFakeDTType("v"), d.root, shared.AllSelector()))
		r.answered(r.ask(d.root, shared.AllSelector(), m, 0), graphsync.RequestFailedUnknown, graphsync.RequestRejected)
	}
	refuse(1)
	before := runtime.NumGoroutine()
	for id := dt.TransferID(2); id <= 1000; id++ {
		refuse(id)
	}
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+5 }, 10*time.Second, 10*time.Millisecond)
	require.Empty(t, d.b.Transport.ChannelsForPeer(r.h.ID()).SendingChannels)
	stored, err := d.b.Manager.InProgressChannels(d.ctx)
	require.NoError(t, err)
	require.Empty(t, stored)
}

// TestChecklist10: OnComplete that refuses, nil errors, unregistered types and empty lists do not panic.
func TestChecklist10(t *testing.T) {
	t.Run("OnComplete refuses", func(t *testing.T) {
		r := testutil.NewStubbedRevalidator()
		r.ExpectComplete(testutil.NewFakeDTType("no"), errors.New("not paid"))
		d := newTrade(t, true, 5, 100, nil, r)
		d.open(t)
		require.Equal(t, dt.Failed, d.ta.wait(t).Status())
		require.Equal(t, "response rejected", d.ta.state().Message())
		require.Equal(t, dt.Failed, d.tb.wait(t).Status())
		require.Equal(t, "not paid", d.tb.state().Message())
		r.VerifyExpectations(t)
	})
	t.Run("nil errors", func(t *testing.T) {
		f := newFaked(t)
		chid := f.pull(t)
		h := f.transport.EventHandler()
		for _, call := range []func(dt.ChannelID, error) error{h.OnRequestCancelled, h.OnRequestDisconnected, h.OnSendDataError, h.OnReceiveDataError} {
			require.NoError(t, call(chid, nil))
		}
		closer := f.manager.(interface {
			CloseDataTransferChannelWithError(context.Context, dt.ChannelID, error) error
		})
		require.NoError(t, closer.CloseDataTransferChannelWithError(t.Context(), chid, nil))
		require.Equal(t, "unknown error", f.trace.wait(t).Message())
	})
	t.Run("unregistered types and empty lists", func(t *testing.T) {
		ds := dssync.MutexWrap(datastore.NewMapDatastore())
		f := fakedOn(t, ds)
		chid := f.pull(t)
		s, err := f.manager.ChannelState(t.Context(), chid)
		require.NoError(t, err)
		require.Nil(t, s.LastVoucherResult())
		require.Empty(t, s.VoucherResults())
		f.stop(t)
		bare := fakedWith(t, ds, func(dt.Manager) {}) // nothing registered
		s, err = bare.manager.ChannelState(t.Context(), chid)
		require.NoError(t, err)
		require.Nil(t, s.Voucher())
		require.Nil(t, s.LastVoucher())
		require.Empty(t, s.Vouchers())
		require.Error(t, bare.manager.RestartDataTransferChannel(t.Context(), chid))
	})
	t.Run("validator panics", func(t *testing.T) {
		d := newTrade(t, true, 5, 100, &testutil.Validator{Pull: func(bool, dt.ChannelID, dt.Voucher) (dt.VoucherResult, error) { panic("user code") }}, nil)
		d.open(t)
		require.Equal(t, dt.Failed, d.ta.wait(t).Status())
	})
}

// TestChecklist11: a cancel after completion keeps Completed, and FinishTransfer in Completing is ignored.
func TestChecklist11(t *testing.T) {
	d := newTrade(t, true, 5, 100, nil, nil)
	chid := d.open(t)
	d.completed(t)
	for _, m := range []dt.Manager{d.a.Manager, d.b.Manager} {
		require.NoError(t, m.CloseDataTransferChannel(d.ctx, chid))
		require.Equal(t, dt.Completed, m.TransferChannelStatus(d.ctx, chid))
	}
	f := newFaked(t)
	held := make(chan struct{})
	entered := make(chan struct{})
	f.trace.on = func(e dt.EventCode, _ dt.ChannelState) {
		if e == dt.ResponderCompletes {
			close(entered)
			<-held
		}
	}
	id := f.pull(t)
	h := f.transport.EventHandler()
	require.NoError(t, h.OnResponseReceived(id, must(message.NewResponse(id.ID, true, false, "", nil))))
	require.NoError(t, h.OnChannelCompleted(id, nil))
	require.NoError(t, h.OnResponseReceived(id, must(message.CompleteResponse(id.ID, true, false, "", nil))))
	<-entered // in Completing, cleanup has not begun
	_ = h.OnChannelCompleted(id, nil)
	_ = h.OnResponseReceived(id, message.CancelResponse(id.ID))
	close(held)
	require.Equal(t, dt.Completed, f.trace.wait(t).Status())
	require.Zero(t, f.trace.count(dt.Cancel))
}

// TestChecklist12: the accept timer does not end a channel that goes on after a restart of the process, and stopping leaves no
// goroutine of the monitor.
func TestChecklist12(t *testing.T) {
	ds := dssync.MutexWrap(datastore.NewMapDatastore())
	cfg := channelmonitor.Config{AcceptTimeout: 300 * time.Millisecond, MaxConsecutiveRestarts: 3, RestartDebounce: time.Millisecond}
	f := fakedOn(t, ds, impl.ChannelRestartConfig(cfg))
	chid := f.pull(t)
	require.NoError(t, f.transport.EventHandler().OnResponseReceived(chid, must(message.NewResponse(chid.ID, true, false, "", nil))))
	f.stop(t)
	g := fakedOn(t, ds, impl.ChannelRestartConfig(cfg))
	require.NoError(t, g.manager.RestartDataTransferChannel(t.Context(), chid))
	require.NoError(t, g.transport.EventHandler().OnResponseReceived(chid, must(message.RestartResponse(chid.ID, true, false, "", nil))))
	time.Sleep(2 * cfg.AcceptTimeout)
	require.Equal(t, dt.Ongoing, g.manager.TransferChannelStatus(t.Context(), chid))
	g.stop(t)
}

// TestAFirstRequestMayBeLost: without an error, as a restart may. It is made again until it is answered.
func TestAFirstRequestMayBeLost(t *testing.T) {
	f := fakedOn(t, dssync.MutexWrap(datastore.NewMapDatastore()),
		impl.ChannelRestartConfig(channelmonitor.Config{RestartAckTimeout: 20 * time.Millisecond, RestartDebounce: time.Millisecond, MaxConsecutiveRestarts: 100}))
	chid := f.pull(t)
	require.Eventually(t, func() bool { return len(f.transport.OpenedChannels()) > 2 }, 20*time.Second, time.Millisecond)
	require.NoError(t, f.transport.EventHandler().OnResponseReceived(chid, must(message.NewResponse(chid.ID, true, false, "", nil))))
	require.Equal(t, dt.Ongoing, f.manager.TransferChannelStatus(t.Context(), chid))
}

// TestChecklist14: a subscriber may send vouchers, close channels and unsubscribe, all in the call that tells it.
func TestChecklist14(t *testing.T) {
	d := newTrade(t, true, 20, 1024, nil, &testutil.Meter{Every: 5 << 10})
	heard := 0
	var unsubscribe dt.Unsubscribe
	unsubscribe = d.a.Manager.SubscribeToEvents(func(e dt.Event, s dt.ChannelState) {
		heard++
		if heard == 3 {
			unsubscribe()
			unsubscribe()
		}
	})
	errs := make(chan error, 100)
	d.a.Manager.SubscribeToEvents(func(e dt.Event, s dt.ChannelState) {
		if e.Code != dt.PauseResponder {
			return
		}
		if len(s.Vouchers()) < 3 {
			errs <- d.a.Manager.SendVoucher(d.ctx, s.ChannelID(), testutil.NewFakeDTType("payment"))
			return
		}
		errs <- d.a.Manager.CloseDataTransferChannel(d.ctx, s.ChannelID())
	})
	d.open(t)
	require.Equal(t, dt.Cancelled, d.ta.wait(t).Status())
	require.Equal(t, dt.Cancelled, d.tb.wait(t).Status())
	require.Equal(t, 3, heard)
	require.Len(t, errs, 3)
	for range 3 {
		require.NoError(t, <-errs)
	}
}

// TestChecklist15: a pull and a push whose recipient has everything already.
func TestChecklist15(t *testing.T) {
	for _, pull := range []bool{true, false} {
		t.Run(fmt.Sprintf("pull %v", pull), func(t *testing.T) {
			d := newTrade(t, pull, 20, 1024, nil, nil)
			allLocal(t, d)
			require.Zero(t, d.ta.state().Queued())
		})
	}
}

// TestChecklist17: after all this nothing runs any more; TestMain of each package and the race detector look at the others.
func TestChecklist17(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	t.Run("work", func(t *testing.T) {
		d := newTrade(t, true, 20, 1024, nil, &testutil.Meter{Every: 5 << 10})
		d.open(t) // ends in the middle, unpaid
		d.ta.saw(t, dt.PauseResponder, 1)
	})
	require.NoError(t, goleak.Find(ignore))
}
