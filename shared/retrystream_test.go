package shared_test

import (
	"context"
	"errors"
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
	at []time.Time
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
