package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/linking"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/datatransfer/impl"
	dtnet "github.com/cartage-dev/cartage/datatransfer/network"
	"github.com/cartage-dev/cartage/datatransfer/transport/stream"
	"github.com/cartage-dev/cartage/discovery"
	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/paych"
	"github.com/cartage-dev/cartage/piecestore"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/askstore"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/providerstates"
	"github.com/cartage-dev/cartage/retrievalmarket/marketnode"
	rmnet "github.com/cartage-dev/cartage/retrievalmarket/network"
)

// node is one side of the market as the product makes it: streams, the market, payment channels, and a store on the disk whose voucher
// books are synced. Only the chain is simulated.
type node struct {
	dir      string
	state    datastore.Batching
	manager  *impl.Manager
	hub      *retrievalimpl.Hub
	payments *paych.Manager
	chain    *simulatedChain
	net      rmnet.RetrievalMarketNetwork
}

const price = 2

func newNode(ctx context.Context, h host.Host, who string, ls ipld.LinkSystem) (n *node, err error) {
	n = &node{net: rmnet.NewFromLibp2pHost(h)}
	if n.dir, err = os.MkdirTemp("", "bench"); err != nil {
		return nil, err
	}
	if n.state, err = store.Open(filepath.Join(n.dir, "state")); err != nil {
		return nil, err
	}
	key, err := moneyKey(who)
	if err == nil {
		n.chain, err = newSimulatedChain()
	}
	if err == nil {
		n.payments, err = paych.Open(ctx, n.space("/paych"), n.chain, keyring{key})
	}
	if err != nil {
		return nil, err
	}
	h.SetStreamHandler(retrievalimpl.AheadProtocol, func(s network.Stream) { _ = s.Close() })
	m, err := impl.NewDataTransfer(n.space("/transfers"), dtnet.NewFromLibp2pHost(h), stream.New(h, ls), impl.CompletionDelay(func(peer.ID) time.Duration { return 0 }))
	if err != nil {
		return nil, err
	}
	n.manager = m.(*impl.Manager)
	n.hub, err = retrievalimpl.NewHub(m, h.ID())
	return n, err
}

func (n *node) space(name string) datastore.Batching {
	return namespace.Wrap(n.state, datastore.NewKey(name))
}

func (n *node) start(ctx context.Context) error {
	ready := make(chan error, 1)
	n.manager.OnReady(func(err error) { ready <- err })
	if err := n.manager.Start(ctx); err != nil {
		return err
	}
	return <-ready
}

func (n *node) close(ctx context.Context) error {
	err := errors.Join(n.manager.Stop(ctx), n.payments.Close(ctx), n.state.Close())
	n.hub.Close()
	return errors.Join(err, os.RemoveAll(n.dir))
}

// pieces serves a DAG in memory as one piece.
type pieces struct{ m *memory }

// Find implements retrievalimpl.PieceSource.
func (p pieces) Find(context.Context, cid.Cid, *cid.Cid) (retrievalimpl.Found, error) {
	return retrievalimpl.Found{Info: piecestore.PieceInfo{PieceCID: p.m.root}, Size: p.m.bytes}, nil
}

// Acquire implements retrievalimpl.PieceSource.
func (p pieces) Acquire(context.Context, cid.Cid) (retrievalimpl.Reader, error) { return p, nil }

// Get implements retrievalimpl.Reader.
func (p pieces) Get(c cid.Cid) ([]byte, error) { return p.m.get(c) }

// Close implements retrievalimpl.Reader.
func (pieces) Close() error { return nil }

func servePaid(ctx context.Context, h host.Host, m *memory, r row) (string, error) {
	n, err := newNode(ctx, h, "payee", m.links())
	if err != nil {
		return "", err
	}
	asks, err := askstore.NewAskStore(n.space("/asks"), datastore.NewKey("/ask"))
	if err == nil {
		err = asks.SetAsk(&rm.Ask{PricePerByte: big.NewInt(price), UnsealPrice: big.Zero(), PaymentInterval: r.pays, PaymentIntervalIncrease: 0})
	}
	if err != nil {
		return "", err
	}
	p, err := retrievalimpl.NewProviderFromConfig(retrievalimpl.ProviderConfig{Hub: n.hub, Network: n.net, Node: marketnode.Provider{Manager: n.payments},
		Address: n.chain.info.To, Pieces: pieces{m}, Asks: asks, Store: n.space("/provider"), Log: slog.New(slog.DiscardHandler),
		Deadlines: providerstates.Deadlines(time.Minute, time.Minute, time.Minute, time.Minute)})
	if err == nil {
		err = n.start(ctx)
	}
	if err == nil {
		err = p.Start(ctx)
	}
	return "", err
}

// sink is where a deal receives: nowhere, or a CARv2 file.
type sink struct {
	car   *carstore.Store
	bytes uint64
}

// Open implements retrievalimpl.Targets.
func (s *sink) Open(context.Context, rm.ClientDealState) (retrievalimpl.Target, error) { return s, nil }

// Done implements retrievalimpl.Targets.
func (*sink) Done(rm.ClientDealState) {}

// Base implements retrievalimpl.Target.
func (*sink) Base() uint64 { return 0 }

