// Package node builds a client, a provider or a daemon from a configuration. It is the only place that knows everyone.
package node

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
	gsimpl "github.com/ipfs/go-graphsync/impl"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/ipld/go-ipld-prime"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/dagstore"
	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/channelmonitor"
	dtimpl "github.com/cartage-dev/cartage/datatransfer/impl"
	dtnet "github.com/cartage-dev/cartage/datatransfer/network"
	gstransport "github.com/cartage-dev/cartage/datatransfer/transport/graphsync"
	"github.com/cartage-dev/cartage/datatransfer/transport/router"
	"github.com/cartage-dev/cartage/datatransfer/transport/stream"
	"github.com/cartage-dev/cartage/discovery"
	"github.com/cartage-dev/cartage/imports"
	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/limits"
	"github.com/cartage-dev/cartage/internal/node/download"
	"github.com/cartage-dev/cartage/internal/node/tokens"
	"github.com/cartage-dev/cartage/paych"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/askstore"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/providerstates"
	"github.com/cartage-dev/cartage/retrievalmarket/marketnode"
	rmnet "github.com/cartage-dev/cartage/retrievalmarket/network"
	"github.com/cartage-dev/cartage/storagedeal"
)

// Parts are the seams of a node: a test puts faulty ones there.
type Parts struct {
	Home   config.Home
	Config config.Config
	// LogLevel is the level of Log, which follows the configuration; nil: it does not.
	LogLevel *slog.LevelVar
	Origin   func(key string) string // where a key of the configuration was set; nil: it is not known
	Fixed    func(key string) bool   // whether a key was set for this run; nil: none was
	Key      crypto.PrivKey
	Wallet   *paych.Wallet
	State    datastore.Batching // records; the caller closes it
	// OpenBlocks opens the store of blocks that retrievals share, when it is first wanted; the node closes it. nil: there is none.
	OpenBlocks func() (datastore.Batching, error)
	FS         blob.FS
	Chain      paych.Chain // nil: no ledger
	Provide    bool
	// Reading is for a home whose disk takes no writes: the node tells what is there, and reaches nobody but its chain.
	Reading bool
	Listen  []string
	Log     *slog.Logger
	// Version is that of the program.
	Version string
	// Host is a host of the caller's, which stays open when the node closes, and of which the node listens on no address but those of Listen. nil: the
	// node makes one with Key.
	Host host.Host
	// Selling says why no new deal is taken at present; nil: they are taken.
	Selling func() error
	// Sectors knows the pieces of a sealing system, for shards at lotus://PIECE; nil: there is none. Nothing is unsealed for a shard.
	Sectors dagstore.Sectors
	// Now is the clock of what is remembered for a day, credit and debts; nil is time.Now.
	Now func() time.Time
	// WrapPieces is a seam for faults, as State and FS are; nil leaves the piece store as it is.
	WrapPieces func(retrievalimpl.PieceSource) retrievalimpl.PieceSource
	// WrapHost is a seam for what is said to others; nil leaves the host as it is.
	WrapHost func(host.Host) host.Host
	// EVMKeys are the keys of EVM chains; nil: there are none.
	EVMKeys *paych.Wallet
}

// origin is where a key of the configuration was set.
func (p *Parts) origin(key string) string {
	if p.Origin == nil {
		return "config.toml"
	}
	return p.Origin(key)
}

// pieces is what the market serves from.
func (n *Node) pieces() retrievalimpl.PieceSource {
	p := retrievalimpl.PieceSource(pieceSource{n.Pieces})
	if n.parts.WrapPieces != nil {
		p = n.parts.WrapPieces(p)
	}
	return p
}

// Node is a running node. It is safe for concurrent use.
type Node struct {
	parts    Parts
	limits   *limits.Registry
	live     atomic.Pointer[liveConfig]
	log      *slog.Logger
	Host     host.Host
	manager  dt.Manager
	router   *router.Transport
	registry *prometheus.Registry // of what counts by itself
	carriers map[peer.ID]string   // what was asked for, by provider; guarded by mu
	hub      *retrievalimpl.Hub
	Client   *retrievalimpl.Client
	Provider *retrievalimpl.Provider
	asks     *askstore.AskStore
	Payments *paych.Manager
	Pieces   *dagstore.Store
	targets  *targets
	blocks   *sharedStore
	imports  *imports.Manager

	chainView     storagedeal.ChainView // nil without storage deals
	storageClient *storagedeal.Client
	storage       *storagedeal.Provider
	transfers     *storagedeal.Transfers // of the data of storage deals, as pusher
	pusher        *storagedeal.Pusher

	ctx    context.Context
	cancel context.CancelFunc

	stopExchange context.CancelFunc
	mu           sync.Mutex
	runs         map[string]*run // by the key of what is wanted
	web          webBuys         // guarded by mu
	orders       *download.Orders
	tokens       *tokens.Store
	watched      atomic.Pointer[settleWatch] // nil: the payment channels were not looked at yet
	overview     *Overview
	entrance     entrance
	evm          *EVM
	wg           sync.WaitGroup
}

