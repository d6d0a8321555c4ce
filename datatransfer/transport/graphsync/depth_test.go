package graphsync_test

import (
	"context"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/carstore"
	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/internal/oddcars"
	"github.com/cartage-dev/cartage/internal/port"
	"github.com/cartage-dev/cartage/shared"
)

// fetchArchive pulls an archive over a transport and tells how that ended for the recipient, and what both sides allocated.
func fetchArchive(t *testing.T, stream bool, archive oddcars.Archive) (ended dt.ChannelState, used uint64, got int) {
	t.Helper()
	ctx := t.Context()
	voucher := testutil.NewFakeDTType("v")
	var peers [2]*testutil.Peer
	store := testutil.NewMemStore()
	for i := range peers {
		p, err := testutil.PeerConfig{Stream: stream}.Start(ctx)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, p.Close(context.WithoutCancel(ctx))) })
		require.NoError(t, p.Manager.RegisterVoucherType(voucher, &testutil.Validator{}))
		peers[i] = p
	}
	for i, p := range peers {
		links := carstore.Links(archive.Getter())
		if i == 0 {
			links = store.LinkSystem()
		}
		require.NoError(t, p.Manager.RegisterTransportConfigurer(voucher, func(chid dt.ChannelID, _ dt.Voucher, tr dt.Transport) {
			require.NoError(t, tr.(port.ChannelStores).UseStore(chid, links))
		}))
	}
	require.NoError(t, testutil.Connect(ctx, peers[0], peers[1]))
	end := make(chan dt.ChannelState, 1)
	peers[0].Manager.SubscribeToEvents(func(e dt.Event, s dt.ChannelState) {
		if e.Code == dt.CleanupComplete {
			end <- s
		}
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := peers[0].Manager.OpenPullDataChannel(ctx, peers[1].Host.ID(), voucher, archive.Root(), shared.AllSelector())
	require.NoError(t, err)
	s := <-end
	runtime.ReadMemStats(&after)
	return s, after.TotalAlloc - before.TotalAlloc, store.Len()
}

// TestTooDeep: what would cost the square of its depth is refused by name, on the side that fetches too.
func TestTooDeep(t *testing.T) {
	s, used, got := fetchArchive(t, false, oddcars.Chain(4000))
	require.Equal(t, dt.Statuses[dt.Failed], dt.Statuses[s.Status()])
	require.Contains(t, s.Message(), "1024 steps below its root")
	require.Less(t, got, 400)
	require.Less(t, used, uint64(400<<20))

	s, _, got = fetchArchive(t, false, oddcars.Chain(300))
	require.Equal(t, dt.Statuses[dt.Completed], dt.Statuses[s.Status()])
	require.Equal(t, 300, got)
}

// TestTooDeepForStreams: a stream carries the depth that the limit says, and nothing beyond.
func TestTooDeepForStreams(t *testing.T) {
	s, used, got := fetchArchive(t, true, oddcars.Chain(carstore.MaxDepth+1))
	require.Equal(t, dt.Statuses[dt.Completed], dt.Statuses[s.Status()], s.Message())
	require.Equal(t, carstore.MaxDepth+1, got)
	require.Less(t, used, uint64(200<<20))

	s, _, _ = fetchArchive(t, true, oddcars.Chain(carstore.MaxDepth+2))
	require.Equal(t, dt.Statuses[dt.Failed], dt.Statuses[s.Status()])
	require.Contains(t, s.Message(), "more than 4096 levels")
}

// TestFoldedOut: what is linked in more ways than anybody can go is refused by name, early.
func TestFoldedOut(t *testing.T) {
	s, used, got := fetchArchive(t, true, oddcars.Diamond(30, 8))
	require.Equal(t, dt.Statuses[dt.Failed], dt.Statuses[s.Status()], s.Message())
	require.Contains(t, s.Message(), "links lead through 31 blocks")
	require.Equal(t, 31, got)
	require.Less(t, used, uint64(1<<30))
}

// TestLargestBlock: the largest block travels; one above the limit is missing, and holds up nobody.
func TestLargestBlock(t *testing.T) {
	for _, stream := range []bool{false, true} {
		s, _, _ := fetchArchive(t, stream, oddcars.OneLarge(carstore.MaxBlock))
		require.Equal(t, dt.Statuses[dt.Completed], dt.Statuses[s.Status()], s.Message())
		s, _, got := fetchArchive(t, stream, oddcars.OneLarge(carstore.MaxBlock+1))
		require.Equal(t, dt.Statuses[dt.Failed], dt.Statuses[s.Status()])
		require.LessOrEqual(t, got, 1)
	}
}
