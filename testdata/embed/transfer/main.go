// Command transfer moves a block between two managers with a voucher of its own.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/sync"
	cbor "github.com/ipfs/go-ipld-cbor"
	"github.com/ipld/go-ipld-prime"
	_ "github.com/ipld/go-ipld-prime/codec/raw"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/storage/memstore"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/impl"
	"github.com/cartage-dev/cartage/datatransfer/network"
	"github.com/cartage-dev/cartage/datatransfer/transport/stream"
	"github.com/cartage-dev/cartage/shared"
)

type ticket struct{ Seat string }

func (*ticket) Type() dt.TypeIdentifier { return "Ticket" }

type doorman struct{}

func (doorman) ValidatePush(bool, dt.ChannelID, peer.ID, dt.Voucher, cid.Cid, ipld.Node) (dt.VoucherResult, error) {
	return nil, dt.ErrUnsupported
}
func (doorman) ValidatePull(_ bool, _ dt.ChannelID, _ peer.ID, v dt.Voucher, _ cid.Cid, _ ipld.Node) (dt.VoucherResult, error) {
	fmt.Println("seat", v.(*ticket).Seat)
	return nil, nil
}

func start(ctx context.Context, ls ipld.LinkSystem) (host.Host, dt.Manager) {
	h := must(libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0")))
	m := must(impl.NewDataTransfer(sync.MutexWrap(datastore.NewMapDatastore()), network.NewFromLibp2pHost(h), stream.New(h, ls)))
	must(0, m.RegisterVoucherType(&ticket{}, doorman{}))
	ready := make(chan error, 1)
	m.OnReady(func(err error) { ready <- err })
	must(0, m.Start(ctx))
	return h, must(m, <-ready)
}

func main() {
	ctx := context.Background()
	cbor.RegisterCborType(ticket{})
	seller, buyer := blocks(), blocks()
	root := must(seller.Store(ipld.LinkContext{}, cidlink.LinkPrototype{Prefix: cid.NewPrefixV1(cid.Raw, 0x12)}, basicnode.NewBytes([]byte("hello"))))
	sh, _ := start(ctx, seller)
	bh, m := start(ctx, buyer)
	must(0, bh.Connect(ctx, *host.InfoFromHost(sh)))
	done := make(chan dt.ChannelState, 1)
	m.SubscribeToEvents(func(e dt.Event, s dt.ChannelState) {
		if e.Code == dt.CleanupComplete {
			done <- s
		}
	})
	must(m.OpenPullDataChannel(ctx, sh.ID(), &ticket{"7A"}, root.(cidlink.Link).Cid, shared.AllSelector()))
	fmt.Println(dt.Statuses[(<-done).Status()], string(must(buyer.LoadRaw(ipld.LinkContext{}, root))))
}

func blocks() ipld.LinkSystem {
	ls, s := cidlink.DefaultLinkSystem(), &memstore.Store{}
	ls.SetReadStorage(s)
	ls.SetWriteStorage(s)
	return ls
}

func must[T any](v T, errs ...error) T {
	for _, err := range errs {
		if err != nil {
			log.Fatal(err)
		}
	}
	return v
}
