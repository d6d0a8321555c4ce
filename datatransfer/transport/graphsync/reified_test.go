package graphsync_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode"
	"github.com/ipfs/go-unixfsnode/data/builder"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	ssb "github.com/ipld/go-ipld-prime/traversal/selector/builder"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/shared"
)

// TestRangeGoesOn: a range of a file, whose blocks graphsync knows by one and the same path, is stopped in its middle and asked for again. It goes
// on behind what is here.
func TestRangeGoesOn(t *testing.T) {
	ctx, a, b := two(t)
	voucher := testutil.NewFakeDTType("v")
	for _, p := range []*testutil.Peer{a, b} {
		require.NoError(t, p.Manager.RegisterVoucherType(voucher, &testutil.Validator{}))
		require.NoError(t, p.Manager.RegisterTransportConfigurer(voucher, func(chid dt.ChannelID, _ dt.Voucher, _ dt.Transport) {
			ls := p.Store.LinkSystem()
			unixfsnode.AddUnixFSReificationToLinkSystem(&ls)
			require.NoError(t, p.Transport.UseStore(chid, ls))
		}))
	}
	ended := make(chan dt.ChannelState, 2)
	asked := make(chan cid.Cid, 1)
	for _, p := range []*testutil.Peer{a, b} {
		p.Manager.SubscribeToEvents(func(e dt.Event, s dt.ChannelState) {
			switch {
			case e.Code == dt.CleanupComplete && s.BaseCID().Prefix().Codec != cid.Raw:
				ended <- s
			case e.Code == dt.Open && p == b && s.BaseCID().Prefix().Codec == cid.Raw:
				asked <- s.BaseCID()
			}
		})
	}
	data := make([]byte, 20_000)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	ls := b.Store.LinkSystem()
	root, _, err := builder.BuildUnixFSFile(bytes.NewReader(data), "size-1000", &ls)
	require.NoError(t, err)

	// The root and five leaves come; the sixth is read when the recipient has left.
	var reads, came atomic.Int32
	there, gone := make(chan struct{}), make(chan struct{})
	b.Store.OnRead(func(cid.Cid) {
		if reads.Add(1) > 6 {
			await(ctx, t, gone)
		}
	})
	a.Store.OnWrite(func(cid.Cid) {
		if came.Add(1) == 6 {
			close(there)
		}
	})
	s := ssb.NewSelectorSpecBuilder(basicnode.Prototype.Any)
	part := s.ExploreInterpretAs("unixfs", s.MatcherSubset(2_500, 14_500)).Node() // leaves 2 to 14
	chid, err := a.Manager.OpenPullDataChannel(ctx, b.Host.ID(), voucher, root.(cidlink.Link).Cid, part)
	require.NoError(t, err)
	await(ctx, t, there)
	require.Eventually(t, func() bool {
		s, err := a.Manager.ChannelState(ctx, chid)
		return err == nil && s.ReceivedCidsTotal() == 6
	}, 20*time.Second, time.Millisecond)
	require.NoError(t, a.Transport.CloseChannel(ctx, chid))
	// A response that runs through would be the end of the channel for its sender. The cancel has come when the request behind it has.
	elsewhere := cid.NewCidV1(cid.Raw, root.(cidlink.Link).Hash())
	_, err = a.Manager.OpenPullDataChannel(ctx, b.Host.ID(), voucher, elsewhere, shared.AllSelector())
	require.NoError(t, err)
	require.Equal(t, elsewhere, await(ctx, t, asked))
	close(gone)
	require.NoError(t, a.Manager.RestartDataTransferChannel(context.WithoutCancel(ctx), chid))
	for range 2 {
		end := await(ctx, t, ended)
		require.Equal(t, dt.Statuses[dt.Completed], dt.Statuses[end.Status()], end.Message())
	}
	require.Equal(t, 1+13, a.Store.Len())
	require.EqualValues(t, 1+13, came.Load(), "what was here did not come again")
}
