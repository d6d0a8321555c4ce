// Package testnet runs a ledger, providers and clients in one process, with real libp2p over loopback TCP, and faults where a
// test wants them. A peer can be killed at any write and started again over what it had written.
package testnet

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/filecoin-project/go-state-types/big"

	"github.com/filecoin-project/go-address"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/faults"
	"github.com/cartage-dev/cartage/internal/node"
	"github.com/cartage-dev/cartage/paych"
	"github.com/cartage-dev/cartage/paych/ledger"
	"github.com/cartage-dev/cartage/paych/lotus"
	"github.com/cartage-dev/cartage/paych/paychtest"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
)

// Net is a ledger, or a simulated Lotus node, that its peers share.
type Net struct {
	Dir    string
	Ledger *ledger.Ledger
	Lotus  *paychtest.SimulatedLotus
	url    string
	token  string
	stop   context.CancelFunc
	served chan error
}

// New starts a ledger with a faucet.
func New(ctx context.Context, dir string) (*Net, error) {
	home := filepath.Join(dir, "ledger")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	if err := ledger.Init(home, ledger.Options{Dev: true, Epoch: 20 * time.Millisecond, SettleDelay: 100}); err != nil {
		return nil, err
	}
	l, err := ledger.Open(ctx, home)
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	n := &Net{Dir: dir, Ledger: l, url: "http://" + ln.Addr().String(), token: "test", stop: cancel, served: make(chan error, 1)}
	go func() { n.served <- l.Serve(ctx, ln, n.token) }()
	return n, nil
}

// NewLotus starts a simulated Lotus node, whose time stands still until it is told otherwise.
func NewLotus(dir string) *Net { return &Net{Dir: dir, Lotus: paychtest.NewSimulatedLotus()} }

// fund gives an address money.
func (n *Net) fund(ctx context.Context, a address.Address) error {
	if n.Lotus != nil {
		n.Lotus.Fund(a, big.NewInt(1_000_000_000_000), true)
		return nil
	}
	_, err := n.Ledger.Faucet(ctx, a)
	return err
}

// dial returns the chain for a wallet.
func (n *Net) dial(ctx context.Context, w *paych.Wallet) (paych.Chain, func(), error) {
	if n.Lotus != nil {
		return lotus.Dial(ctx, lotus.Config{URL: n.Lotus.URL, Token: paychtest.TokenSign, Rest: 100 * time.Millisecond})
	}
	return ledger.Dial(ctx, n.url, n.token, w)
}

// Payer is the channel manager of somebody who is no peer of this network, with money on the chain.
func (n *Net) Payer(ctx context.Context, name string) (*paych.Manager, address.Address, func(), error) {
	w, err := paych.OpenWallet(blob.OS{}, filepath.Join(n.Dir, name))
	if err != nil {
		return nil, address.Undef, nil, err
	}
	a, err := w.New()
	if err != nil {
		return nil, address.Undef, nil, err
	}
	if err := n.fund(ctx, a); err != nil {
		return nil, address.Undef, nil, err
	}
	chain, hangup, err := n.dial(ctx, w)
	if err != nil {
		return nil, address.Undef, nil, err
	}
	m, err := paych.Open(ctx, dssync.MutexWrap(datastore.NewMapDatastore()), chain, w, paych.MinSettleWindow(time.Millisecond))
	if err != nil {
		hangup()
		return nil, address.Undef, nil, err
	}
	return m, a, hangup, nil
}

// Close stops the ledger.
func (n *Net) Close() error {
	if n.Lotus != nil {
		n.Lotus.Close()
		return nil
	}
	n.stop()
	return errors.Join(<-n.served, n.Ledger.Close())
}

// listenCloser is a network that can stop to listen.
type listenCloser interface{ ListenClose(addrs ...ma.Multiaddr) }