// Build makes and starts a node from its parts.
func Build(ctx context.Context, p Parts) (*Node, error) {
	if p.Log == nil {
		p.Log = slog.New(slog.DiscardHandler)
	}
	n := &Node{parts: p, log: p.Log, registry: prometheus.NewRegistry(), blocks: &sharedStore{open: p.OpenBlocks}, runs: map[string]*run{}, web: webBuys{}, carriers: map[peer.ID]string{}}
	n.live.Store(&liveConfig{Config: p.Config})
	p.setLogLevel(&p.Config)
	n.ctx, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := n.openLimits(); err != nil {
		return nil, err
	}
	steps := []func(context.Context) error{n.openHost, n.recall, n.openStores, n.openTransfer, n.openStorage, n.openMarket, n.startStorage, n.listen, n.startClient, n.startPushes}
	if p.Reading {
		steps = []func(context.Context) error{n.openHost, n.openStores, n.openTransfer, n.openStorage, n.openMarket, n.readClient}
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, n.Close(context.WithoutCancel(ctx)))
		}
	}
	n.overview = newOverview(n)
	return n, nil
}

func (n *Node) openHost(context.Context) (err error) {
	if n.parts.Host == nil {
		err = n.makeHost()
	} else {
		n.Host = n.parts.Host
	}
	if err != nil {
		return err
	}
	if n.parts.WrapHost != nil {
		n.Host = n.parts.WrapHost(n.Host)
	}
	// Listed for other Cartage peers; a stream on it carries nothing.
	for _, p := range listedProtocols() {
		n.Host.SetStreamHandler(p, func(s network.Stream) { _ = s.Close() })
	}
	return nil
}

// listedProtocols only tell other Cartage peers what this one understands.
func listedProtocols() []protocol.ID {
	return []protocol.ID{retrievalimpl.AheadProtocol, retrievalimpl.PrepaidProtocol}
}

// closeHost closes the host of the node; one of the caller's is left as it was.
func (n *Node) closeHost() error {
	switch {
	case n.Host == nil:
		return nil
	case n.parts.Host == nil:
		return n.Host.Close()
	}
	for _, p := range listedProtocols() {
		n.Host.RemoveStreamHandler(p)
	}
	return nil
}

func (n *Node) makeHost() error {
	resources, err := n.resources()
	if err != nil {
		return err
	}
	more := transports()
	if n.parts.Reading {
		more = append(more, libp2p.ConnectionGater(unconnected{}))
	}
	n.Host, err = libp2p.New(append(more,
		libp2p.Identity(n.parts.Key), libp2p.NoListenAddrs,
		libp2p.Muxer(yamux.ID, smallFrames()),
		libp2p.Security(libp2ptls.ID, libp2ptls.New), libp2p.Security(noise.ID, noise.New),
		libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.ResourceManager(resources),
	)...)
	return err
}

// smallFrames is yamux with frames of 16 KiB, a record of TLS each: 64 of them wait in memory for each connection, which were four times as
// large.
func smallFrames() *yamux.Transport {
	t := *yamux.DefaultTransport
	t.MaxMessageSize = 16 << 10
	return &t
}

// Where the books of payments are, and the deals of the provider with its accounts.
const (
	payments        = "/paych"
	providerRecords = "/retrievals/provider"
)

func (n *Node) space(name string) datastore.Batching {
	return namespace.Wrap(n.parts.State, datastore.NewKey(name))
}

func (n *Node) openStores(ctx context.Context) (err error) {
	if err := n.openPieces(ctx); err != nil {
		return err
	}
	if err := n.openImports(ctx); err != nil {
		return err
	}
	if n.tokens, err = tokens.Open(ctx, n.space("/tokens")); err != nil {
		return err
	}
	if n.orders, err = download.Open(ctx, download.Config{Store: n.space("/orders"), Market: market{n}, Parallel: n.parts.Config.Retrieval.QueueParallel, Deliver: n.deliver, Allowance: Tokens{n}.allowance, Log: n.log}); err != nil {
		return err
	}
	if n.parts.Chain != nil {
		if n.Payments, err = paych.Open(ctx, n.space(payments), n.parts.Chain, n.parts.Wallet,
			paych.MaySpend(n.maySpend), paych.MinSettleWindow(time.Duration(n.parts.Config.Ledger.MinSettleWindow))); err != nil {
			return err
		}
		if !n.parts.Reading {
			n.wg.Go(n.tendPayments)
		}
	}
	if n.evm, err = openEVM(ctx, n); err != nil {
		return err
	}
	n.targets, err = openTargets(ctx, n.parts.FS, n.parts.Home.Path("retrievals"), n.space("/retrievals/targets"))
	return err
}

