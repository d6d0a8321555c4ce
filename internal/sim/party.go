package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
	gsimpl "github.com/ipfs/go-graphsync/impl"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/ipld/go-ipld-prime"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/cartage-dev/cartage/carstore"
	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/channelmonitor"
	dtimpl "github.com/cartage-dev/cartage/datatransfer/impl"
	dtnet "github.com/cartage-dev/cartage/datatransfer/network"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	gstransport "github.com/cartage-dev/cartage/datatransfer/transport/graphsync"
	"github.com/cartage-dev/cartage/datatransfer/transport/router"
	"github.com/cartage-dev/cartage/datatransfer/transport/stream"
	"github.com/cartage-dev/cartage/discovery"
	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/internal/cartargets"
	"github.com/cartage-dev/cartage/internal/faults"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/paych"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/askstore"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/providerstates"
	"github.com/cartage-dev/cartage/retrievalmarket/marketnode"
	rmnet "github.com/cartage-dev/cartage/retrievalmarket/network"
)

// Deadlines of the states of deals, by virtual time. Faults are shorter: a deal that meets one of these stood still by itself.
const (
	acceptDeadline = 5 * time.Minute
	idleDeadline   = 10 * time.Minute
	stopDeadline   = 10 * time.Minute
)

// keyring is keys in memory.
type keyring map[address.Address]*paych.Key

// Has implements paych.Signer.
func (r keyring) Has(a address.Address) bool { return r[a] != nil }

// Key implements paych.Signer.
func (r keyring) Key(a address.Address) (*paych.Key, error) {
	if k := r[a]; k != nil {
		return k, nil
	}
	return nil, fmt.Errorf("%w: %s", paych.ErrNoKey, a)
}

// party is a client or a provider: what it is and keeps, and its process, while one runs.
type party struct {
	w        *world
	name     string
	number   int
	provider bool
	stream   bool // prefers streams to graphsync
	ahead    bool // is one of our own, by what identify lists
	id       peer.ID
	key      crypto.PrivKey
	keys     keyring
	address  address.Address
	disk     *disk
	noChain  atomic.Bool
	hostile  *thief        // nil: it is honest
	busy     chan struct{} // one start or end at a time

	run atomic.Pointer[process] // of now
}

// now is the run of the party that others see.
func (p *party) now() *process { return p.run.Load() }

// process is one run of a party.
type process struct {
	sw       *faults.Switch
	up       atomic.Bool
	host     *faultyHost
	manager  dt.Manager
	hub      *retrievalimpl.Hub
	market   *retrievalimpl.Client
	seller   *retrievalimpl.Provider
	asks     *askstore.AskStore
	payments *paych.Manager
	targets  targets
	state    datastore.Batching
	tending  chan struct{} // closed when nobody looks after the channels any more
	crashed  chan struct{} // closed by a crash at a write

	stopTending, stopExchange context.CancelFunc
}

// seeded is a source of key bytes that is the same in each run.
type seeded struct{ *rand.Rand }

// Read implements io.Reader.
func (s seeded) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(s.Uint32())
	}
	return len(p), nil
}

func newParty(w *world, name string, number int) (*party, error) {
	rnd := rand.New(rand.NewPCG(w.plan.Seed, uint64(1000+number)))
	key, _, err := crypto.GenerateEd25519Key(seeded{rnd})
	if err != nil {
		return nil, err
	}
	secret := make([]byte, 32)
	binary.BigEndian.PutUint64(secret, rnd.Uint64()>>1)
	binary.BigEndian.PutUint64(secret[24:], rnd.Uint64())
	k, err := paych.KeyFromPrivate(paych.KeySecp256k1, secret)
	if err != nil {
		return nil, err
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, err
	}
	p := &party{w: w, name: name, number: number, id: id, key: key, keys: keyring{k.Address: k}, address: k.Address, disk: newDisk(w.plan.Engine),
		busy: make(chan struct{}, 1)}
	p.run.Store(&process{sw: &faults.Switch{}})
	w.chain.fund(p.address, big.NewInt(wealth))
	return p, nil
}

// wealth is what a party has on the chain at first.
const wealth = 1_000_000_000_000

func space(ds datastore.Batching, name string) datastore.Batching {
	return namespace.Wrap(ds, datastore.NewKey(name))
}

