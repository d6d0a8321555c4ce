package network_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/message"
	"github.com/cartage-dev/cartage/datatransfer/network"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inbox notes what arrives.
type inbox struct {
	mu    sync.Mutex
	got   []string
	gone  []peer.ID
	tell  chan struct{}
	panic bool
}

func newInbox() *inbox { return &inbox{tell: make(chan struct{}, 100)} }

func (i *inbox) note(s string) {
	i.mu.Lock()
	i.got = append(i.got, s)
	i.mu.Unlock()
	i.tell <- struct{}{}
	if i.panic {
		panic("user code")
	}
}

func (i *inbox) ReceiveRequest(_ context.Context, _ peer.ID, r dt.Request) {
	i.note("request " + map[bool]string{true: "new", false: "other"}[r.IsNew()])
}
func (i *inbox) ReceiveResponse(context.Context, peer.ID, dt.Response) { i.note("response") }
func (i *inbox) ReceiveRestartExistingChannelRequest(context.Context, peer.ID, dt.Request) {
	i.note("restart")
}
func (i *inbox) ReceiveError(error) { i.note("error") }
func (i *inbox) PeerDisconnected(p peer.ID) {
	i.mu.Lock()
	i.gone = append(i.gone, p)
	i.mu.Unlock()
	i.note("gone")
}

func (i *inbox) wait(t *testing.T, n int) []string {
	t.Helper()
	for range n {
		select {
		case <-i.tell:
		case <-time.After(10 * time.Second):
			t.Fatal("nothing arrived")
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return append([]string(nil), i.got...)
}

func hosts(t *testing.T) (a, b host.Host) {
	for _, h := range []*host.Host{&a, &b} {
		made, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay(), libp2p.DisableMetrics())
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, made.Close()) })
		*h = made
	}
	require.NoError(t, a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()}))
	return a, b
}

// TestMessages: each kind of message reaches its own method.
func TestMessages(t *testing.T) {
	a, b := hosts(t)
	from, to := network.NewFromLibp2pHost(a), network.NewFromLibp2pHost(b)
	in := newInbox()
	to.SetDelegate(in)
	defer to.SetDelegate(nil)
	require.NoError(t, from.SendMessage(t.Context(), b.ID(), message.CancelRequest(1)))
	require.Equal(t, []string{"request other"}, in.wait(t, 1))
	require.NoError(t, from.SendMessage(t.Context(), b.ID(), message.CancelResponse(1)))
	require.NoError(t, from.SendMessage(t.Context(), b.ID(), message.RestartExistingChannelRequest(dt.ChannelID{Initiator: a.ID(), Responder: b.ID(), ID: 1})))
	require.ElementsMatch(t, []string{"request other", "response", "restart"}, in.wait(t, 2))
	p, err := from.Protocol(t.Context(), b.ID())
	require.NoError(t, err)
	require.Equal(t, dt.ProtocolDataTransfer1_2, p)
}

// TestGarbage: what is no message is refused, told once, and does not end the node; later messages still arrive.
func TestGarbage(t *testing.T) {
	a, b := hosts(t)
	from, to := network.NewFromLibp2pHost(a), network.NewFromLibp2pHost(b)
	in := newInbox()
	to.SetDelegate(in)
	defer to.SetDelegate(nil)
	for _, bad := range []string{"not cbor at all", "\xa1\x63abc\x01", strings.Repeat("\x81", 5000), "\x5b\xff\xff\xff\xff\xff\xff\xff\xff"} {
		s, err := a.NewStream(t.Context(), b.ID(), dt.ProtocolDataTransfer1_2)
		require.NoError(t, err)
		_, _ = io.WriteString(s, bad) // the reset may come before its end
		_ = s.CloseWrite()
		_, _ = io.ReadAll(s)
		_ = s.Close()
	}
	require.NoError(t, from.SendMessage(t.Context(), b.ID(), message.CancelResponse(1)))
	require.Eventually(t, func() bool {
		in.mu.Lock()
		defer in.mu.Unlock()
		return len(in.got) > 0 && in.got[len(in.got)-1] == "response"
	}, 10*time.Second, time.Millisecond)
}

// TestPanicInDelegate: a panic of what handles a message ends that stream and nothing else.
func TestPanicInDelegate(t *testing.T) {
	a, b := hosts(t)
	from, to := network.NewFromLibp2pHost(a), network.NewFromLibp2pHost(b)
	in := newInbox()
	in.panic = true
	to.SetDelegate(in)
	defer to.SetDelegate(nil)
	for range 2 {
		_ = from.SendMessage(t.Context(), b.ID(), message.CancelResponse(1)) // the reset may come before its end
		in.wait(t, 1)
	}
}

// TestR100Disconnect: the last connection to a peer going away is told.
func TestR100Disconnect(t *testing.T) {
	a, b := hosts(t)
	to := network.NewFromLibp2pHost(b)
	in := newInbox()
	to.SetDelegate(in)
	defer to.SetDelegate(nil)
	require.NoError(t, a.Network().ClosePeer(b.ID()))
	require.Equal(t, []string{"gone"}, in.wait(t, 1))
	require.Equal(t, []peer.ID{a.ID()}, in.gone)
}

// TestUnreachable: the number of attempts is kept, and a context that ends says so.
func TestUnreachable(t *testing.T) {
	a, b := hosts(t)
	n := network.NewFromLibp2pHost(a, network.RetryParameters(time.Millisecond, 10*time.Millisecond, 3, 2))
	err := n.SendMessage(t.Context(), b.ID(), message.CancelRequest(1))
	require.ErrorContains(t, err, "exhausted 3 attempts")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = n.SendMessage(ctx, b.ID(), message.CancelRequest(1))
	require.ErrorContains(t, err, "canceled by context")
	require.True(t, errors.Is(err, context.Canceled), "%v", err)
	other := network.NewFromLibp2pHost(b, network.DataTransferProtocols([]protocol.ID{"/other/1.0.0"}))
	other.SetDelegate(newInbox())
	defer other.SetDelegate(nil)
	require.Error(t, n.SendMessage(t.Context(), b.ID(), message.CancelRequest(1)))
}