func (n *Node) openTransfer(ctx context.Context) error {
	cfg := n.parts.Config.Transfer
	gctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	n.stopExchange = stop
	checked := gstransport.NewCheckedNetwork(gsnet.NewFromLibp2pHost(n.Host))
	gs := gsimpl.New(gctx, checked, emptyLinks(),
		gsimpl.MaxInProgressIncomingRequests(uint64(n.limits.Value(limits.GraphsyncDeals))), gsimpl.MaxInProgressOutgoingRequests(64),
		// A quarter of graphsync's own bounds: one message for each peer, and as many peers that do not read as before until others wait.
		gsimpl.MaxMemoryResponder(64<<20), gsimpl.MaxMemoryPerPeerResponder(carstore.MaxBlock+64<<10),
		gsimpl.RejectAllRequestsByDefault())
	n.router = router.New(n.takesStreams)
	streams := stream.New(n.Host, emptyLinks(), stream.OnBind(n.router.FastBound), stream.SendMemory(n.sendMemory()))
	n.limits.Use(limits.MemoryNode, streams.SendMemoryInUse)
	n.router.Join(streams,
		gstransport.NewTransport(n.Host.ID(), gs, gstransport.Checked(checked), gstransport.OnBind(n.router.SlowBound),
			gstransport.AsyncValidation(emptyLinks())))
	net := dtnet.NewFromLibp2pHost(n.Host, dtnet.RetryParameters(100*time.Millisecond, 5*time.Second, 3, 3))
	m, err := dtimpl.NewDataTransfer(n.space("/datatransfer"), net, n.router, dtimpl.ChannelRestartConfig(channelmonitor.Config{
		RestartDebounce: time.Duration(cfg.RestartDebounce), RestartBackoff: time.Second, MaxConsecutiveRestarts: max(1, cfg.MaxRestarts),
		CompleteTimeout: time.Duration(cfg.IdleTimeout),
		BeforeRestart:   func(ctx context.Context, id dt.ChannelID) error { return n.hub.BeforeRestart(ctx, id) },
	}), dtimpl.ChannelLimits(n.transferLimits()), dtimpl.CompletionDelay(func(p peer.ID) time.Duration {
		if n.supportsAhead(p) {
			return 0
		}
		return 50 * time.Millisecond
	}))
	if err != nil {
		return err
	}
	n.manager = m
	n.hub, err = retrievalimpl.NewHub(m, n.Host.ID())
	return err
}

// emptyLinks is the store of requests that belong to no channel: it has nothing.
func emptyLinks() ipld.LinkSystem { return carstore.Links(notHere) }

