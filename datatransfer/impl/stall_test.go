package impl_test

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/impl"
	"github.com/cartage-dev/cartage/datatransfer/message"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/internal/port"
	"github.com/cartage-dev/cartage/shared"
)

// tab is a validator that meters a channel with a limit, as the market does: what was paid and one interval.
type tab struct {
	testutil.Validator
	interval uint64
	manager  dt.Manager // of the sender

	mu    sync.Mutex
	paid  uint64
	taken []string
	asked func() // in the middle of a demand
}

func (a *tab) limit() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.paid > math.MaxUint64-a.interval {
		return math.MaxUint64
	}
	return a.paid + a.interval
}

func (a *tab) queued(chid dt.ChannelID) uint64 {
	s, err := a.manager.ChannelState(context.Background(), chid)
	if err != nil {
		return 0
	}
	return s.Queued()
}

// Limit implements datatransfer.Limiter.
func (a *tab) Limit(dt.ChannelID) (uint64, bool) { return a.limit(), true }

// Revalidate takes a voucher that says how many bytes are paid.
func (a *tab) Revalidate(chid dt.ChannelID, v dt.Voucher) (dt.VoucherResult, error) {
	var bytes uint64
	if _, err := fmt.Sscanf(v.(*testutil.FakeDTType).Data, "pay %d", &bytes); err != nil {
		return testutil.NewFakeDTType("refused"), err
	}
	a.mu.Lock()
	a.paid = max(a.paid, bytes)
	a.taken = append(a.taken, v.(*testutil.FakeDTType).Data)
	a.mu.Unlock()
	if a.queued(chid) >= a.limit() {
		return testutil.NewFakeDTType("partial"), dt.ErrPause
	}
	return testutil.NewFakeDTType("paid"), dt.ErrResume
}

// OnPullDataSent asks for a payment at the limit.
func (a *tab) OnPullDataSent(chid dt.ChannelID, _ uint64) (bool, dt.VoucherResult, error) {
	if a.queued(chid) < a.limit() {
		return true, nil, nil
	}
	a.mu.Lock()
	asked := a.asked
	a.mu.Unlock()
	if asked != nil {
		asked()
	}
	return true, testutil.NewFakeDTType("pay"), dt.ErrPause
}

// OnPushDataReceived implements datatransfer.Revalidator.
func (a *tab) OnPushDataReceived(dt.ChannelID, uint64) (bool, dt.VoucherResult, error) {
	return true, nil, nil
}

// OnComplete implements datatransfer.Revalidator.
func (a *tab) OnComplete(dt.ChannelID) (bool, dt.VoucherResult, error) {
	return true, testutil.NewFakeDTType("done"), nil
}

func newMeteredTrade(t *testing.T, leaves, size int, interval uint64) (*trade, *tab) {
	t.Helper()
	acc := &tab{interval: interval}
	d := newTrade(t, true, leaves, size, acc, acc)
	acc.manager = d.b.Manager
	return d, acc
}

// holding makes a store wait at the n-th block that it is to write, or to read.
func holding(on func(func(cid.Cid)), n int) (reached chan struct{}, release func()) {
	reached, released := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	count := 0
	on(func(cid.Cid) {
		mu.Lock()
		count++
		at := count
		mu.Unlock()
		if at == n {
			close(reached)
		}
		if at >= n {
			<-released
		}
	})
	return reached, sync.OnceFunc(func() { close(released) })
}

// reconnect breaks the connection of a trade and makes another, when both sides have seen the first one break.
func (d *trade) reconnect(t *testing.T, between func()) {
	t.Helper()
	require.NoError(t, d.a.Host.Network().ClosePeer(d.b.Host.ID()))
	lost := func(e []dt.EventCode) bool { return has(dt.Disconnected, 1)(e) || has(dt.ReceiveDataError, 1)(e) }
	require.True(t, d.ta.until(20*time.Second, lost) && d.tb.until(20*time.Second, lost))
	between()
	require.Eventually(t, func() bool { // both may dial at once
		return d.a.Host.Connect(d.ctx, peer.AddrInfo{ID: d.b.Host.ID(), Addrs: d.b.Host.Addrs()}) == nil
	}, 10*time.Second, 10*time.Millisecond)
}

// restartUntil restarts a channel until the other side reads for it: as the channel monitor does, because a request may be lost with the connection
// before.
func (d *trade) restartUntil(t *testing.T, chid dt.ChannelID, reading <-chan struct{}) {
	t.Helper()
	for {
		require.NoError(t, d.a.Manager.RestartDataTransferChannel(d.ctx, chid))
		select {
		case <-reading:
			return
		case <-d.ctx.Done():
			require.NoError(t, d.ctx.Err(), "the restart never came")
		case <-time.After(2 * time.Second):
		}
	}
}

