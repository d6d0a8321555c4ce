package graphsync_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	mocknet "github.com/libp2p/go-libp2p/p2p/net/mock"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/shared"
)

// TestResumeOfASlowStore: a recipient pauses while its store takes minutes for a block, and resumes. It goes on when the store has done with it.
func TestResumeOfASlowStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, net := t.Context(), mocknet.New()
		peers := make([]*testutil.Peer, 2)
		for i := range peers {
			h, err := net.GenPeer()
			require.NoError(t, err)
			peers[i], err = testutil.PeerConfig{On: h}.Start(ctx)
			require.NoError(t, err)
			require.NoError(t, peers[i].Manager.RegisterVoucherType(testutil.NewFakeDTType(""), &testutil.Validator{}))
		}
		a, b := peers[0], peers[1]
		require.NoError(t, net.LinkAll())
		_, err := net.ConnectPeers(a.Host.ID(), b.Host.ID())
		require.NoError(t, err)
		defer func() {
			ctx := context.WithoutCancel(ctx)
			require.NoError(t, a.Close(ctx))
			require.NoError(t, b.Close(ctx))
			require.NoError(t, net.Close())
		}()
		ended := make(chan dt.Status, 1)
		a.Manager.SubscribeToEvents(func(e dt.Event, s dt.ChannelState) {
			if e.Code == dt.CleanupComplete {
				ended <- s.Status()
			}
		})
		root, _, err := b.Store.BuildDAG(6, 1000, 1)
		require.NoError(t, err)
		writing, goOn := make(chan struct{}), make(chan struct{})
		var once sync.Once
		a.Store.OnWrite(func(cid.Cid) {
			once.Do(func() { close(writing) })
			<-goOn
		})
		chid, err := a.Manager.OpenPullDataChannel(ctx, b.Host.ID(), testutil.NewFakeDTType("v"), root, shared.AllSelector())
		require.NoError(t, err)
		<-writing
		require.NoError(t, a.Manager.PauseDataTransferChannel(ctx, chid))
		require.NoError(t, a.Manager.ResumeDataTransferChannel(ctx, chid))
		time.Sleep(3 * time.Minute)
		close(goOn)
		synctest.Wait()
		select {
		case s := <-ended:
			require.Equal(t, dt.Statuses[dt.Completed], dt.Statuses[s])
		case <-time.After(10 * time.Minute):
			t.Fatal("the resume was lost")
		}
		require.Equal(t, 7, a.Store.Len())
	})
}