// Peer is a node that can be killed and started again. What it wrote outlives it.
type Peer struct {
	net     *Net
	name    string
	provide bool
	home    config.Home
	key     crypto.PrivKey
	Wallet  *paych.Wallet
	state   datastore.Batching
	port    int
	// Config counts from the next Start on.
	Config config.Config
	// WrapPieces changes what a provider serves; it counts from the next Start on.
	WrapPieces func(retrievalimpl.PieceSource) retrievalimpl.PieceSource
	// Listen are the addresses of the next Start, instead of a TCP port that stays the same; nil: that port.
	Listen []string
	// Now is the clock of credit and debts; it counts from the next Start on.
	Now func() time.Time
	// WrapHost listens to what is said to others, WrapChain changes what the chain says, Log is the node's own; they count from the next Start on.
	WrapHost  func(host.Host) host.Host
	WrapChain func(paych.Chain) paych.Chain
	Log       *slog.Logger

	*node.Node
	hangup func()
	host   atomic.Pointer[host.Host]
}

// Peer makes a peer with money; Start runs it.
func (n *Net) Peer(ctx context.Context, name string, provide bool) (*Peer, error) {
	h := config.Home{Dir: filepath.Join(n.Dir, name)}
	if err := os.MkdirAll(h.Dir, 0o700); err != nil {
		return nil, err
	}
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, err
	}
	w, err := paych.OpenWallet(blob.OS{}, h.Path("wallet"))
	if err != nil {
		return nil, err
	}
	a, err := w.New()
	if err != nil {
		return nil, err
	}
	if err := n.fund(ctx, a); err != nil {
		return nil, err
	}
	cfg := config.Default()
	cfg.Transfer.RestartDebounce = config.Duration(5 * time.Millisecond)
	cfg.Ledger.MinSettleWindow = config.Auto(time.Millisecond) // that of the ledger here is 2 s
	return &Peer{net: n, name: name, provide: provide, home: h, key: key, Wallet: w, state: dssync.MutexWrap(datastore.NewMapDatastore()), Config: cfg}, nil
}

func (p *Peer) listenOn() []string {
	if p.Listen != nil {
		return p.Listen
	}
	return []string{fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", p.port)}
}

// Start builds the node over what is stored. sw may be nil.
func (p *Peer) Start(ctx context.Context, sw *faults.Switch) error {
	if sw == nil {
		sw = &faults.Switch{}
	}
	chain, hangup, err := p.net.dial(ctx, p.Wallet)
	if err != nil {
		return err
	}
	if p.WrapChain != nil {
		chain = p.WrapChain(chain)
	}
	n, err := node.Build(ctx, node.Parts{
		Home: p.home, Config: p.Config, Key: p.key, Wallet: p.Wallet, Chain: chain, Provide: p.provide,
		State: faults.Store{Batching: p.state, Switch: sw}, FS: faults.FS{FS: blob.OS{}, Switch: sw},
		WrapPieces: p.WrapPieces, WrapHost: p.WrapHost, Log: p.Log, Now: p.Now, Listen: p.listenOn(),
	})
	if err != nil {
		hangup()
		return err
	}
	p.Node, p.hangup = n, hangup
	p.host.Store(&n.Host)
	if p.port == 0 && p.Listen == nil {
		var port int
		if _, err := fmt.Sscanf(n.Host.Addrs()[0].String(), "/ip4/127.0.0.1/tcp/%d", &port); err != nil {
			return err
		}
		p.port = port
	}
	return nil
}

// Stop ends the node; errors of a node that crashed mean nothing.
func (p *Peer) Stop(ctx context.Context) error {
	if p.Node == nil {
		return nil
	}
	err := p.Node.Close(ctx)
	p.hangup()
	p.Node = nil
	return err
}

// Silence cuts a running peer off from everybody at once, as the end of its process does: what it would still say is not heard.
func (p *Peer) Silence() {
	h := p.host.Load()
	if h == nil {
		return
	}
	if s, ok := (*h).Network().(listenCloser); ok {
		s.ListenClose((*h).Network().ListenAddresses()...)
	}
	for _, known := range (*h).Peerstore().Peers() { // nor does it dial
		(*h).Peerstore().ClearAddrs(known)
	}
	for _, c := range (*h).Network().Conns() {
		_ = c.Close()
	}
}

// Address is the multiaddress of the peer.
func (p *Peer) Address() string { return p.Node.Addresses()[0] }

// Retrieve runs a retrieval to its end.
func (p *Peer) Retrieve(ctx context.Context, req api.RetrieveRequest) (*api.Retrieval, error) {
	a := p.Node.API()
	r, err := a.Retrieve(ctx, req)
	for err == nil && !r.Done {
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		r, err = a.Retrieval(ctx, r.Key)
	}
	return r, err
}
