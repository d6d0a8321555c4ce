package graphsync_test

import (
	"io"
	"sync"
	"testing"
	"time"

	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/linking"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/datatransfer/transport/graphsync"
	"github.com/cartage-dev/cartage/shared"
)

// TestSlowStore: what comes faster than the store of the recipient takes it stops the sender, and does not fill the memory.
func TestSlowStore(t *testing.T) {
	ctx, a, b := two(t)
	voucher := testutil.NewFakeDTType("v")
	for _, p := range []*testutil.Peer{a, b} {
		require.NoError(t, p.Manager.RegisterVoucherType(voucher, &testutil.Validator{}))
	}
	open := make(chan struct{})
	var once sync.Once
	t.Cleanup(func() { once.Do(func() { close(open) }) })
	require.NoError(t, a.Manager.RegisterTransportConfigurer(voucher, func(chid dt.ChannelID, _ dt.Voucher, _ dt.Transport) {
		ls := a.Store.LinkSystem()
		write := ls.StorageWriteOpener
		ls.StorageWriteOpener = func(lctx linking.LinkContext) (io.Writer, linking.BlockWriteCommitter, error) {
			w, commit, err := write(lctx)
			return w, func(l ipld.Link) error {
				<-open
				return commit(l)
			}, err
		}
		require.NoError(t, a.Transport.UseStore(chid, ls))
	}))
	ended := make(chan dt.ChannelState, 1)
	a.Manager.SubscribeToEvents(func(e dt.Event, s dt.ChannelState) {
		if e.Code == dt.CleanupComplete {
			ended <- s
		}
	})
	root, total, err := b.Store.BuildDAG(48, 1<<20, 1)
	require.NoError(t, err)
	chid, err := a.Manager.OpenPullDataChannel(ctx, b.Host.ID(), voucher, root, shared.AllSelector())
	require.NoError(t, err)
	require.Eventually(t, func() bool { return graphsync.Backlog(a.Transport) >= 8<<20 }, 20*time.Second, time.Millisecond)
	still := uint64(0)
	require.Eventually(t, func() bool { // the sender comes to a stop
		s, err := b.Manager.ChannelState(ctx, chid)
		require.NoError(t, err)
		was := still
		still = s.Queued()
		return was == still && was > 0
	}, 20*time.Second, 300*time.Millisecond)
	require.Less(t, still, total*3/4)
	require.Less(t, graphsync.Backlog(a.Transport), 13<<20)
	once.Do(func() { close(open) })
	s := await(ctx, t, ended)
	require.Equal(t, dt.Completed, s.Status(), s.Message())
	require.Equal(t, total, s.Received())
	require.Zero(t, graphsync.Backlog(a.Transport))
}
