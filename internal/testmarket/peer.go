package testmarket

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/channelmonitor"
	"github.com/cartage-dev/cartage/datatransfer/impl"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/discovery"
	"github.com/cartage-dev/cartage/piecestore"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/askstore"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/providerstates"
	"github.com/cartage-dev/cartage/retrievalmarket/network"
)

// Peer is a client and a provider on one data-transfer manager. What it keeps outlives Stop and Start.
type Peer struct {
	Bank    *SimulatedBank
	Book    bool // the nodes have voucher books
	Key     crypto.PrivKey
	Store   *testutil.MemStore
	State   datastore.Batching
	Address address.Address
	// NewHost makes the host of each start; nil is a loopback TCP address.
	NewHost func() (host.Host, error)
	// Config changes the provider's configuration at each start, and ClientConfig the client's.
	Config       func(*retrievalimpl.ProviderConfig)
	ClientConfig func(*retrievalimpl.ClientConfig)
	Idle         time.Duration // deadline of the states; 20 s when 0
	Foreign      bool          // its clients are of another kind
	Stream       bool          // streams are preferred to graphsync

	targets *targets
	*testutil.Peer
	Hub      *retrievalimpl.Hub
	Client   *retrievalimpl.Client
	Provider *retrievalimpl.Provider
	Asks     *askstore.AskStore
}

// NewPeer makes a peer that is not started yet; n tells peers apart.
func NewPeer(bank *SimulatedBank, n uint64) (*Peer, error) {
	key, _, err := crypto.GenerateEd25519Key(counter(n))
	if err != nil {
		return nil, err
	}
	addr, err := address.NewIDAddress(1000 + n)
	if err != nil {
		return nil, err
	}
	p := &Peer{Bank: bank, Key: key, Store: testutil.NewMemStore(), State: dssync.MutexWrap(datastore.NewMapDatastore()), Address: addr}
	p.targets = &targets{peer: p, deals: map[rm.DealID]*target{}}
	return p, nil
}

// counter is a source of key bytes that is the same in each run.
type counter uint64

func (c counter) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(uint64(c) >> (8 * (i % 8)))
	}
	return len(p), nil
}

func (p *Peer) space(name string) datastore.Batching {
	return namespace.Wrap(p.State, datastore.NewKey(name))
}

// Start starts the peer.
func (p *Peer) Start(ctx context.Context) error {
	cfg := testutil.PeerConfig{Stream: p.Stream, Later: true, Key: p.Key, Store: p.Store, Datastore: p.space("/datatransfer"),
		Concurrent: 64,
		Options: []impl.DataTransferOption{impl.ChannelRestartConfig(channelmonitor.Config{RestartDebounce: 50 * time.Millisecond, RestartBackoff: 100 * time.Millisecond,
			MaxConsecutiveRestarts: 5, CompleteTimeout: p.idle(),
			BeforeRestart: func(ctx context.Context, id dt.ChannelID) error { return p.Hub.BeforeRestart(ctx, id) }})},
	}
	if p.Foreign {
		cfg.Options = append(cfg.Options, impl.CompletionDelay(func(peer.ID) time.Duration { return 50 * time.Millisecond }))
	}
	if p.NewHost != nil {
		h, err := p.NewHost()
		if err != nil {
			return err
		}
		cfg.On = h
	}
	var err, perr error
	cfg.Prepare = func(m dt.Manager) { perr = p.prepare(m) }
	p.Peer, err = cfg.Start(ctx)
	if err = errors.Join(err, perr); err != nil {
		return err
	}
	if err := p.Provider.Start(ctx); err != nil {
		return err
	}
	return p.Client.Start(ctx)
}

func (p *Peer) idle() time.Duration {
	if p.Idle == 0 {
		return 20 * time.Second
	}
	return p.Idle
}

// lateNetwork is the network of a host that exists as soon as the market is started.
type lateNetwork struct {
	p    *Peer
	once sync.Once
	net  network.RetrievalMarketNetwork
}

// NewQueryStream implements network.RetrievalMarketNetwork.
func (l *lateNetwork) NewQueryStream(ctx context.Context, to peer.ID) (network.RetrievalQueryStream, error) {
	return l.get().NewQueryStream(ctx, to)
}

// SetDelegate implements network.RetrievalMarketNetwork.
func (l *lateNetwork) SetDelegate(r network.RetrievalReceiver) error { return l.get().SetDelegate(r) }

