package network_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/datatransfer/message"
	"github.com/cartage-dev/cartage/datatransfer/network"
)

// TestForgottenAddresses: a peer that shares a channel is found again although the host has forgotten where it is.
func TestForgottenAddresses(t *testing.T) {
	a, b := hosts(t)
	n, to := network.NewFromLibp2pHost(a, network.RetryParameters(1, 1, 1, 1)), network.NewFromLibp2pHost(b)
	in := newInbox()
	to.SetDelegate(in)
	defer to.SetDelegate(nil)
	n.Protect(b.ID(), "one")
	for _, reach := range []func() error{
		func() error { return n.ConnectTo(t.Context(), b.ID()) },
		func() error { return n.SendMessage(t.Context(), b.ID(), message.CancelResponse(1)) },
	} {
		require.NoError(t, a.Network().ClosePeer(b.ID()))
		a.Peerstore().ClearAddrs(b.ID())
		require.NoError(t, reach())
	}
}