// TestLostBlocksGoOutWhateverIsOwed: a provider has counted blocks up to its limit as sent, and the client lost the last of them. It
// restarts and sends its voucher for what it has while the provider still reads the root: the answer is "partial". What was lost has to come
// all the same, or both sides wait: one for blocks, the other for the payment of blocks that never arrived.
func TestLostBlocksGoOutWhateverIsOwed(t *testing.T) { testutil.EachDecision(t, lostBlocksGoOut) }

func lostBlocksGoOut(t *testing.T) {
	d, _ := newMeteredTrade(t, 40, 1024, 12<<10)
	chid := d.open(t)
	d.tb.saw(t, dt.PauseResponder, 1) // at its limit
	d.ta.saw(t, dt.PauseResponder, 1)
	limit := must(d.b.Manager.ChannelState(d.ctx, chid)).Queued()
	require.Eventually(t, func() bool { // a pause is heard before the blocks that came with it are taken: what is counted later is no loss
		return must(d.a.Manager.ChannelState(d.ctx, chid)).Received() == limit
	}, 20*time.Second, time.Millisecond, "everything that was counted as sent arrives")
	d.reconnect(t, func() {
		d.a.Store.ForgetFrom(7, d.b.Store)
		require.NoError(t, d.a.Manager.(port.Manager).Reposition(d.ctx, chid, d.a.Store.Bytes(), 8))
	})
	require.Less(t, must(d.a.Manager.ChannelState(d.ctx, chid)).Received(), limit, "the client has lost the last blocks")

	reading, goOn := holding(d.b.Store.OnRead, 1)
	defer goOn()
	d.restartUntil(t, chid, reading)
	d.ta.saw(t, dt.Restart, 1)
	has := must(d.a.Manager.ChannelState(d.ctx, chid)).Received()
	require.NoError(t, d.a.Manager.SendVoucher(d.ctx, chid, testutil.NewFakeDTType(fmt.Sprintf("pay %d", min(has, limit-12<<10)))))
	d.tb.saw(t, dt.PauseResponder, 2) // partial
	time.Sleep(20 * time.Millisecond) // the pause that there was for it
	goOn()
	require.Eventually(t, func() bool {
		return must(d.a.Manager.ChannelState(d.ctx, chid)).Received() >= limit
	}, 10*time.Second, 5*time.Millisecond, "the blocks that were lost never come")
	require.Equal(t, limit, must(d.b.Manager.ChannelState(d.ctx, chid)).Queued(), "nothing new goes out unpaid")
	require.NoError(t, d.a.Manager.SendVoucher(d.ctx, chid, testutil.NewFakeDTType(fmt.Sprintf("pay %d", d.total))))
	d.completed(t)
}

// lastly is a tab whose last payment is waited for.
type lastly struct{ *tab }

// OnComplete implements datatransfer.Revalidator.
func (a lastly) OnComplete(chid dt.ChannelID) (bool, dt.VoucherResult, error) {
	a.mu.Lock()
	paid := a.paid
	a.mu.Unlock()
	if a.queued(chid) > paid {
		return true, testutil.NewFakeDTType("last"), dt.ErrPause
	}
	return true, testutil.NewFakeDTType("done"), nil
}

// TestBlocksLostAfterTheEnd: a recipient has counted everything, and its store lost the last blocks in a power loss while the sender waits for its last
// payment. A restart has to ask for them: nobody pays for blocks that are not there.
func TestBlocksLostAfterTheEnd(t *testing.T) {
	testutil.EachDecision(t, func(t *testing.T) {
		acc := lastly{&tab{interval: 1 << 20}}
		d := newTrade(t, true, 20, 1024, acc, acc)
		acc.manager = d.b.Manager
		chid := d.open(t)
		d.tb.saw(t, dt.BeginFinalizing, 1)
		d.ta.saw(t, dt.FinishTransfer, 1)
		d.reconnect(t, func() {
			d.a.Store.ForgetFrom(7, d.b.Store)
			require.NoError(t, d.a.Manager.(port.Manager).Reposition(d.ctx, chid, d.a.Store.Bytes(), 8))
		})
		reading, goOn := holding(d.b.Store.OnRead, 1)
		goOn()
		d.restartUntil(t, chid, reading)
		require.Eventually(t, func() bool {
			return must(d.a.Manager.ChannelState(d.ctx, chid)).Received() == d.total
		}, 20*time.Second, 5*time.Millisecond, "what was lost never comes")
		require.NoError(t, d.a.Manager.SendVoucher(d.ctx, chid, testutil.NewFakeDTType(fmt.Sprintf("pay %d", d.total))))
		d.completed(t)
	})
}