// StopHandlingRequests implements network.RetrievalMarketNetwork.
func (l *lateNetwork) StopHandlingRequests() error { return l.get().StopHandlingRequests() }

// ID implements network.RetrievalMarketNetwork.
func (l *lateNetwork) ID() peer.ID { return l.get().ID() }

// AddAddrs implements network.RetrievalMarketNetwork.
func (l *lateNetwork) AddAddrs(to peer.ID, addrs []ma.Multiaddr) { l.get().AddAddrs(to, addrs) }

func (l *lateNetwork) get() network.RetrievalMarketNetwork {
	l.once.Do(func() { l.net = network.NewFromLibp2pHost(l.p.Host) })
	return l.net
}

func (p *Peer) prepare(m dt.Manager) (err error) {
	id, err := peer.IDFromPrivateKey(p.Key)
	if err != nil {
		return err
	}
	if p.Hub, err = retrievalimpl.NewHub(m, id); err != nil {
		return err
	}
	quiet := slog.New(slog.DiscardHandler)
	net := &lateNetwork{p: p}
	ccfg := retrievalimpl.ClientConfig{Hub: p.Hub, Network: net, Node: Client{p.Bank}, Resolver: discovery.Static(nil), Store: p.space("/client"), Targets: p.targets,
		Deadlines: clientstates.Deadlines(p.idle(), p.idle(), p.idle(), p.idle()), Log: quiet}
	if p.Asks, err = askstore.NewAskStore(p.space("/provider/retrieval-ask"), datastore.NewKey("/latest")); err != nil {
		return err
	}
	pcfg := retrievalimpl.ProviderConfig{Hub: p.Hub, Network: net, Node: Provider{p.Bank}, Address: p.Address, Pieces: p, Asks: p.Asks, Store: p.space("/provider"),
		Deadlines: providerstates.Deadlines(p.idle(), p.idle(), p.idle(), p.idle()), Log: quiet}
	if p.Book {
		ccfg.Node, pcfg.Node = ClientBook{Client{p.Bank}, p.Address}, ProviderBook{Provider{p.Bank}, p.Address}
	}
	if p.Config != nil {
		p.Config(&pcfg)
	}
	if p.ClientConfig != nil {
		p.ClientConfig(&ccfg)
	}
	if p.Client, err = retrievalimpl.NewClientFromConfig(ccfg); err != nil {
		return err
	}
	p.Provider, err = retrievalimpl.NewProviderFromConfig(pcfg)
	return err
}

// Stop ends the peer; deals go on at the next start.
func (p *Peer) Stop(ctx context.Context) error {
	err := errors.Join(p.Client.Stop(ctx), p.Provider.Stop(), p.Close(ctx))
	p.Hub.Close()
	return err
}

// As is the peer as a seller.
func (p *Peer) As() rm.RetrievalPeer { return rm.RetrievalPeer{Address: p.Address, ID: p.Host.ID()} }

// Know makes two peers know each other's addresses.
func Know(a, b *Peer) {
	a.Host.Peerstore().AddAddrs(b.Host.ID(), b.Host.Addrs(), time.Hour)
	b.Host.Peerstore().AddAddrs(a.Host.ID(), a.Host.Addrs(), time.Hour)
}

// Find implements retrievalimpl.PieceSource: each block is the payload of a piece of its own.
func (p *Peer) Find(_ context.Context, payload cid.Cid, piece *cid.Cid) (retrievalimpl.Found, error) {
	if piece != nil && !piece.Equals(payload) {
		return retrievalimpl.Found{}, fmt.Errorf("piece with CID %s: %w", piece, rm.ErrNotFound)
	}
	if _, err := p.Get(payload); err != nil {
		return retrievalimpl.Found{}, fmt.Errorf("payload CID %s: %w", payload, rm.ErrNotFound)
	}
	return retrievalimpl.Found{Info: piecestore.PieceInfo{PieceCID: payload}, Size: p.Store.Bytes()}, nil
}

// Acquire implements retrievalimpl.PieceSource.
func (p *Peer) Acquire(context.Context, cid.Cid) (retrievalimpl.Reader, error) {
	return reader{p}, nil
}

type reader struct{ *Peer }

// Close implements retrievalimpl.Reader.
func (reader) Close() error { return nil }

// Get reads a block.
func (p *Peer) Get(c cid.Cid) ([]byte, error) { return p.Store.Get(c) }
