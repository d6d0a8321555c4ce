package shared_test

import (
	"context"
	"errors"
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
	net watched
	at  []time.Time
}

func (u *unreachable) Network() network.Network { return &u.net }

// watched keeps who wants to hear of connections.
type watched struct {
	network.Network
	mu sync.Mutex
	by []network.Notifiee
}

func (w *watched) Notify(n network.Notifiee)   { w.set([]network.Notifiee{n}) }
func (w *watched) StopNotify(network.Notifiee) { w.set(nil) }

func (w *watched) set(by []network.Notifiee) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.by = by
}

// connected tells of a connection.
func (w *watched) connected(to peer.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.by {
		n.Connected(w, connTo{peer: to})
	}
}

func (u *unreachable) NewStream(context.Context, peer.ID, ...protocol.ID) (network.Stream, error) {
	u.at = append(u.at, time.Now())
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

type connTo struct {
	network.Conn
	peer peer.ID
}

func (c connTo) RemotePeer() peer.ID { return c.peer }

// TestRetryStreamPeerIsBack: a pause is over when the peer has connected, not when another one has.
func TestRetryStreamPeerIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &unreachable{}
		r := shared.RetryStream{Min: time.Hour, Max: time.Hour, Attempts: 2}
		for after, who := range map[time.Duration]peer.ID{time.Second: "another", 2 * time.Second: "peer"} {
			time.AfterFunc(after, func() { u.net.connected(who) })
		}
		_, err := r.Open(t.Context(), u, "peer", "/p")
		require.ErrorContains(t, err, "not reachable")
		require.Len(t, u.at, 2)
		require.Equal(t, 2*time.Second, u.at[1].Sub(u.at[0]))
		require.Empty(t, u.net.by)
	})
}

// TestRetryStreamEnded: who is stopping makes no other attempt, whatever the context of the call allows.
func TestRetryStreamEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, ended := &unreachable{}, make(chan struct{})
		r := shared.RetryStream{Min: time.Hour, Max: time.Hour, Attempts: 5, Ended: ended}
		time.AfterFunc(time.Second, func() { close(ended) })
		_, err := r.Open(t.Context(), u, "peer", "/p")
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorContains(t, err, "not reachable")
		require.Len(t, u.at, 1)
	})
}