// protecting calls back when a connection is protected, which is in the middle of an acceptance.
type protecting struct {
	*testutil.FakeNetwork
	mu sync.Mutex
	do func()
}

func (p *protecting) Protect(id peer.ID, tag string) {
	p.FakeNetwork.Protect(id, tag)
	p.mu.Lock()
	do := p.do
	p.do = nil
	p.mu.Unlock()
	if do != nil {
		do()
	}
}

// TestPaymentWhileARestartIsAccepted: a voucher that comes between the decision that a restarted channel stays paused and the record of it
// lets the channel go on: nobody would resume it any more.
func TestPaymentWhileARestartIsAccepted(t *testing.T) {
	net := &protecting{FakeNetwork: testutil.NewFakeNetwork(us)}
	transport := testutil.NewFakeTransport()
	m, err := impl.NewDataTransfer(dssync.MutexWrap(datastore.NewMapDatastore()), net, transport)
	require.NoError(t, err)
	acc := &tab{interval: 1000, manager: m}
	require.NoError(t, m.RegisterVoucherType(testutil.NewFakeDTType(""), acc))
	require.NoError(t, m.RegisterRevalidator(testutil.NewFakeDTType(""), acc))
	require.NoError(t, m.RegisterVoucherResultType(testutil.NewFakeDTType("")))
	require.NoError(t, testutil.StartAndWaitForReady(t.Context(), m))
	defer func() { require.NoError(t, m.Stop(context.Background())) }()
	h, ok := transport.EventHandler().(port.Handler)
	require.True(t, ok)
	root, _, err := testutil.NewMemStore().BuildDAG(3, 10, 1)
	require.NoError(t, err)
	request := func(restart bool) dt.Request {
		return must(message.NewRequest(1, restart, true, "FakeDTType", testutil.NewFakeDTType("v"), root, shared.AllSelector()))
	}
	chid := dt.ChannelID{Initiator: them, Responder: us, ID: 1}
	_, err = h.OnRequestReceived(chid, request(false))
	require.NoError(t, err)
	_, err = h.OnDataQueued(chid, cidlink.Link{Cid: root}, 1000, 1, true)
	require.ErrorIs(t, err, dt.ErrPause)
	may, say := h.MaySend(chid, 2, 0)
	require.Equal(t, port.ReleaseLater, may)
	require.Empty(t, say, "the demand went with the block")

	net.mu.Lock()
	net.do = func() {
		_, err := h.OnRequestReceived(chid, must(message.VoucherRequest(1, "FakeDTType", testutil.NewFakeDTType("pay 1000"))))
		require.NoError(t, err)
	}
	net.mu.Unlock()
	resp, err := h.OnDataRequest(chid, request(true), 1)
	require.NoError(t, err)
	require.True(t, resp.Accepted())
	require.False(t, resp.IsPaused(), "it is paid")
	may, _ = h.MaySend(chid, 2, 0)
	require.Equal(t, port.ReleaseNow, may)
	require.Equal(t, dt.Ongoing, must(m.ChannelState(t.Context(), chid)).Status())
}

// TestResumeAfterTheResponderCompleted: a recipient whose store is slow pauses when everything has left already and the responder has completed and let
// go of the channel. What it has not taken comes when it goes on.
func TestResumeAfterTheResponderCompleted(t *testing.T) {
	testutil.EachDecision(t, func(t *testing.T) {
		d := newTrade(t, true, 40, 1024, nil, nil)
		writing, goOn := holding(d.a.Store.OnWrite, 5)
		defer goOn()
		chid := d.open(t)
		<-writing
		d.tb.wait(t) // the responder
		require.NoError(t, d.a.Manager.PauseDataTransferChannel(d.ctx, chid))
		time.Sleep(20 * time.Millisecond) // for the exchange to hear of it: where it does so later, all that came is taken
		goOn()
		require.NoError(t, d.a.Manager.ResumeDataTransferChannel(d.ctx, chid))
		require.Equal(t, dt.Completed, d.ta.wait(t).Status())
		require.Equal(t, d.blocks, d.a.Store.Len())
	})
}