// start begins a process over what is kept, as a node does.
func (p *party) start(ctx context.Context) (err error) {
	r := &process{sw: &faults.Switch{}, tending: make(chan struct{}), crashed: make(chan struct{})}
	sw := r.sw
	sw.OnCrash = func() { close(r.crashed) }
	sw.AtCrash = func() {
		if r.host != nil {
			r.host.silence()
		}
	}
	p.run.Store(r)
	records, err := p.disk.start()
	if err != nil {
		return err
	}
	r.state = faults.Store{Batching: records, Switch: sw}
	if r.host, err = p.w.net.host(p.key, p.number); err != nil {
		return err
	}
	if p.ahead {
		r.host.SetStreamHandler(retrievalimpl.AheadProtocol, func(s network.Stream) { _ = s.Close() })
	}
	r.host.SetStreamHandler(retrievalimpl.PrepaidProtocol, func(s network.Stream) { _ = s.Close() })
	exchange, stop := context.WithCancel(context.WithoutCancel(ctx))
	r.stopExchange = stop
	tending, stop := context.WithCancel(context.WithoutCancel(ctx))
	r.stopTending = stop
	chain := view{p.w.chain, func() error {
		if sw.Crashed() {
			return faults.ErrCrashed
		}
		if p.noChain.Load() {
			return errNoChain
		}
		return nil
	}}
	if r.payments, err = paych.Open(ctx, space(r.state, "/paych"), chain, p.keys, paych.MinSettleWindow(time.Millisecond)); err != nil {
		return err
	}
	if err := p.openTransfer(exchange, r); err != nil {
		return err
	}
	if err := p.openMarket(r); err != nil {
		return err
	}
	if err := testutil.StartAndWaitForReady(ctx, r.manager); err != nil {
		return err
	}
	if r.seller != nil {
		err = r.seller.Start(ctx)
	}
	if err == nil && r.market != nil {
		err = r.market.Start(ctx)
	}
	if err != nil {
		return err
	}
	go p.tend(tending, r)
	r.up.Store(true)
	return nil
}

var errNoChain error = reason.LedgerAway.Errorf("the chain is away")

// tend looks after the payment channels, as a node does.
func (p *party) tend(ctx context.Context, r *process) {
	defer close(r.tending)
	for t := time.NewTicker(p.w.tendEvery()); ; {
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
			began, able := time.Now(), p.seesChain(r)
			_ = r.payments.Maintain(ctx)
			if able && p.seesChain(r) {
				p.w.noteLook(p, began)
			}
		}
	}
}

// seesChain reports whether a process runs and reaches the chain.
func (p *party) seesChain(r *process) bool { return !r.sw.Crashed() && !p.noChain.Load() }

// tendEvery follows the settle delay of the chain: whoever is paid looks four times within it.
func (w *world) tendEvery() time.Duration {
	return min(20*time.Second, time.Duration(w.chain.settleDelay)*w.chain.epoch/4)
}

// nothing is the store of requests that belong to no channel.
func nothing() ipld.LinkSystem {
	return carstore.Links(func(cid.Cid) ([]byte, error) { return nil, carstore.ErrNotFound })
}

func (p *party) openTransfer(ctx context.Context, r *process) error {
	checked := gstransport.NewCheckedNetwork(gsnet.NewFromLibp2pHost(r.host))
	gs := gsimpl.New(ctx, checked, nothing(), gsimpl.MaxInProgressIncomingRequests(16), gsimpl.MaxInProgressOutgoingRequests(16),
		gsimpl.MaxMemoryResponder(64<<20), gsimpl.MaxMemoryPerPeerResponder(4<<20), gsimpl.RejectAllRequestsByDefault())
	opts := []gstransport.Option{gstransport.Checked(checked), gstransport.AsyncValidation(nothing())}
	var transport dt.Transport
	if p.stream {
		both := router.New(func(to peer.ID) bool { return p.lists(r, to, stream.ProtocolID) })
		both.Join(stream.New(r.host, nothing(), stream.OnBind(both.FastBound)),
			gstransport.NewTransport(p.id, gs, append(opts, gstransport.OnBind(both.SlowBound))...))
		transport = both
	} else {
		transport = gstransport.NewTransport(p.id, gs, opts...)
	}
	net := dtnet.NewFromLibp2pHost(r.host, dtnet.RetryParameters(100*time.Millisecond, 5*time.Second, 3, 3))
	var err error
	r.manager, err = dtimpl.NewDataTransfer(space(r.state, "/datatransfer"), net, transport, dtimpl.ChannelRestartConfig(channelmonitor.Config{
		RestartDebounce: 200 * time.Millisecond, RestartBackoff: time.Second, MaxConsecutiveRestarts: 12, CompleteTimeout: idleDeadline,
		BeforeRestart: func(ctx context.Context, id dt.ChannelID) error { return r.hub.BeforeRestart(ctx, id) },
	}), dtimpl.CompletionDelay(func(to peer.ID) time.Duration {
		if p.lists(r, to, retrievalimpl.AheadProtocol) {
			return 0
		}
		return 50 * time.Millisecond
	}))
	if err == nil {
		r.hub, err = retrievalimpl.NewHub(r.manager, p.id)
	}
	return err
}

