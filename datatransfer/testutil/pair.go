package testutil

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	exchange "github.com/ipfs/go-graphsync"
	gsimpl "github.com/ipfs/go-graphsync/impl"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/ipld/go-ipld-prime"
	_ "github.com/ipld/go-ipld-prime/codec/dagcbor" // link system codecs
	_ "github.com/ipld/go-ipld-prime/codec/raw"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/impl"
	"github.com/cartage-dev/cartage/datatransfer/network"
	"github.com/cartage-dev/cartage/datatransfer/transport/graphsync"
	"github.com/cartage-dev/cartage/datatransfer/transport/router"
	"github.com/cartage-dev/cartage/datatransfer/transport/stream"
)

// MemStore is a link system in memory.
type MemStore struct {
	mu      sync.Mutex
	data    map[string][]byte
	onRead  func(cid.Cid)
	onWrite func(cid.Cid)
	leaves  []string
}

// OnWrite calls f before each block is written; f may wait.
func (s *MemStore) OnWrite(f func(cid.Cid)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onWrite = f
}

// OnRead calls f before each block is read; f may wait.
func (s *MemStore) OnRead(f func(cid.Cid)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onRead = f
}

// ForgetFrom deletes the leaves of the DAG that another store built last, from the i-th on.
func (s *MemStore) ForgetFrom(i int, of *MemStore) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range of.leaves[i:] {
		delete(s.data, l)
	}
}

// NewMemStore returns an empty store.
func NewMemStore() *MemStore { return &MemStore{data: map[string][]byte{}} }

// Forget deletes a leaf: the i-th block in the order of the DAG that was built last.
func (s *MemStore) Forget(i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.data, s.leaves[i])
}

// Len is the number of blocks.
func (s *MemStore) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.data)
}

// Bytes is the size of all blocks.
func (s *MemStore) Bytes() (n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.data {
		n += uint64(len(b))
	}
	return n
}

