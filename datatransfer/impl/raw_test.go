package impl_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	"github.com/ipfs/go-graphsync/donotsendfirstblocks"
	gsmsg "github.com/ipfs/go-graphsync/message"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/ipld/go-ipld-prime"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/datatransfer/transport/graphsync/extension"
)

// rawPeer speaks graphsync without any rules: a hostile client.
type rawPeer struct {
	t   *testing.T
	ctx context.Context
	h   host.Host
	net gsnet.GraphSyncNetwork
	to  peer.ID

	out gsnet.MessageSender // one stream: messages arrive in the order in which they are sent

	mu     sync.Mutex
	blocks int
	bytes  int
	status map[graphsync.RequestID]graphsync.ResponseStatusCode
	more   chan struct{}
}

func newRawPeer(ctx context.Context, t *testing.T, to *testutil.Peer) *rawPeer {
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableRelay(), libp2p.DisableMetrics())
	require.NoError(t, err)
	t.Cleanup(func() { _ = h.Close() })
	require.NoError(t, h.Connect(ctx, peer.AddrInfo{ID: to.Host.ID(), Addrs: to.Host.Addrs()}))
	r := &rawPeer{t: t, ctx: ctx, h: h, net: gsnet.NewFromLibp2pHost(h), to: to.Host.ID(),
		status: map[graphsync.RequestID]graphsync.ResponseStatusCode{}, more: make(chan struct{})}
	r.net.SetDelegate(r)
	r.out, err = r.net.NewMessageSender(ctx, r.to, gsnet.MessageSenderOpts{SendTimeout: time.Minute})
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.out.Close() })
	return r
}

// ReceiveMessage implements the receiver of graphsync.
func (r *rawPeer) ReceiveMessage(_ context.Context, _ peer.ID, m gsmsg.GraphSyncMessage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range m.Blocks() {
		r.blocks++
		r.bytes += len(b.RawData())
	}
	for _, resp := range m.Responses() {
		r.status[resp.RequestID()] = resp.Status()
	}
	close(r.more)
	r.more = make(chan struct{})
}

// ReceiveError implements the receiver of graphsync.
func (r *rawPeer) ReceiveError(peer.ID, error) {}

// Connected implements the receiver of graphsync.
func (r *rawPeer) Connected(peer.ID) {}

// Disconnected implements the receiver of graphsync.
func (r *rawPeer) Disconnected(peer.ID) {}

func (r *rawPeer) got() (blocks, bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.blocks, r.bytes
}

// ask sends a graphsync request that carries a message, and claims to have the first blocks.
func (r *rawPeer) ask(root cid.Cid, sel ipld.Node, m dt.Message, skip int64) graphsync.RequestID {
	exts, err := extension.ToExtensionData(m, []graphsync.ExtensionName{extension.ExtensionDataTransfer1_1})
	require.NoError(r.t, err)
	exts = append(exts, graphsync.ExtensionData{Name: graphsync.ExtensionsDoNotSendFirstBlocks, Data: donotsendfirstblocks.EncodeDoNotSendFirstBlocks(skip)})
	id := graphsync.NewRequestID()
	r.send(gsmsg.NewRequest(id, root, sel, 1, exts...))
	return id
}

func (r *rawPeer) send(req gsmsg.GraphSyncRequest) {
	msg := gsmsg.NewMessage(map[graphsync.RequestID]gsmsg.GraphSyncRequest{req.ID(): req}, nil, nil)
	require.NoError(r.t, r.out.SendMsg(r.ctx, msg))
}

// answered waits for one of the given states of a request.
func (r *rawPeer) answered(id graphsync.RequestID, want ...graphsync.ResponseStatusCode) graphsync.ResponseStatusCode {
	r.t.Helper()
	for {
		r.mu.Lock()
		status, ok := r.status[id]
		more := r.more
		r.mu.Unlock()
		for _, w := range want {
			if ok && status == w {
				return status
			}
		}
		select {
		case <-more:
		case <-r.ctx.Done():
			require.FailNow(r.t, "no answer", "last status %s", status)
		}
	}
}
