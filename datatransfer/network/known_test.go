package network_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/datatransfer/message"
	"github.com/cartage-dev/cartage/datatransfer/network"
)

// TestForgottenAddresses: a peer that shares a channel is found again although the host has forgotten where it is; one that shares none is not.
func TestForgottenAddresses(t *testing.T) {
	a, b := hosts(t)
	n, to := network.NewFromLibp2pHost(a, network.RetryParameters(1, 1, 1, 1)), network.NewFromLibp2pHost(b)
	in := newInbox()
	to.SetDelegate(in)
	defer to.SetDelegate(nil)
	forget := func() {
		require.NoError(t, a.Network().ClosePeer(b.ID()))
		a.Peerstore().ClearAddrs(b.ID())
	}
	n.Protect(b.ID(), "one")
	n.Protect(b.ID(), "two")
	n.Unprotect(b.ID(), "one")
	forget()
	n.Protect(b.ID(), "three") // with nothing to remember
	require.NoError(t, n.ConnectTo(t.Context(), b.ID()))
	forget()
	require.NoError(t, n.SendMessage(t.Context(), b.ID(), message.CancelResponse(1)))
	forget()
	n.Unprotect(b.ID(), "two")
	n.Unprotect(b.ID(), "three")
	require.ErrorContains(t, n.ConnectTo(t.Context(), b.ID()), "no addresses")
}
