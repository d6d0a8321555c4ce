package testnet_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

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
	taken := first.Host.Addrs()[0].String()
	for addr, why := range map[string]reason.Reason{
		taken:                            reason.PortBusy,
		"/ip4/127.0.0.1/udp/0/quic-v1":   reason.ConfigValue,
		"/ip4/127.0.0.1/tcp/0/ws":        reason.ConfigValue,
		"/ip4/127.0.0.1/udp/0":           reason.ConfigValue,
		"127.0.0.1:7110":                 reason.ConfigValue,
		"/ip4/127.0.0.1/tcp/0/p2p/12D3K": reason.ConfigValue,
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
	n, err := node.Open(ctx, h, node.Options{Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close(context.WithoutCancel(ctx))) })
	return n
}