// lists reports whether identify lists a protocol for a peer.
func (p *party) lists(r *process, to peer.ID, id protocol.ID) bool {
	known, err := r.host.Peerstore().SupportsProtocols(to, id)
	return err == nil && len(known) > 0
}

func (p *party) openMarket(r *process) (err error) {
	quiet := slog.New(slog.DiscardHandler)
	net := rmnet.NewFromLibp2pHost(r.host)
	if p.provider {
		if r.asks, err = askstore.NewAskStore(space(r.state, "/retrievals/provider/retrieval-ask"), datastore.NewKey("/latest")); err != nil {
			return err
		}
		r.seller, err = retrievalimpl.NewProviderFromConfig(retrievalimpl.ProviderConfig{
			Hub: r.hub, Network: net, Node: marketnode.Provider{Manager: r.payments}, Address: p.address, Pieces: p.w.pieces, Asks: r.asks,
			Credit: p.w.credit(),
			SupportsPrepaid: func(to peer.ID) bool {
				return p.stream && p.lists(r, to, stream.ProtocolID) && p.lists(r, to, retrievalimpl.PrepaidProtocol)
			},
			Store: space(r.state, "/retrievals/provider"), Deadlines: providerstates.Deadlines(acceptDeadline, idleDeadline, idleDeadline, idleDeadline), Log: quiet,
		})
		if err == nil {
			r.seller.SubscribeToEvents(func(e rm.ProviderEvent, s rm.ProviderDealState) { p.w.sawProvider(e, s) })
		}
		return err
	}
	fs := faults.FS{FS: fullFS{p.disk.files, &p.disk.full}, Switch: r.sw}
	if r.targets.Files, err = cartargets.New(fs, retrievals, space(r.state, "/retrievals/targets")); err != nil {
		return err
	}
	r.market, err = retrievalimpl.NewClientFromConfig(retrievalimpl.ClientConfig{
		Hub: r.hub, Network: net, Node: p.w.clientNode(p, r), Resolver: discovery.Static(nil), Store: space(r.state, "/retrievals/client"),
		Targets: p.w.clientTargets(p, r), SupportsAhead: func(to peer.ID) bool { return p.lists(r, to, retrievalimpl.AheadProtocol) },
		Advances:  accounting.AdvanceLimits{Bytes: 8 << 20, Memory: 24 * time.Hour},
		Deadlines: clientstates.Deadlines(acceptDeadline, idleDeadline, idleDeadline, idleDeadline), Log: quiet,
	})
	if err == nil {
		r.market.SubscribeToEvents(func(e rm.ClientEvent, s rm.ClientDealState) { p.w.sawClient(p, e, s) })
	}
	return err
}

// end ends the process in order. What a crashed one answers means nothing.
func (r *process) end(ctx context.Context, d *disk) error {
	tends := r.up.Swap(false) || r.sw.Crashed() && r.stopTending != nil
	ctx, cancel := context.WithTimeout(ctx, stopDeadline)
	defer cancel()
	var errs []error
	note := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	if r.stopTending != nil {
		r.stopTending()
	}
	if r.market != nil {
		note("client", r.market.Stop(ctx))
	}
	if r.seller != nil {
		note("provider", r.seller.Stop())
	}
	if r.manager != nil {
		note("manager", r.manager.Stop(ctx))
	}
	if r.hub != nil {
		r.hub.Close()
	}
	if r.stopExchange != nil {
		r.stopExchange() // after the manager: it has requests to cancel
	}
	if r.payments != nil {
		note("payments", r.payments.Close(ctx))
	}
	if tends {
		<-r.tending
	}
	if r.targets.Files != nil {
		note("targets", r.targets.Close())
	}
	if r.host != nil {
		note("host", r.host.Close())
	}
	note("records", d.stop())
	return errors.Join(errs...)
}