// Bytes implements retrievalimpl.Target.
func (s *sink) Bytes() uint64 {
	if s.car != nil {
		return s.car.Bytes()
	}
	return s.bytes
}

// Locate implements retrievalimpl.Target: a deal begins with nothing.
func (s *sink) Locate(ipld.Node) (carstore.Position, error) { return carstore.Position{}, nil }

// LinkSystem implements retrievalimpl.Target.
func (s *sink) LinkSystem() ipld.LinkSystem {
	if s.car != nil {
		return s.car.LinkSystem()
	}
	ls := discard()
	ls.StorageWriteOpener = func(linking.LinkContext) (io.Writer, linking.BlockWriteCommitter, error) {
		w := &counter{}
		return w, func(ipld.Link) error {
			s.bytes += w.n
			return nil
		}, nil
	}
	return ls
}

type counter struct{ n uint64 }

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	c.n += uint64(len(p))
	return len(p), nil
}

// newSink opens a file in a folder, or no file at all.
func newSink(dir string, root cid.Cid, file bool) (s *sink, err error) {
	s = &sink{}
	if file {
		s.car, err = carstore.Open(blob.OS{}, filepath.Join(dir, "got.car"), root)
	}
	return s, err
}

func (s *sink) finish() error {
	if s.car == nil {
		return nil
	}
	return errors.Join(s.car.Finalize(), s.car.Close())
}

func fetchPaid(file bool) func(context.Context, host.Host, peer.AddrInfo, string, cid.Cid, row) (uint64, error) {
	return func(ctx context.Context, h host.Host, server peer.AddrInfo, _ string, root cid.Cid, r row) (uint64, error) {
		n, err := newNode(ctx, h, "payer", discard())
		if err != nil {
			return 0, err
		}
		s, err := newSink(n.dir, root, file)
		if err != nil {
			return 0, err
		}
		c, err := newClient(ctx, h, n, s)
		if err != nil {
			return 0, err
		}
		d, err := deal(ctx, c, n, server, root, r)
		if err == nil && d.FundsSpent.Int64() != int64(d.TotalReceived)*price {
			err = fmt.Errorf("%s paid for %d bytes", d.FundsSpent, d.TotalReceived)
		}
		if err == nil {
			err = countVouchers(ctx, n, d.ID, r)
		}
		return d.TotalReceived, errors.Join(err, s.finish(), c.Stop(ctx), n.close(ctx))
	}
}

// newClient starts the client's side of a node.
func newClient(ctx context.Context, h host.Host, n *node, t retrievalimpl.Targets) (*retrievalimpl.Client, error) {
	c, err := retrievalimpl.NewClientFromConfig(retrievalimpl.ClientConfig{Hub: n.hub, Network: n.net, Node: marketnode.Client{Manager: n.payments},
		Resolver: discovery.Static(nil), Store: n.space("/client"), Targets: t, Log: slog.New(slog.DiscardHandler),
		SupportsAhead: func(p peer.ID) bool {
			known, err := h.Peerstore().SupportsProtocols(p, retrievalimpl.AheadProtocol)
			return err == nil && len(known) > 0
		},
		Deadlines: clientstates.Deadlines(time.Minute, time.Minute, time.Minute, time.Minute)})
	if err == nil {
		err = n.start(ctx)
	}
	if err == nil {
		err = c.Start(ctx)
	}
	return c, err
}

// deal makes one deal and waits for its end.
func deal(ctx context.Context, c *retrievalimpl.Client, n *node, server peer.AddrInfo, root cid.Cid, r row) (rm.ClientDealState, error) {
	ended := make(chan rm.ClientDealState, 1)
	defer c.SubscribeToEvents(func(_ rm.ClientEvent, d rm.ClientDealState) {
		if clientstates.IsFinal(d.Status) {
			ended <- d
		}
	})()
	params := rm.NewParamsV0(big.NewInt(price), r.pays, 0)
	if _, err := c.Retrieve(ctx, root, params, big.NewInt(1<<50), rm.RetrievalPeer{ID: server.ID, Address: n.chain.info.To}, n.chain.info.From, n.chain.info.To, nil); err != nil {
		return rm.ClientDealState{}, err
	}
	select {
	case d := <-ended:
		if d.Status != rm.DealStatusCompleted {
			return d, fmt.Errorf("%s: %s", d.Status, d.Message)
		}
		return d, nil
	case <-ctx.Done():
		return rm.ClientDealState{}, ctx.Err()
	}
}

// fetchCarFile is the ceiling with the sink of a deal: verified sections into a CARv2 file.
func fetchCarFile(ctx context.Context, h host.Host, server peer.AddrInfo, _ string, root cid.Cid, _ row) (uint64, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	f, err := newSink(dir, root, true)
	if err != nil {
		return 0, err
	}
	s, err := h.NewStream(ctx, server.ID, carProtocol)
	if err != nil {
		return 0, err
	}
	_ = s.CloseWrite()
	n, err := readCarInto(s, root, f.car.Put)
	return n, errors.Join(err, f.finish())
}

// countVouchers adds the vouchers of a deal to those of the row.
func countVouchers(ctx context.Context, n *node, id rm.DealID, r row) error {
	best, err := n.payments.Best(ctx, false, clientstates.DealKey(id))
	if err == nil && best != nil {
		r.signed.Add(best.Nonce)
	}
	return err
}
