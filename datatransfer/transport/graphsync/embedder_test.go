package graphsync_test

import (
	"context"
	"testing"
	"time"

	exchange "github.com/ipfs/go-graphsync"
	gsimpl "github.com/ipfs/go-graphsync/impl"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/message"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/datatransfer/transport/graphsync"
	"github.com/cartage-dev/cartage/datatransfer/transport/graphsync/extension"
	"github.com/cartage-dev/cartage/shared"
)

// requester is a peer of ours that pulls, and the events of its one channel.
func requester(t *testing.T) (ctx context.Context, a *testutil.Peer, events chan dt.Event) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	a, err := testutil.NewPeer(ctx, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close(context.WithoutCancel(ctx))) })
	require.NoError(t, a.Manager.RegisterVoucherType(testutil.NewFakeDTType(""), &testutil.Validator{}))
	require.NoError(t, a.Manager.RegisterVoucherResultType(testutil.NewFakeDTType("")))
	events = make(chan dt.Event, 100)
	a.Manager.SubscribeToEvents(func(e dt.Event, _ dt.ChannelState) { events <- e })
	return ctx, a, events
}

// responder is a node that speaks graphsync and has no manager.
func responder(ctx context.Context, t *testing.T, a *testutil.Peer) (host.Host, exchange.GraphExchange, *testutil.MemStore) {
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay(), libp2p.DisableMetrics())
	require.NoError(t, err)
	t.Cleanup(func() { _ = h.Close() })
	store := testutil.NewMemStore()
	gctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	t.Cleanup(cancel)
	require.NoError(t, a.Host.Connect(ctx, peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}))
	return h, gsimpl.New(gctx, gsnet.NewFromLibp2pHost(h), store.LinkSystem()), store
}

func until(ctx context.Context, t *testing.T, events chan dt.Event, code dt.EventCode) dt.Event {
	t.Helper()
	for {
		if e := await(ctx, t, events); e.Code == code {
			return e
		}
	}
}

// TestMalformedResponseEndsTransfer: a graphsync response that carries what is no message of data transfer fails the channel, and says what was wrong.
func TestMalformedResponseEndsTransfer(t *testing.T) {
	ctx, a, events := requester(t)
	h, gs, store := responder(ctx, t, a)
	root, _, err := store.BuildDAG(3, 1000, 1)
	require.NoError(t, err)
	gs.RegisterIncomingRequestHook(func(_ peer.ID, _ exchange.RequestData, ha exchange.IncomingRequestHookActions) {
		ha.ValidateRequest()
		ha.SendExtensionData(exchange.ExtensionData{Name: extension.ExtensionDataTransfer1_1, Data: basicnode.NewString("nonsense")})
	})
	chid, err := a.Manager.OpenPullDataChannel(ctx, h.ID(), testutil.NewFakeDTType("v"), root, shared.AllSelector())
	require.NoError(t, err)
	e := until(ctx, t, events, dt.Error)
	require.Contains(t, e.Message, "is no message of data transfer")
	until(ctx, t, events, dt.CleanupComplete)
	require.Equal(t, dt.Statuses[dt.Failed], dt.Statuses[a.Manager.TransferChannelStatus(ctx, chid)])
}

// TestPreviousRequests: the requests of a channel before its restarts are listed, on both sides.
func TestPreviousRequests(t *testing.T) {
	ctx, a, b := two(t)
	voucher := testutil.NewFakeDTType("v")
	require.NoError(t, a.Manager.RegisterVoucherType(voucher, nil))
	require.NoError(t, b.Manager.RegisterVoucherType(voucher, &testutil.Validator{Pull: func(bool, dt.ChannelID, dt.Voucher) (dt.VoucherResult, error) {
		return nil, dt.ErrPause
	}}))
	root, _, err := b.Store.BuildDAG(3, 1000, 1)
	require.NoError(t, err)
	chid, err := a.Manager.OpenPullDataChannel(ctx, b.Host.ID(), voucher, root, shared.AllSelector())
	require.NoError(t, err)
	requests := func() (receiving, sending graphsync.ChannelGraphsyncRequests) {
		return a.Transport.ChannelsForPeer(b.Host.ID()).ReceivingChannels[chid], b.Transport.ChannelsForPeer(a.Host.ID()).SendingChannels[chid]
	}
	var first exchange.RequestID
	require.Eventually(t, func() bool {
		r, s := requests()
		first = r.Current
		return s.Current == r.Current
	}, 20*time.Second, time.Millisecond)
	require.NoError(t, a.Manager.RestartDataTransferChannel(ctx, chid))
	require.Eventually(t, func() bool {
		r, s := requests()
		return s.Current == r.Current && r.Current != first
	}, 20*time.Second, time.Millisecond)
	r, s := requests()
	require.Equal(t, []exchange.RequestID{first}, r.Previous)
	require.Equal(t, []exchange.RequestID{first}, s.Previous)
}

// plainHandler is what an embedder may give to a transport: the published interface and no more.
type plainHandler struct {
	dt.EventsHandler
	asked chan dt.Request
}

func (p plainHandler) OnRequestReceived(_ dt.ChannelID, r dt.Request) (dt.Response, error) {
	p.asked <- r
	mk := message.NewResponse
	if r.IsRestart() {
		mk = message.RestartResponse
	}
	resp, err := mk(r.TransferID(), true, true, "", nil)
	if err != nil {
		return nil, err
	}
	return resp, dt.ErrPause
}

func (plainHandler) OnContextAugment(dt.ChannelID) func(context.Context) context.Context {
	return func(ctx context.Context) context.Context { return ctx }
}

func (plainHandler) OnTransferQueued(dt.ChannelID)                   {}
func (plainHandler) OnRequestCancelled(dt.ChannelID, error) error    { return nil }
func (plainHandler) OnRequestDisconnected(dt.ChannelID, error) error { return nil }
func (plainHandler) OnSendDataError(dt.ChannelID, error) error       { return nil }

// TestResumeWhileAway: a resume of a channel whose requester is away is no error, and what it says travels with the answer to the next request.
func TestResumeWhileAway(t *testing.T) {
	ctx, a, events := requester(t)
	h, gs, store := responder(ctx, t, a)
	root, _, err := store.BuildDAG(3, 1000, 1)
	require.NoError(t, err)
	tr, handler := graphsync.NewTransport(h.ID(), gs), plainHandler{asked: make(chan dt.Request, 9)}
	require.NoError(t, tr.SetEventHandler(handler))
	t.Cleanup(func() { require.NoError(t, tr.Shutdown(context.WithoutCancel(ctx))) })
	chid, err := a.Manager.OpenPullDataChannel(ctx, h.ID(), testutil.NewFakeDTType("v"), root, shared.AllSelector())
	require.NoError(t, err)
	await(ctx, t, handler.asked)
	until(ctx, t, events, dt.PauseResponder)
	tr.PeerAway(a.Host.ID())
	said, err := message.VoucherResultResponse(chid.ID, true, true, "FakeDTType", testutil.NewFakeDTType("said while away"))
	require.NoError(t, err)
	require.NoError(t, tr.ResumeChannel(ctx, said, chid))
	require.NoError(t, a.Manager.RestartDataTransferChannel(ctx, chid))
	require.True(t, await(ctx, t, handler.asked).IsRestart())
	until(ctx, t, events, dt.NewVoucherResult)
	s, err := a.Manager.ChannelState(ctx, chid)
	require.NoError(t, err)
	require.Equal(t, testutil.NewFakeDTType("said while away"), s.LastVoucherResult())
}
