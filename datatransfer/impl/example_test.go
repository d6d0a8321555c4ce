package impl_test

import (
	"context"
	"fmt"

	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	gsimpl "github.com/ipfs/go-graphsync/impl"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/ipld/go-ipld-prime"
	"github.com/libp2p/go-libp2p/core/host"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/impl"
	"github.com/cartage-dev/cartage/datatransfer/network"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/datatransfer/transport/graphsync"
	"github.com/cartage-dev/cartage/shared"
)

// A manager is made of a network, a transport and a datastore of its own; types are registered before the start.
func ExampleNewDataTransfer() {
	start := func(ctx context.Context, h host.Host, blocks ipld.LinkSystem, ds datastore.Batching) (dt.Manager, error) {
		exchange := gsimpl.New(ctx, gsnet.NewFromLibp2pHost(h), blocks)
		transport := graphsync.NewTransport(h.ID(), exchange)
		m, err := impl.NewDataTransfer(ds, network.NewFromLibp2pHost(h), transport)
		if err != nil {
			return nil, err
		}
		if err := m.RegisterVoucherType(testutil.NewFakeDTType(""), &testutil.Validator{}); err != nil {
			return nil, err
		}
		return m, testutil.StartAndWaitForReady(ctx, m)
	}
	_ = start
}

// A pull: the validator of the other side decides, a subscriber hears how it goes.
func ExampleManager_OpenPullDataChannel() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	provider, err := testutil.NewPeer(ctx, dssync.MutexWrap(datastore.NewMapDatastore()))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer provider.Close(ctx)
	client, err := testutil.NewPeer(ctx, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close(ctx)

	voucher := testutil.NewFakeDTType("open, please")
	_ = provider.Manager.RegisterVoucherType(testutil.NewFakeDTType(""), &testutil.Validator{
		Pull: func(_ bool, _ dt.ChannelID, v dt.Voucher) (dt.VoucherResult, error) {
			fmt.Println("asked with:", v.(*testutil.FakeDTType).Data)
			return nil, nil // accepted; an error refuses, ErrPause accepts and waits
		},
	})
	_ = client.Manager.RegisterVoucherType(testutil.NewFakeDTType(""), nil) // a client only sends them

	root, size, _ := provider.Store.BuildDAG(10, 1024, 1)
	ended := make(chan dt.ChannelState, 1)
	unsubscribe := client.Manager.SubscribeToEvents(func(e dt.Event, s dt.ChannelState) {
		if e.Code == dt.CleanupComplete { // the last event of each channel
			ended <- s
		}
	})
	defer unsubscribe()
	_ = testutil.Connect(ctx, client, provider)
	_, err = client.Manager.OpenPullDataChannel(ctx, provider.Host.ID(), voucher, root, shared.AllSelector())
	if err != nil {
		fmt.Println(err)
		return
	}
	s := <-ended
	fmt.Println(dt.Statuses[s.Status()], s.Received() == size)
	// Output:
	// asked with: open, please
	// Completed true
}
