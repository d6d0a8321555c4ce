package testnet_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/node"
	"github.com/cartage-dev/cartage/internal/reason"
)

// TestListen: a port has one node, and an address that this node cannot serve is refused with its text: nothing is left out in silence.
func TestListen(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	first := openHome(t, ctx)
	taken, takenUDP := first.Host.Addrs()[0].String(), first.Host.Addrs()[1].String()
	for addr, why := range map[string]reason.Reason{
		taken: reason.PortBusy,
		"/ip4/127.0.0.1/udp/0/quic-v1/webtransport": reason.ConfigValue,
		"/ip4/127.0.0.1/tcp/0/tls/ws":               reason.ConfigValue,
		"/dns4/localhost/tcp/0":                     reason.ConfigValue,
		takenUDP:                                    reason.PortBusy,
		taken + "/ws":                               reason.PortBusy,
		"/ip4/127.0.0.1/udp/0":                      reason.ConfigValue,
		"127.0.0.1:7110":                            reason.ConfigValue,
		"/ip4/127.0.0.1/tcp/0/p2p/12D3K":            reason.ConfigValue,
	} {
		h := config.Home{Dir: filepath.Join(t.TempDir(), "home")}
		_, err := node.Init(h, node.InitOptions{})
		require.NoError(t, err)
		n, err := node.Open(ctx, h, node.Options{Listen: []string{"/ip4/127.0.0.1/tcp/0", addr}})
		if err == nil {
			err = errors.Join(errors.New("it was opened"), n.Close(ctx))
		}
		require.ErrorIs(t, err, why, addr)
		require.ErrorContains(t, err, addr)
	}
}

func openHome(t *testing.T, ctx context.Context) *node.Opened {
	h := config.Home{Dir: filepath.Join(t.TempDir(), "home")}
	_, err := node.Init(h, node.InitOptions{})
	require.NoError(t, err)
	n, err := node.Open(ctx, h, node.Options{Listen: []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close(context.WithoutCancel(ctx))) })
	return n
}

// TestTransports: a deal runs over each transport that is served, and a peer that comes over it meets the limits.
func TestTransports(t *testing.T) {
	for name, addr := range map[string]string{"quic": "/ip4/127.0.0.1/udp/0/quic-v1", "websocket": "/ip4/127.0.0.1/tcp/0/ws"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1_000_000, paid)
			require.NoError(t, w.client.Start(w.ctx, nil))
			require.NoError(t, w.provider.Stop(w.ctx))
			w.provider.Listen = []string{addr}
			w.provider.Config.Limits = map[string]any{"conns_node": int64(2)}
			require.NoError(t, w.provider.Start(w.ctx, nil))
			at := w.provider.Node.Addresses()
			require.Len(t, at, 1)
			require.Contains(t, at[0], strings.TrimPrefix(addr[strings.LastIndex(addr, "/"):], "/"))
			req := w.request()
			req.Provider = at[0]
			r, err := w.client.Retrieve(w.ctx, req)
			require.NoError(t, err)
			require.True(t, r.OK, "%s %s", r.Status, r.Message)
			require.Equal(t, w.bytes, r.Bytes)

			info, err := peer.AddrInfoFromString(at[0])
			require.NoError(t, err)
			require.NoError(t, stranger(t).Connect(w.ctx, *info))
			require.Error(t, stranger(t).Connect(w.ctx, *info))
			require.NotZero(t, limitOf(t, w.provider, "conns_node").Hits)
		})
	}
}
