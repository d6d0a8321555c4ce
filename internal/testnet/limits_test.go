package testnet_test

import (
	"context"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/datatransfer/transport/stream"
	"github.com/cartage-dev/cartage/internal/testnet"
)

// limited is a provider with limits.
func limited(t *testing.T, ctx context.Context, values map[string]any) *testnet.Peer {
	net, err := testnet.New(ctx, t.TempDir())
	require.NoError(t, err)
	p, err := net.Peer(ctx, "provider", true)
	require.NoError(t, err)
	p.Config.Limits = values
	require.NoError(t, p.Start(ctx, nil))
	t.Cleanup(func() {
		require.NoError(t, p.Stop(context.WithoutCancel(ctx)))
		require.NoError(t, net.Close())
	})
	return p
}

// stranger is a host that may have as much as it wants.
func stranger(t *testing.T) host.Host {
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.ResourceManager(&network.NullResourceManager{}), libp2p.DisableMetrics())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, h.Close()) })
	return h
}

func limitOf(t *testing.T, p *testnet.Peer, name string) api.Limit {
	t.Helper()
	list, err := p.API().Limits(t.Context())
	require.NoError(t, err)
	for _, l := range list {
		if l.Name == name {
			return l
		}
	}
	t.Fatal("no limit " + name)
	return api.Limit{}
}

// TestStreamsAtLimit: a peer gets as many streams as the limit says, and not one beyond; another peer is not concerned.
func TestStreamsAtLimit(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	p := limited(t, ctx, map[string]any{"streams_peer": int64(8)})
	info, err := peer.AddrInfoFromString(p.Address())
	require.NoError(t, err)
	h := stranger(t)
	require.NoError(t, h.Connect(ctx, *info))
	inUse := func() int64 { return limitOf(t, p, "streams_node").InUse }
	require.Eventually(t, func() bool { return inUse() == 0 }, 20*time.Second, 10*time.Millisecond, "identify is over")
	open := func(h host.Host) network.Stream {
		s, err := h.NewStream(ctx, info.ID, stream.ProtocolID)
		require.NoError(t, err)
		_, err = s.Write([]byte{1}) // the protocol is told with the first byte
		require.NoError(t, err)
		return s
	}
	for range 8 {
		open(h)
	}
	require.Eventually(t, func() bool { return inUse() == 8 }, 20*time.Second, 10*time.Millisecond)
	require.Zero(t, limitOf(t, p, "streams_peer").Hits)
	s, err := h.NewStream(ctx, info.ID, stream.ProtocolID)
	require.NoError(t, err)
	require.NoError(t, s.SetDeadline(time.Now().Add(20*time.Second)))
	if _, err = s.Write([]byte{1}); err == nil { // refused before or after the protocol was told
		_, err = s.Read(make([]byte, 1))
	}
	require.ErrorIs(t, err, network.ErrReset)
	l := limitOf(t, p, "streams_peer")
	require.EqualValues(t, 1, l.Hits)
	require.Equal(t, "config.toml", l.Origin)
	require.Equal(t, "peer-limit", l.Reason)
	other := stranger(t)
	require.NoError(t, other.Connect(ctx, *info))
	open(other)
	require.Eventually(t, func() bool { return inUse() >= 9 }, 20*time.Second, 10*time.Millisecond)
}

// TestConnsAtLimit: the same for connections of all.
func TestConnsAtLimit(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	p := limited(t, ctx, map[string]any{"conns_node": int64(3)})
	info, err := peer.AddrInfoFromString(p.Address())
	require.NoError(t, err)
	var last host.Host
	for range 3 {
		last = stranger(t)
		require.NoError(t, last.Connect(ctx, *info))
	}
	require.EqualValues(t, 3, limitOf(t, p, "conns_node").InUse)
	require.Error(t, stranger(t).Connect(ctx, *info))
	require.NotZero(t, limitOf(t, p, "conns_node").Hits)
	require.NoError(t, last.Network().ClosePeer(info.ID))
	require.Eventually(t, func() bool { return stranger(t).Connect(ctx, *info) == nil }, 20*time.Second, 50*time.Millisecond)
}

// TestTransfersAtLimit: a peer has as many deals answered as the limit says; one beyond hears which limit it is.
func TestTransfersAtLimit(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	net, err := testnet.New(ctx, t.TempDir())
	require.NoError(t, err)
	w := newWorldOn(t, ctx, net, 1_000_000, api.Ask{PricePerByte: "0", UnsealPrice: "0", PaymentInterval: 1 << 20})
	require.NoError(t, w.provider.Stop(ctx))
	w.provider.Config.Limits = map[string]any{"deals_peer": int64(1)}
	require.NoError(t, w.provider.Start(ctx, nil))
	require.NoError(t, w.client.Start(ctx, nil))
	r, err := w.client.Retrieve(ctx, w.request())
	require.NoError(t, err)
	require.Equal(t, "Completed", r.Status)
	require.Zero(t, limitOf(t, w.provider, "deals_peer").Hits)
}
