package shared_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/shared"
)

// unreachable is a host that reaches nobody, and notes when it tried.
type unreachable struct {
	host.Host
	net connections
	at  []time.Time
	try func() // beside each attempt
}

func (u *unreachable) Network() network.Network { return &u.net }

// connections are those of a host.
type connections struct {
	network.Network
	mu  sync.Mutex
	all []network.Conn
}

func (c *connections) add(to peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, connection{to: to, id: strconv.Itoa(len(c.all))})
}

func (c *connections) ConnsToPeer(to peer.ID) (out []network.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.all {
		if x.RemotePeer() == to {
			out = append(out, x)
		}
	}
	return out
}

type connection struct {
	network.Conn
	to peer.ID
	id string
}

func (c connection) RemotePeer() peer.ID { return c.to }
func (c connection) ID() string          { return c.id }

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
		u := &unreachable{}
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

// TestRetryStreamPeerIsBack: a pause is over when the peer has connected anew, not when another one has, nor because an old connection is there.
func TestRetryStreamPeerIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &unreachable{}
		u.net.add("peer") // dead, but nobody knows yet
		r := shared.RetryStream{Min: time.Hour, Max: time.Hour, Attempts: 2}
		time.AfterFunc(time.Second, func() { u.net.add("another") })
		time.AfterFunc(2*time.Second, func() { u.net.add("peer") })
		_, err := r.Open(t.Context(), u, "peer", "/p")
		require.ErrorContains(t, err, "not reachable")
		require.Len(t, u.at, 2)
		require.InDelta(t, 2.125, u.at[1].Sub(u.at[0]).Seconds(), 0.126)
	})
}

// TestRetryStreamPeerCame: a peer that connects during an attempt is tried again soon, one that was connected before it is not.
func TestRetryStreamPeerCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, before := &unreachable{}, 0
		u.try = sync.OnceFunc(func() { u.net.add("peer") })
		r := shared.RetryStream{Min: time.Hour, Max: time.Hour, Attempts: 3, Before: func() { before++ }}
		_, err := r.Open(t.Context(), u, "peer", "/p")
		require.ErrorContains(t, err, "not reachable")
		require.Len(t, u.at, 3)
		require.Equal(t, 3, before)
		require.Equal(t, 250*time.Millisecond, u.at[1].Sub(u.at[0]))
		require.GreaterOrEqual(t, u.at[2].Sub(u.at[1]), time.Hour/2)
	})
}

// TestRetryStreamEnded: who is stopping makes no other attempt, whatever the context of the call allows.
func TestRetryStreamEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, ended := &unreachable{}, make(chan struct{})
		r := shared.RetryStream{Min: time.Hour, Max: time.Hour, Attempts: 5, Ended: ended}
		time.AfterFunc(time.Second, func() { close(ended) })
		_, err := r.Open(t.Context(), u, "peer", "/p")
		require.ErrorContains(t, err, "this side is stopping")
		require.ErrorContains(t, err, "not reachable")
		require.Len(t, u.at, 1)
	})
}
