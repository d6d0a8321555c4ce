package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/discovery"
	"github.com/cartage-dev/cartage/internal/config"
	product "github.com/cartage-dev/cartage/internal/node"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
	"github.com/cartage-dev/cartage/retrievalmarket/marketnode"
	rmnet "github.com/cartage-dev/cartage/retrievalmarket/network"
)

// crowds are retrievals of one piece at once, by clients with a connection each, from a node as it is run.
var crowds = []row{
	{name: "one retrieval, stream", crowd: 1, serve: serveNode, fetch: fetchCrowd(true)},
	{name: "64 retrievals at once, stream", crowd: 64, serve: serveNode, fetch: fetchCrowd(true)},
	{name: "one retrieval, graphsync", crowd: 1, serve: serveNode, fetch: fetchCrowd(false)},
	{name: "64 retrievals at once, graphsync", crowd: 64, serve: serveNode, fetch: fetchCrowd(false)},
}

// serveNode is a provider's node with the DAG as a piece on its disk, for nothing.
func serveNode(ctx context.Context, _ host.Host, m *memory, _ row) (addr string, err error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return "", err
	}
	car := filepath.Join(dir, "piece.car")
	if err := writeFile(car, m); err != nil {
		return "", err
	}
	home := config.Home{Dir: filepath.Join(dir, "home")}
	if _, err := product.Init(home, product.InitOptions{}); err != nil {
		return "", err
	}
	n, err := product.Open(ctx, home, product.Options{Provide: true, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return "", err
	}
	if _, err := n.API().SetAsk(ctx, api.Ask{PricePerByte: "0", UnsealPrice: "0", PaymentInterval: 1 << 20}); err != nil {
		return "", err
	}
	if _, err := n.Provide(ctx, car); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s/p2p/%s", n.Host.Addrs()[0], n.Host.ID()), nil
}

func writeFile(name string, m *memory) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	head, err := m.header()
	if err != nil {
		return err
	}
	if _, err := f.Write(head); err != nil {
		return err
	}
	return writeCar(f, m)
}

func fetchCrowd(streams bool) func(context.Context, host.Host, peer.AddrInfo, string, cid.Cid, row) (uint64, error) {
	return func(ctx context.Context, _ host.Host, _ peer.AddrInfo, addr string, root cid.Cid, r row) (uint64, error) {
		server, err := peer.AddrInfoFromString(addr)
		if err != nil {
			return 0, err
		}
		clients := make([]*crowdClient, r.crowd)
		for i := range clients {
			if clients[i], err = newCrowdClient(ctx, *server, streams, r); err != nil {
				return 0, err
			}
		}
		var total atomic.Uint64
		var g errgroup.Group
		for _, c := range clients {
			g.Go(func() error {
				n, err := c.get(ctx, *server, root)
				total.Add(n)
				return err
			})
		}
		err = g.Wait()
		return total.Load(), err
	}
}

// crowdClient is a client with a host of its own.
type crowdClient struct {
	client *retrievalimpl.Client
}

func newCrowdClient(ctx context.Context, server peer.AddrInfo, streams bool, r row) (*crowdClient, error) {
	h, err := newHost(r)
	if err != nil {
		return nil, err
	}
	if err := h.Connect(ctx, server); err != nil {
		return nil, err
	}
	m, err := manager(ctx, h, discard(), streams)
	if err != nil {
		return nil, err
	}
	hub, err := retrievalimpl.NewHub(m, h.ID())
	if err != nil {
		return nil, err
	}
	c, err := retrievalimpl.NewClientFromConfig(retrievalimpl.ClientConfig{Hub: hub, Network: rmnet.NewFromLibp2pHost(h), Node: marketnode.Client{},
		Resolver: discovery.Static(nil), Store: dssync.MutexWrap(datastore.NewMapDatastore()), Targets: sinks{}, Log: slog.New(slog.DiscardHandler),
		Deadlines: clientstates.Deadlines(time.Minute, time.Minute, time.Minute, time.Minute)})
	if err != nil {
		return nil, err
	}
	ready := make(chan error, 1)
	m.OnReady(func(err error) { ready <- err })
	if err := m.Start(ctx); err != nil {
		return nil, err
	}
	if err := <-ready; err != nil {
		return nil, err
	}
	return &crowdClient{c}, c.Start(ctx)
}

func (c *crowdClient) get(ctx context.Context, server peer.AddrInfo, root cid.Cid) (uint64, error) {
	ended := make(chan rm.ClientDealState, 1)
	defer c.client.SubscribeToEvents(func(_ rm.ClientEvent, d rm.ClientDealState) {
		if clientstates.IsFinal(d.Status) {
			ended <- d
		}
	})()
	q, err := c.client.Query(ctx, rm.RetrievalPeer{ID: server.ID}, root, rm.QueryParams{})
	if err != nil {
		return 0, err
	}
	params := rm.NewParamsV0(big.Zero(), q.MaxPaymentInterval, q.MaxPaymentIntervalIncrease)
	if _, err := c.client.Retrieve(ctx, root, params, big.Zero(), rm.RetrievalPeer{ID: server.ID, Address: q.PaymentAddress}, q.PaymentAddress, q.PaymentAddress, nil); err != nil {
		return 0, err
	}
	select {
	case d := <-ended:
		if d.Status != rm.DealStatusCompleted {
			return d.TotalReceived, fmt.Errorf("%s: %s", d.Status, d.Message)
		}
		return d.TotalReceived, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}
