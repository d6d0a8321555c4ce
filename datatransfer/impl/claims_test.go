package impl_test

import (
	"context"
	"testing"
	"time"

	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/ipfs/go-graphsync"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/message"
	"github.com/cartage-dev/cartage/datatransfer/network"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/internal/port"
	"github.com/cartage-dev/cartage/shared"
)

// claimed is a sender of 40 leaves that meters, over what outlives it, and one who asks it for them and keeps no rule.
type claimed struct {
	*trade
	*rawPeer
	acc  *tab
	cfg  testutil.PeerConfig
	chid dt.ChannelID
}

func newClaimed(t *testing.T) *claimed {
	key, _, err := crypto.GenerateEd25519Key(nil)
	require.NoError(t, err)
	c := &claimed{trade: &trade{pull: true}, acc: &tab{interval: 4 << 10}}
	c.cfg = testutil.PeerConfig{Key: key, Store: testutil.NewMemStore(), Datastore: dssync.MutexWrap(datastore.NewMapDatastore())}
	c.cfg.Prepare = func(m dt.Manager) {
		v := testutil.NewFakeDTType("")
		require.NoError(t, m.RegisterVoucherType(v, c.acc))
		require.NoError(t, m.RegisterRevalidator(v, c.acc))
		require.NoError(t, m.RegisterVoucherResultType(v))
		require.NoError(t, m.RegisterTransportConfigurer(v, func(chid dt.ChannelID, _ dt.Voucher, tr dt.Transport) {
			require.NoError(t, port.TransportOf(tr).UseStore(chid, c.cfg.Store.LinkSystem()))
		}))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	c.trade.ctx = ctx
	c.root, c.total, err = c.cfg.Store.BuildDAG(40, 1024, 7)
	require.NoError(t, err)
	c.start(t)
	t.Cleanup(func() { require.NoError(t, c.b.Close(context.Background())) })
	c.rawPeer = newRawPeer(ctx, t, c.b)
	c.chid = dt.ChannelID{Initiator: c.h.ID(), Responder: c.b.Host.ID(), ID: 1}
	return c
}

func (c *claimed) start(t *testing.T) {
	var err error
	c.b, err = c.cfg.Start(c.trade.ctx)
	require.NoError(t, err)
	c.acc.manager = c.b.Manager
}

func (c *claimed) request(restart bool) dt.Request {
	return must(message.NewRequest(1, restart, true, "FakeDTType", testutil.NewFakeDTType("v"), c.root, shared.AllSelector()))
}

func (c *claimed) queued() uint64 {
	return must(c.b.Manager.ChannelState(c.trade.ctx, c.chid)).Queued()
}

// TestClaims: what a recipient has when it asks for the first time is not owed. What it says at a restart to have is owed, whoever remembers it, and is not
// handed out for nothing because of that.
func TestClaims(t *testing.T) {
	c := newClaimed(t)
	c.answered(c.ask(c.root, shared.AllSelector(), c.request(false), 10), graphsync.RequestPaused)
	blocks, bytes := c.got()
	require.Positive(t, blocks)
	require.EqualValues(t, bytes, c.queued(), "the base is not owed")
	require.GreaterOrEqual(t, c.queued(), uint64(4<<10))

	c.answered(c.ask(c.root, shared.AllSelector(), c.request(true), 30), graphsync.RequestPaused)
	net := network.NewFromLibp2pHost(c.h)
	pay := must(message.VoucherRequest(1, "FakeDTType", testutil.NewFakeDTType("pay 8192")))
	require.NoError(t, net.SendMessage(c.trade.ctx, c.b.Host.ID(), pay))
	require.Eventually(t, func() bool { return c.queued() == 20*1024 }, 20*time.Second, time.Millisecond, "blocks 11 to 30 are owed, each once")
	c.answered(c.ask(c.root, shared.AllSelector(), c.request(true), 30), graphsync.RequestPaused)
	require.EqualValues(t, 20*1024, c.queued())
	same, _ := c.got()
	require.Equal(t, blocks, same, "what is owed is not paid: nothing new goes out")

	c.answered(c.ask(c.root, shared.AllSelector(), c.request(true), 10), graphsync.RequestPaused)
	again, _ := c.got()
	require.Equal(t, 2*blocks, again, "those that were handed out go out again, and nothing that was only claimed")
	c.answered(c.ask(c.root, shared.AllSelector(), c.request(true), 0), graphsync.RequestPaused)
	none, _ := c.got()
	require.Equal(t, again, none, "nothing of the base either")
	require.EqualValues(t, 20*1024, c.queued())
}

// TestFinishedAfterCrash: a recipient that has everything hears the end of a sender that came back from a crash and does not remember to have sent it
// all: it owes all of it.
func TestFinishedAfterCrash(t *testing.T) {
	c := newClaimed(t)
	c.answered(c.ask(c.root, shared.AllSelector(), c.request(false), 0), graphsync.RequestPaused)
	require.Less(t, c.queued(), c.total)
	require.NoError(t, c.b.Close(context.Background()))
	c.start(t)
	require.NoError(t, c.h.Connect(c.trade.ctx, peer.AddrInfo{ID: c.b.Host.ID(), Addrs: c.b.Host.Addrs()}))
	net := network.NewFromLibp2pHost(c.h)
	require.NoError(t, net.SendMessage(c.trade.ctx, c.b.Host.ID(), c.request(true)))
	require.Eventually(t, func() bool {
		return must(c.b.Manager.ChannelState(c.trade.ctx, c.chid)).Status() == dt.Completed
	}, 20*time.Second, 5*time.Millisecond)
	require.Equal(t, c.total, c.queued())
}
