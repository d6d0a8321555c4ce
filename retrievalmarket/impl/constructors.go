package retrievalimpl

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/port"
	"github.com/cartage-dev/cartage/multistore"
	"github.com/cartage-dev/cartage/piecestore"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/askstore"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/blockunsealing"
	"github.com/cartage-dev/cartage/retrievalmarket/network"
	"github.com/cartage-dev/cartage/storedcounter"
)

// Deadlines of the states of deals that are made with the published constructors: until an answer, for the chain, without any
// progress, and for the last blocks.
const (
	acceptDeadline = time.Minute
	chainDeadline  = 30 * time.Minute
	idleDeadline   = 10 * time.Minute
	lastDeadline   = 5 * time.Minute
)

// ClientOption changes a client that NewClient makes.
type ClientOption func(*Client)

// WithBlockstoreAccessor lets the caller supply the blockstore of each deal. A deal with a store id keeps that store.
func WithBlockstoreAccessor(a BlockstoreAccessor) ClientOption {
	return func(c *Client) { c.cfg.Targets.(*storeTargets).accessor = a }
}

// NewClient returns a client whose deals receive into the store of their id, or into the store of the transport. It must be made
// before dataTransfer starts. A provider over the same dataTransfer shares its registrations. The value is a *Client: Stop ends it.
func NewClient(net network.RetrievalMarketNetwork, multiStore *multistore.MultiStore, dataTransfer dt.Manager, node rm.RetrievalClientNode,
	resolver rm.PeerResolver, ds datastore.Batching, storedCounter *storedcounter.StoredCounter, options ...ClientOption) (rm.RetrievalClient, error) {
	hub, err := hubOf(dataTransfer, net.ID())
	if err != nil {
		return nil, err
	}
	c, err := NewClientFromConfig(ClientConfig{
		Hub: hub, Network: net, Node: node, Resolver: resolver, Store: ds,
		Targets: &storeTargets{multi: multiStore, ds: namespace.Wrap(ds, datastore.NewKey("/targets"))},
		NewID: func(ctx context.Context) (uint64, error) {
			return storedCounter.NextFrom(ctx, uint64(time.Now().UnixNano())) // M-11
		},
		Deadlines: ClientFSMParameterSpec.Deadlines,
	})
	if err != nil {
		return nil, err
	}
	hub.join()
	c.onStop = sync.OnceFunc(hub.leave)
	for _, o := range options {
		o(c)
	}
	return c, nil
}

// RetrievalProviderOption changes a provider.
type RetrievalProviderOption func(*Provider)

// DealDeciderOpt sets who decides whether a proposal is accepted; without one all are.
func DealDeciderOpt(dd DealDecider) RetrievalProviderOption {
	return func(p *Provider) { p.cfg.Decide = dd }
}

// DisableNewDeals takes proposals of the first generation only.
func DisableNewDeals() RetrievalProviderOption {
	return func(p *Provider) { p.cfg.LegacyOnly = true }
}

// PricingFuncOpt sets the price of each deal; without it the stored ask is the price.
func PricingFuncOpt(f RetrievalPricingFunc) RetrievalProviderOption {
	return func(p *Provider) { p.cfg.Pricing = f }
}

// PieceSourceOpt replaces the piece store and unsealing by a source of the caller's.
func PieceSourceOpt(s PieceSource) RetrievalProviderOption {
	return func(p *Provider) { p.cfg.Pieces = s }
}

// NewProvider returns a provider of the pieces in pieceStore, which are unsealed by node into stores of multiStore. It must be made
// before dataTransfer starts. A client over the same dataTransfer shares its registrations.
func NewProvider(minerAddress address.Address, node rm.RetrievalProviderNode, net network.RetrievalMarketNetwork, pieceStore piecestore.PieceStore,
	multiStore *multistore.MultiStore, dataTransfer dt.Manager, ds datastore.Batching, options ...RetrievalProviderOption) (rm.RetrievalProvider, error) {
	hub, err := hubOf(dataTransfer, net.ID())
	if err != nil {
		return nil, err
	}
	asks, err := askstore.NewAskStore(namespace.Wrap(ds, datastore.NewKey("/retrieval-ask")), datastore.NewKey("/latest"))
	if err != nil {
		return nil, err
	}
	source, err := blockunsealing.New(hub.ctx, pieceStore, multiStore, node, namespace.Wrap(ds, datastore.NewKey("/unsealed")))
	if err != nil {
		return nil, err
	}
	p, err := NewProviderFromConfig(ProviderConfig{
		Hub: hub, Network: net, Node: node, Address: minerAddress, Pieces: unsealed{source}, Asks: asks, Store: ds,
		Deadlines: ProviderFSMParameterSpec.Deadlines,
	})
	if err != nil {
		return nil, err
	}
	hub.join()
	p.onStop = sync.OnceValue(func() error {
		defer hub.leave()
		return source.Close(context.WithoutCancel(hub.ctx))
	})
	p.Configure(options...)
	return p, nil
}

// Configure applies options; it must not be called after Start.
func (p *Provider) Configure(options ...RetrievalProviderOption) {
	for _, o := range options {
		o(p)
	}
}

// unsealed is a source of sealed pieces.
type unsealed struct{ *blockunsealing.Source }

// Find implements PieceSource.
func (u unsealed) Find(ctx context.Context, payload cid.Cid, piece *cid.Cid) (Found, error) {
	info, size, err := u.Source.Find(ctx, payload, piece)
	return Found{Info: info, Size: size}, err
}

// Acquire implements PieceSource.
func (u unsealed) Acquire(ctx context.Context, piece cid.Cid) (Reader, error) {
	h, err := u.Source.Acquire(ctx, piece)
	if err != nil {
		return nil, err
	}
	return h, nil
}

// hubOf returns the hub of a manager: the one that is registered already, or a new one (M-34).
func hubOf(manager dt.Manager, self peer.ID) (*Hub, error) {
	if h, ok := port.ManagerOf(manager).Validator(&rm.DealProposal{}).(*Hub); ok {
		if h.self != self {
			return nil, fmt.Errorf("the data transfer belongs to peer %s, the network to %s", h.self, self)
		}
		return h, nil
	}
	return NewHub(manager, self)
}
