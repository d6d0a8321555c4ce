package router_test

import (
	"context"
	"errors"
	"testing"

	"github.com/ipld/go-ipld-prime"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/transport/router"
	"github.com/cartage-dev/cartage/internal/port"
)

var errNotSpoken = errors.New("protocols not supported")

// opener is a transport of which only the opening of channels is used.
type opener struct {
	port.Transport
	err    error
	opened int
}

// OpenChannel implements datatransfer.Transport.
func (o *opener) OpenChannel(context.Context, peer.ID, dt.ChannelID, ipld.Link, ipld.Node, dt.ChannelState, dt.Message) error {
	o.opened++
	return o.err
}

// Opening implements router.Fast.
func (o *opener) Opening(dt.ChannelID) bool { return false }

// NotSpoken implements router.Fast.
func (o *opener) NotSpoken(err error) bool { return errors.Is(err, errNotSpoken) }

type running struct{ dt.ChannelState }

// TestPeerAwayForMoment: a peer that could not be reached once is served over the fast transport when it is back; one that refused it is not.
func TestPeerAwayForMoment(t *testing.T) {
	fast, slow := &opener{err: errors.New("connection refused")}, &opener{}
	r := router.New(func(peer.ID) bool { return true })
	r.Join(fast, slow)
	open := func(state dt.ChannelState) error {
		return r.OpenChannel(t.Context(), "provider", dt.ChannelID{}, nil, nil, state, nil)
	}
	require.Error(t, open(running{}), "a channel that goes on is tried again later")
	require.Zero(t, slow.opened)
	require.NoError(t, open(nil), "a new one has the other transport")
	require.Equal(t, 1, slow.opened)
	fast.err = nil
	require.NoError(t, open(running{}))
	require.Equal(t, []int{3, 1}, []int{fast.opened, slow.opened})

	fast.err = errNotSpoken
	require.NoError(t, open(running{}))
	require.NoError(t, open(running{}))
	require.Equal(t, []int{4, 3}, []int{fast.opened, slow.opened})
}