// Get reads a block.
func (s *MemStore) Get(c cid.Cid) ([]byte, error) {
	ls := s.LinkSystem()
	r, err := ls.StorageReadOpener(linking.LinkContext{}, cidlink.Link{Cid: c})
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// LinkSystem reads and writes the store.
func (s *MemStore) LinkSystem() ipld.LinkSystem {
	ls := cidlink.DefaultLinkSystem()
	ls.TrustedStorage = true
	ls.StorageReadOpener = func(_ linking.LinkContext, l ipld.Link) (io.Reader, error) {
		s.mu.Lock()
		f := s.onRead
		s.mu.Unlock()
		if cl, ok := l.(cidlink.Link); ok && f != nil {
			f(cl.Cid)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		b, ok := s.data[l.Binary()]
		if !ok {
			return nil, fmt.Errorf("block %s not found", l)
		}
		return bytes.NewReader(b), nil
	}
	ls.StorageWriteOpener = func(linking.LinkContext) (io.Writer, linking.BlockWriteCommitter, error) {
		var buf bytes.Buffer
		return &buf, func(l ipld.Link) error {
			s.mu.Lock()
			f := s.onWrite
			s.mu.Unlock()
			if cl, ok := l.(cidlink.Link); ok && f != nil {
				f(cl.Cid)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.data[l.Binary()] = buf.Bytes()
			return nil
		}, nil
	}
	return ls
}

// BuildDAG stores a list of n raw leaves of the given size and returns its root and the bytes of all blocks.
func (s *MemStore) BuildDAG(n, size int, seed uint64) (cid.Cid, uint64, error) {
	ls := s.LinkSystem()
	rnd := rand.New(rand.NewPCG(seed, 1))
	leafProto := cidlink.LinkPrototype{Prefix: cid.Prefix{Version: 1, Codec: cid.Raw, MhType: 0x12, MhLength: 32}}
	rootProto := cidlink.LinkPrototype{Prefix: cid.Prefix{Version: 1, Codec: cid.DagCBOR, MhType: 0x12, MhLength: 32}}
	links := make([]ipld.Link, n)
	for i := range links {
		b := make([]byte, size)
		for j := range b {
			b[j] = byte(rnd.Uint32())
		}
		l, err := ls.Store(linking.LinkContext{}, leafProto, basicnode.NewBytes(b))
		if err != nil {
			return cid.Undef, 0, err
		}
		links[i] = l
	}
	s.mu.Lock()
	s.leaves = nil
	for _, l := range links {
		s.leaves = append(s.leaves, l.Binary())
	}
	s.mu.Unlock()
	node, err := qp.BuildList(basicnode.Prototype.Any, int64(n), func(la ipld.ListAssembler) {
		for _, l := range links {
			qp.ListEntry(la, qp.Link(l))
		}
	})
	if err != nil {
		return cid.Undef, 0, err
	}
	root, err := ls.Store(linking.LinkContext{}, rootProto, node)
	if err != nil {
		return cid.Undef, 0, err
	}
	total := uint64(0)
	for _, b := range s.data {
		total += uint64(len(b))
	}
	return root.(cidlink.Link).Cid, total, nil
}

// Peer is a manager over real graphsync on a host.
type Peer struct {
	Host      host.Host
	Store     *MemStore
	Manager   dt.Manager
	Transport *graphsync.Transport
	Router    *router.Transport // over both transports, if streams are preferred
	cancel    context.CancelFunc
}

// PeerConfig is what a peer keeps over a restart of its process.
type PeerConfig struct {
	Key       crypto.PrivKey            // a new one when nil
	Store     *MemStore                 // an empty one when nil
	Datastore datastore.Batching        // one in memory when nil
	Prepare   func(m dt.Manager)        // registers types, before the start
	Options   []impl.DataTransferOption // beyond a completion that is told at once
	Host      []libp2p.Option
	On        host.Host // a host that is there already, which Close closes; Key and Host do not count then
	// Concurrent is how many requests of each direction are served at once; graphsync's own bound when 0.
	Concurrent uint64
	// Stream prefers streams to graphsync, with peers that do too.
	Stream bool
	// Later asks validators beside graphsync's loop (graphsync.AsyncValidation).
	Later bool
	// Exchange, if there is one, stands between the transport and graphsync.
	Exchange func(exchange.GraphExchange) exchange.GraphExchange
}

// NewPeer starts a peer on a loopback TCP address.
func NewPeer(ctx context.Context, ds datastore.Batching, opts ...impl.DataTransferOption) (*Peer, error) {
	return PeerConfig{Datastore: ds, Options: opts}.Start(ctx)
}

// Start starts a peer on a loopback TCP address.
func (cfg PeerConfig) Start(ctx context.Context) (*Peer, error) {
	opts := []libp2p.Option{libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay(), libp2p.DisableMetrics()}
	opts = append(opts, cfg.Host...)
	if cfg.Key != nil {
		opts = append(opts, libp2p.Identity(cfg.Key))
	}
	h := cfg.On
	if h == nil {
		var err error
		if h, err = libp2p.New(opts...); err != nil {
			return nil, err
		}
	}
	if cfg.Datastore == nil {
		cfg.Datastore = dssync.MutexWrap(datastore.NewMapDatastore())
	}
	if cfg.Store == nil {
		cfg.Store = NewMemStore()
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // Close ends it, in order
	p := &Peer{Host: h, Store: cfg.Store, cancel: cancel}
	var bounds []gsimpl.Option
	if n := cfg.Concurrent; n > 0 {
		bounds = append(bounds, gsimpl.MaxInProgressIncomingRequests(n), gsimpl.MaxInProgressOutgoingRequests(n))
	}
	checked := graphsync.NewCheckedNetwork(gsnet.NewFromLibp2pHost(h))
	gs := gsimpl.New(ctx, checked, p.Store.LinkSystem(), bounds...)
	if cfg.Exchange != nil {
		gs = cfg.Exchange(gs)
	}
	var err error
	p.Manager, err = impl.NewDataTransfer(cfg.Datastore, network.NewFromLibp2pHost(h), p.transport(gs, checked, cfg),
		append([]impl.DataTransferOption{impl.CompletionDelay(func(peer.ID) time.Duration { return 0 })}, cfg.Options...)...)
	if err != nil {
		cancel()
		return nil, err
	}
	if cfg.Prepare != nil {
		cfg.Prepare(p.Manager)
	}
	return p, StartAndWaitForReady(ctx, p.Manager)
}

// transport makes the transport of a peer, and the router if there are two.
func (p *Peer) transport(gs exchange.GraphExchange, checked *graphsync.CheckedNetwork, cfg PeerConfig) dt.Transport {
	opts := []graphsync.Option{graphsync.Checked(checked)}
	if cfg.Later {
		opts = append(opts, graphsync.AsyncValidation(p.Store.LinkSystem()))
	}
	if !cfg.Stream {
		p.Transport = graphsync.NewTransport(p.Host.ID(), gs, opts...)
		return p.Transport
	}
	p.Router = router.New(func(to peer.ID) bool {
		known, err := p.Host.Peerstore().SupportsProtocols(to, stream.ProtocolID)
		return err == nil && len(known) > 0
	})
	p.Transport = graphsync.NewTransport(p.Host.ID(), gs, append(opts, graphsync.OnBind(p.Router.SlowBound))...)
	p.Router.Join(stream.New(p.Host, p.Store.LinkSystem(), stream.OnBind(p.Router.FastBound)), p.Transport)
	return p.Router
}

// StartAndWaitForReady starts a manager and waits for its store.
func StartAndWaitForReady(ctx context.Context, m dt.Manager) error {
	ready := make(chan error, 1)
	m.OnReady(func(err error) { ready <- err })
	if err := m.Start(ctx); err != nil {
		return err
	}
	select {
	case err := <-ready:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Connect makes two peers know each other.
func Connect(ctx context.Context, a, b *Peer) error {
	return a.Host.Connect(ctx, peer.AddrInfo{ID: b.Host.ID(), Addrs: b.Host.Addrs()})
}

// Close stops manager and host.
func (p *Peer) Close(ctx context.Context) error {
	err := p.Manager.Stop(ctx)
	p.cancel()
	if cerr := p.Host.Close(); err == nil {
		err = cerr
	}
	return err
}
