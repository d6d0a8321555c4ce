package shared_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/shared"
)

// unreachable is a host that reaches nobody, and notes when it tried.
type unreachable struct {
	host.Host
	bus event.Bus
	net connections
	at  []time.Time
	try func() // beside each attempt
}

func newUnreachable() *unreachable { return &unreachable{bus: eventbus.NewBus()} }

func (u *unreachable) EventBus() event.Bus      { return u.bus }
func (u *unreachable) Network() network.Network { return &u.net }

// connections knows one peer as connected.
type connections struct {
	network.Network
	to peer.ID
}

func (c *connections) Connectedness(id peer.ID) network.Connectedness {
	if id == c.to {
		return network.Connected
	}
	return network.NotConnected
}

func (u *unreachable) NewStream(context.Context, peer.ID, ...protocol.ID) (network.Stream, error) {
	u.at = append(u.at, time.Now())
	if u.try != nil {
		u.try()
	}
	return nil, errors.New("not reachable")
}

// TestR_T9 : each pause is the factor times the one before, up to the longest; a part of it is chance.
func TestR_T9(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUnreachable()
		r := shared.RetryStream{Min: time.Second, Max: 20 * time.Second, Attempts: 7, Factor: 3}
		_, err := r.Open(t.Context(), u, "peer", "/p")
		require.ErrorContains(t, err, "not reachable")
		require.Len(t, u.at, 7)
		want := time.Second
		for i := 1; i < len(u.at); i++ {
			pause := u.at[i].Sub(u.at[i-1])
			require.GreaterOrEqual(t, pause, want/2, "pause %d", i)
			require.LessOrEqual(t, pause, want*2, "pause %d", i)
			want = min(3*want, 20*time.Second)
		}
	})
}

// TestRetryStreamPeerIsBack: a pause is over when the peer has connected, not when another one has.
func TestRetryStreamPeerIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUnreachable()
		connected, err := u.bus.Emitter(new(event.EvtPeerConnectednessChanged))
		require.NoError(t, err)
		r := shared.RetryStream{Min: time.Hour, Max: time.Hour, Attempts: 2}
		for after, who := range map[time.Duration]peer.ID{time.Second: "another", 2 * time.Second: "peer"} {
			time.AfterFunc(after, func() {
				_ = connected.Emit(event.EvtPeerConnectednessChanged{Peer: who, Connectedness: network.Connected})
			})
		}
		_, err = r.Open(t.Context(), u, "peer", "/p")
		require.ErrorContains(t, err, "not reachable")
		require.Len(t, u.at, 2)
		require.Equal(t, 2*time.Second, u.at[1].Sub(u.at[0]))
	})
}

// TestRetryStreamPeerCame: a peer that connects during an attempt is tried again at once, one that was connected before it is not.
func TestRetryStreamPeerCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUnreachable()
		u.try = func() { u.net.to = "peer" }
		before := 0
		r := shared.RetryStream{Min: time.Hour, Max: time.Hour, Attempts: 3, Before: func() { before++ }}
		_, err := r.Open(t.Context(), u, "peer", "/p")
		require.ErrorContains(t, err, "not reachable")
		require.Len(t, u.at, 3)
		require.Equal(t, 3, before)
		require.Zero(t, u.at[1].Sub(u.at[0]))
		require.GreaterOrEqual(t, u.at[2].Sub(u.at[1]), time.Hour/2)
	})
}

// TestRetryStreamEnded: who is stopping makes no other attempt, whatever the context of the call allows.
func TestRetryStreamEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, ended := newUnreachable(), make(chan struct{})
		r := shared.RetryStream{Min: time.Hour, Max: time.Hour, Attempts: 5, Ended: ended}
		time.AfterFunc(time.Second, func() { close(ended) })
		_, err := r.Open(t.Context(), u, "peer", "/p")
		require.ErrorContains(t, err, "this side is stopping")
		require.ErrorContains(t, err, "not reachable")
		require.Len(t, u.at, 1)
	})
}
