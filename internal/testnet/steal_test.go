package testnet_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	gsimpl "github.com/ipfs/go-graphsync/impl"
	gsnet "github.com/ipfs/go-graphsync/network"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/api"
	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/message"
	dtnet "github.com/cartage-dev/cartage/datatransfer/network"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/datatransfer/transport/graphsync/extension"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/shared"
)

// TestR45OtherRoot: a peer with a deal for many small blocks asks for other data of the same piece under the same channel, with
// every kind of message that is not a proposal for it. The blocks that it has been counted for must not buy others: not one
// is served.
func TestR45OtherRoot(t *testing.T) {
	w := newWorld(t, 100, paid)
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "small"), 0o700))
	for i := range 60 {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "small", fmt.Sprint(i)), fmt.Append(nil, "small file ", i), 0o600))
	}
	content := make([]byte, 6<<20)
	for i := range 6 {
		content[i<<20] = byte(i)
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "big"), content, 0o600))
	a := w.provider.API()
	_, err := a.Provide(w.ctx, dir)
	require.NoError(t, err)
	root := func(name string) cid.Cid {
		i, err := a.Import(w.ctx, api.ImportRequest{Path: filepath.Join(dir, name)})
		require.NoError(t, err)
		c, err := cid.Decode(i.Root)
		require.NoError(t, err)
		return c
	}
	mine, other := root("small"), root("big")

	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableRelay(), libp2p.DisableMetrics())
	require.NoError(t, err)
	defer h.Close()
	addr, err := multiaddr.NewMultiaddr(w.provider.Address())
	require.NoError(t, err)
	info, err := peer.AddrInfoFromP2pAddr(addr)
	require.NoError(t, err)
	require.NoError(t, h.Connect(w.ctx, *info))
	store := testutil.NewMemStore()
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	gs, net := gsimpl.New(ctx, gsnet.NewFromLibp2pHost(h), store.LinkSystem()), dtnet.NewFromLibp2pHost(h)
	ask := func(root cid.Cid, m dt.Message) {
		exts, err := extension.ToExtensionData(m, []graphsync.ExtensionName{extension.ExtensionDataTransfer1_1})
		require.NoError(t, err)
		responses, errs := gs.Request(ctx, info.ID, cidlink.Link{Cid: root}, shared.AllSelector(), exts...)
		go func() {
			for range responses {
			}
		}()
		go func() {
			for range errs {
			}
		}()
	}
	prop := &rm.DealProposal{PayloadCID: mine, ID: 1, Params: rm.NewParamsV0(big.NewInt(2), 1<<20, 0)}
	open, err := message.NewRequest(1, false, true, prop.Type(), prop, mine, shared.AllSelector())
	require.NoError(t, err)
	ask(mine, open)
	require.Eventually(t, func() bool { return store.Len() == 61 }, 10*time.Second, time.Millisecond, "the deal itself is served")
	time.Sleep(500 * time.Millisecond) // its request is over on both sides, the deal waits for its last payment
	voucher, err := message.VoucherRequest(1, prop.Type(), prop)
	require.NoError(t, err)
	for i, m := range []dt.Message{message.UpdateRequest(1, true), message.UpdateRequest(1, false), voucher, message.UpdateResponse(1, false)} {
		ask(other, m)
		time.Sleep(300 * time.Millisecond)
		require.NoError(t, net.SendMessage(ctx, info.ID, message.UpdateRequest(1, false)))
		time.Sleep(200 * time.Millisecond) // nothing comes: there is no event to wait for
		require.Equal(t, 61, store.Len(), "message %d", i)
	}
}