func (n *Node) openMarket(ctx context.Context) (err error) {
	cfg := n.parts.Config.Transfer
	idle, accept := time.Duration(cfg.IdleTimeout), time.Duration(cfg.AcceptTimeout)
	netw := rmnet.NewFromLibp2pHost(n.Host, rmnet.QueriesPerPeer(n.limits.Int(limits.QueriesPeer), func() { _ = n.limits.Hit(limits.QueriesPeer) }))
	n.Client, err = retrievalimpl.NewClientFromConfig(retrievalimpl.ClientConfig{
		Hub: n.hub, Network: netw, Node: marketnode.Client{Manager: n.Payments}, Resolver: discovery.Static(nil),
		Store: n.space("/retrievals/client"), Targets: n.targets, SupportsAhead: n.supportsAhead, Holds: func(id rm.DealID) bool { return n.orders.Holds(download.Deal(id)) },
		Advances: accounting.AdvanceLimits{Bytes: uint64(max(0, n.parts.Config.Retrieval.MaxExposure)), Memory: 24 * time.Hour}, Now: n.parts.Now,
		Deadlines: clientstates.Deadlines(accept, idle, idle, 30*time.Minute), Log: n.log,
	})
	if err != nil {
		return err
	}
	if n.asks, err = askstore.NewAskStore(namespace.Wrap(n.space(providerRecords), datastore.NewKey("/retrieval-ask")), datastore.NewKey("/latest")); err != nil {
		return err
	}
	if n.parts.Provide {
		if err := n.newProvider(netw); err != nil {
			return err
		}
	}
	ready := make(chan error, 1)
	n.manager.OnReady(func(err error) { ready <- err })
	if err := n.manager.Start(n.ctx); err != nil {
		return err
	}
	select {
	case err := <-ready:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	if n.Provider != nil {
		if err := n.Provider.Start(n.ctx); err != nil {
			return err
		}
	}
	return nil
}

// startClient goes on with the deals and orders of the daemon itself; all others stand still (O-03).
func (n *Node) startClient(context.Context) error {
	if err := n.Client.Start(n.ctx); err != nil {
		return err
	}
	return n.orders.Start()
}

// readClient lets deals be listed.
func (n *Node) readClient(context.Context) error { return n.Client.StartReading(n.ctx) }

func (n *Node) newProvider(netw rmnet.RetrievalMarketNetwork) error {
	addr, err := n.parts.Wallet.Default()
	if err != nil {
		return err
	}
	credit, err := n.parts.Config.Credit.Limits()
	if err != nil {
		return err
	}
	cfg := n.parts.Config.Transfer
	pay, idle, accept := time.Duration(cfg.PaymentWaitTimeout), time.Duration(cfg.IdleTimeout), time.Duration(cfg.AcceptTimeout)
	n.Provider, err = retrievalimpl.NewProviderFromConfig(retrievalimpl.ProviderConfig{
		Hub: n.hub, Network: netw, Node: marketnode.Provider{Manager: n.Payments, Unseal: n.unsealSector}, Address: addr,
		FreeOnly: n.Payments == nil, RefusesMoney: n.refusesMoney, Pieces: n.pieces(), Credit: &credit, Now: n.parts.Now, Origins: n.originsOf,
		SupportsPrepaid: n.supportsPrepaid, Asks: n.asks, Store: n.space(providerRecords), TakesDeals: n.takesDeals, SelectorOver: func() { _ = n.limits.Hit(limits.Selector) },
		Deadlines: providerstates.Deadlines(min(time.Minute, accept), 24*time.Hour, pay, idle), Log: n.log,
	})
	return err
}

// supportsAhead and supportsPrepaid tell whether identify lists our protocols for a peer.
func (n *Node) supportsAhead(p peer.ID) bool { return n.lists(p, retrievalimpl.AheadProtocol) }

// A deal in advance goes over a stream, which holds a block back until it is paid.
func (n *Node) supportsPrepaid(p peer.ID) bool {
	return n.lists(p, retrievalimpl.PrepaidProtocol) && n.speaksStreams(p)
}

func (n *Node) lists(p peer.ID, name protocol.ID) bool {
	s, err := n.Host.Peerstore().SupportsProtocols(p, name)
	return err == nil && len(s) > 0
}

// parkTime bounds how long the orders of commands take to be parked when the node stops.
const parkTime = 3500 * time.Millisecond

// Close ends everything, bounded by ctx. Deals are not failed: those of the daemon go on at the next start, those of commands when somebody
// asks for them.
func (n *Node) Close(ctx context.Context) error {
	var errs []error
	if n.orders != nil {
		octx, stop := context.WithTimeout(ctx, parkTime)
		errs = append(errs, n.orders.Stop(octx))
		stop()
	}
	n.cancel()
	if n.pusher != nil {
		errs = append(errs, n.pusher.Stop(ctx))
	}
	if n.storage != nil {
		errs = append(errs, n.storage.Stop(ctx))
	}
	if n.Client != nil {
		errs = append(errs, n.Client.Stop(ctx))
	}
	if n.Provider != nil {
		errs = append(errs, n.Provider.Stop())
	}
	if n.manager != nil {
		errs = append(errs, n.manager.Stop(ctx))
	}
	if n.hub != nil {
		n.hub.Close()
	}
	if n.transfers != nil {
		errs = append(errs, n.transfers.Close())
	}
	if n.stopExchange != nil {
		n.stopExchange() // after the manager: it has requests to cancel, which graphsync would keep waiting otherwise
	}
	if n.Payments != nil {
		errs = append(errs, n.Payments.Close(ctx))
	}
	n.wg.Wait()
	if n.targets != nil {
		errs = append(errs, n.targets.Close())
	}
	errs = append(errs, n.blocks.close())
	if n.imports != nil {
		errs = append(errs, n.imports.Close())
	}
	if n.Pieces != nil {
		errs = append(errs, n.Pieces.Close())
	}
	return errors.Join(append(errs, n.closeHost())...)
}

// Addresses are the addresses of the node with its peer id.
func (n *Node) Addresses() []string {
	var out []string
	for _, a := range n.Host.Addrs() {
		out = append(out, a.String()+"/p2p/"+n.Host.ID().String())
	}
	return out
}

func (n *Node) wallet() (address.Address, error) { return n.parts.Wallet.Default() }
