package retrievalimpl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipld/go-ipld-prime"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/carstore"
	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/fsm"
	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/multistore"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
	"github.com/cartage-dev/cartage/retrievalmarket/network"
	"github.com/cartage-dev/cartage/shared"
)

// Target is where the blocks of a deal go.
type Target interface {
	LinkSystem() ipld.LinkSystem
	// Locate tells how far the target holds a traversal.
	Locate(selector ipld.Node) (carstore.Position, error)
	// Base is what the target held when the deal began: bytes that are not owed for.
	Base() uint64
	// Bytes is what it holds now: blocks that came twice are in it once.
	Bytes() uint64
}

// FinishedTarget is a target that is made complete on stable storage before the end of its deal is stored. Finish may be called again.
type FinishedTarget interface {
	Target
	Finish() error
}

// SyncedTarget is a target that can put on stable storage what it holds, before that is claimed to a provider.
type SyncedTarget interface {
	Target
	Sync() error
}

// Targets opens the targets of deals. Open is called again after a restart of the process.
type Targets interface {
	// Open may answer no target and no error: the deal receives into the store of the transport then.
	Open(ctx context.Context, deal rm.ClientDealState) (Target, error)
	Done(deal rm.ClientDealState)
}

// ClientConfig is what a client is made of.
type ClientConfig struct {
	Hub      *Hub
	Network  network.RetrievalMarketNetwork
	Node     rm.RetrievalClientNode
	Resolver rm.PeerResolver
	Store    datastore.Batching // namespaced by the caller
	Targets  Targets
	// Holds tells at Start which deals stand still until ResumeDeal; none when nil.
	Holds func(rm.DealID) bool
	// MaxBytes bounds what a deal may receive, whatever it costs; 0 is no bound of its own (M-07). It may be nil.
	MaxBytes func(rm.ClientDealState) uint64
	// SupportsAhead tells whether a peer takes vouchers that it did not ask for.
	SupportsAhead func(peer.ID) bool
	// Advances bounds what providers that give no credit are paid in advance; zero pays nobody in advance.
	Advances accounting.AdvanceLimits
	// Now is the time by which an advance that was lost is remembered; time.Now when nil.
	Now func() time.Time
	// NewID numbers deals, each above all before; by the clock when nil.
	NewID     func(context.Context) (uint64, error)
	Deadlines map[fsm.StateKey]fsm.Deadline
	Log       *slog.Logger
}

// Client implements retrievalmarket.RetrievalClient.
type Client struct {
	cfg   ClientConfig
	table *fsm.Table[rm.ClientDealState]
	store deals[rm.ClientDealState, *rm.ClientDealState]
	subs  *subscribers[rm.ClientEvent, rm.ClientDealState]
	ready *shared.ReadyManager
	ids   *shared.TimeCounter

	ctx    context.Context
	cancel context.CancelFunc
	group  lifecycle.Group
	onStop func()

	creating sync.Mutex // one new deal at a time: a second one for a payload is looked for first

	mu       sync.Mutex
	deals    map[rm.DealID]*clientDeal
	byChan   map[dt.ChannelID]*clientDeal
	active   map[payloadKey][]*clientDeal // that have not ended
	offers   offers
	advances *accounting.Advances // after Start
}

var _ rm.RetrievalClient = (*Client)(nil)

// clientDeal is the owner of a deal in progress.
type clientDeal struct {
	id      rm.DealID
	machine *fsm.Machine[rm.ClientDealState]
	stored  bool // taken up from the store: a channel may have been opened for it before
	keep    keeper[rm.ClientDealState]
	last    rm.DealStatus // that was stored, or waits to be; the machine's own

	mu        sync.Mutex
	held      bool // stands still: see HoldDeal
	chid      dt.ChannelID
	former    []dt.ChannelID // of proposals that were made again
	target    Target
	hide      cid.Cid // answered as missing once, so that the provider is asked though everything is here
	received  uint64
	reported  time.Time
	status    rm.DealStatus   // that was told last
	next      uint64          // verified bytes from which on the decision to pay may be another one
	signed    abi.TokenAmount // the last voucher that left
	repeats   int             // of it since the last byte
	quietFrom time.Time       // the last byte came, or the wait for it began
	link      accounting.Link
	size      uint64 // of the payload as it was offered, 0 if it was not
	completed bool   // the provider said so
	accepted  bool   // the acceptance was told
	answered  bool   // the provider has said something about the deal
	sends     bool   // the provider asks for money for a block, and not before it sends any
	again     int    // times that it was proposed once more
	alarm     *time.Timer
}

// NewClientFromConfig makes a client; Start runs it.
func NewClientFromConfig(cfg ClientConfig) (*Client, error) {
	t, err := fsm.Compile(clientstates.Spec(cfg.Deadlines))
	if err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	c := &Client{cfg: cfg, table: t, store: deals[rm.ClientDealState, *rm.ClientDealState]{cfg.Store, func(d *rm.ClientDealState) { d.LegacyProtocol = true }},
		ready: shared.NewReadyManager(), deals: map[rm.DealID]*clientDeal{}, byChan: map[dt.ChannelID]*clientDeal{}, active: map[payloadKey][]*clientDeal{}}
	c.subs = newSubscribers[rm.ClientEvent, rm.ClientDealState](func(e rm.ClientEvent) bool { return e == rm.ClientEventBlocksReceived })
	cfg.Hub.client = c
	return c, nil
}

// Start implements retrievalmarket.RetrievalClient: it opens the store and continues unfinished deals.
func (c *Client) Start(ctx context.Context) error {
	c.ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	var open, untold []rm.ClientDealState
	last := uint64(0)
	err := c.store.open(ctx)
	if err == nil {
		c.advances, err = accounting.OpenAdvances(ctx, c.cfg.Store, c.cfg.Advances, c.cfg.Now)
	}
	if err == nil {
		err = c.store.each(ctx, func(d rm.ClientDealState) error {
			last = max(last, uint64(d.ID))
			if !c.table.Final(d.Status) {
				open = append(open, d)
			} else if unconfirmed(&d) {
				untold = append(untold, d)
			}
			return nil
		})
	}
	c.ids = shared.NewTimeCounter(last)
	for _, d := range open {
		if err != nil {
			break
		}
		err = c.load(ctx, d, c.cfg.Holds != nil && c.cfg.Holds(d.ID))
	}
	for _, d := range untold {
		if err == nil {
			endTeller{c}.begin(d)
		}
	}
	c.ready.FireReady(err)
	return err
}

// StartReading is Start of a client whose deals are only listed: none is taken up, and no record of one is changed.
func (c *Client) StartReading(ctx context.Context) error {
	c.ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	err := c.store.open(ctx)
	if err == nil {
		c.advances, err = accounting.OpenAdvances(ctx, c.cfg.Store, c.cfg.Advances, c.cfg.Now)
	}
	c.ids = shared.NewTimeCounter(0)
	c.ready.FireReady(err)
	return err
}

// OnReady implements retrievalmarket.RetrievalClient.
func (c *Client) OnReady(f shared.ReadyFunc) { c.ready.OnReady(f) }

// Stop ends all processing; deals go on at the next start.
func (c *Client) Stop(ctx context.Context) error {
	if c.cancel == nil {
		return nil
	}
	c.cancel()
	c.mu.Lock()
	list := make([]*clientDeal, 0, len(c.deals))
	for _, d := range c.deals {
		list = append(list, d)
	}
	c.mu.Unlock()
	var errs []error
	for _, d := range list {
		errs = append(errs, d.machine.Stop(ctx))
		d.keep.close()
		d.mu.Lock()
		d.stopAlarm()
		d.mu.Unlock()
	}
	errs = append(errs, c.group.Close(ctx))
	errs = append(errs, c.subs.flush(context.WithoutCancel(ctx)))
	if c.onStop != nil {
		c.onStop()
	}
	return errors.Join(errs...)
}

func (c *Client) track(d rm.ClientDealState) *clientDeal {
	cd := &clientDeal{id: d.ID, received: d.TotalReceived, last: d.Status, signed: big.Zero()}
	cd.keep.write = func(rec rm.ClientDealState) error { return c.put(rec, false) }
	cd.machine = fsm.NewMachine(c.ctx, c.table, d, c, fsm.Hooks[rm.ClientDealState]{
		Persist: func(e fsm.EventName, rec rm.ClientDealState) error { return c.persist(cd, e, rec) },
		Notify:  func(e fsm.EventName, rec rm.ClientDealState) { c.notify(cd, e, rec) },
		Dropped: func(e fsm.EventName, rec rm.ClientDealState, err error) {
			c.cfg.Log.Debug("client deal event dropped", "deal", rec.ID, "error", err)
		},
		Failed: func(_ rm.ClientDealState, err error) (fsm.EventName, []any) {
			return rm.ClientEventDataTransferError, []any{err}
		},
	})
	c.mu.Lock()
	c.deals[d.ID] = cd
	c.active[payloadOf(d)] = append(c.active[payloadOf(d)], cd)
	c.mu.Unlock()
	if d.ChannelID != (dt.ChannelID{}) {
		c.bind(cd, d.ChannelID)
	}
	return cd
}

func (c *Client) notify(cd *clientDeal, e fsm.EventName, rec rm.ClientDealState) {
	c.observe(cd, rec)
	event, _ := e.(rm.ClientEvent)
	if event != rm.ClientEventBlocksReceived {
		c.cfg.Log.Info("client deal", "deal", rec.ID, "event", c.table.EventName(e), "state", rec.Status.String(), "message", rec.Message)
	}
	switch event {
	case clientstates.PaymentNotSent, clientstates.ProposedAgain, clientstates.FundsRaised: // they have no published name
	case clientstates.NotUnderstood:
		c.subs.publish(rm.ClientEventDealRejected, rec)
	case clientstates.TooLarge:
		c.subs.publish(rm.ClientEventDataTransferError, rec)
	case clientstates.Overasked:
		c.subs.publish(rm.ClientEventComplete, rec)
	default:
		c.subs.publish(event, rec)
	}
	if c.table.Final(rec.Status) {
		c.finished(cd, rec)
	}
}

// release gives back the funds of a deal that ends, before its end is stored.
func (c *Client) release(rec rm.ClientDealState) {
	if b, ok := c.cfg.Node.(rm.ClientBook); ok {
		if err := b.ReleaseDeal(context.WithoutCancel(c.ctx), clientstates.DealKey(rec.ID)); err != nil {
			c.cfg.Log.Warn("release funds of deal", "deal", rec.ID, "error", err)
		}
	}
}

// payloadKey is what a deal is about: there is one at a time with a peer.
type payloadKey struct {
	from peer.ID
	root cid.Cid
}

func payloadOf(d rm.ClientDealState) payloadKey { return payloadKey{d.Sender, d.PayloadCID} }

func (c *Client) finished(cd *clientDeal, rec rm.ClientDealState) {
	c.mu.Lock()
	delete(c.deals, rec.ID)
	left := slices.DeleteFunc(c.active[payloadOf(rec)], func(o *clientDeal) bool { return o == cd })
	if c.active[payloadOf(rec)] = left; len(left) == 0 {
		delete(c.active, payloadOf(rec))
	}
	delete(c.byChan, rec.ChannelID)
	c.mu.Unlock()
	if c.cfg.Targets != nil {
		c.cfg.Targets.Done(rec)
	}
	if unconfirmed(&rec) {
		endTeller{c}.begin(rec)
	}
}

func (c *Client) deal(id rm.DealID) *clientDeal {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.deals[id]
}

// Retrieve implements retrievalmarket.RetrievalClient.
func (c *Client) Retrieve(ctx context.Context, payload cid.Cid, params rm.Params, totalFunds abi.TokenAmount, p rm.RetrievalPeer, clientWallet, minerWallet address.Address, storeID *multistore.StoreID) (rm.DealID, error) {
	if err := c.ready.Ready(); err != nil {
		return 0, err
	}
	id := c.NextID()
	if c.cfg.NewID != nil {
		n, err := c.cfg.NewID(ctx)
		if err != nil {
			return 0, fmt.Errorf("number of the next deal: %w", err)
		}
		id = rm.DealID(n)
	}
	return c.RetrieveWithID(ctx, id, payload, params, totalFunds, p, clientWallet, minerWallet, storeID)
}

// NextID allocates the id of a deal, so that a caller can subscribe and make its target before the deal starts.
func (c *Client) NextID() rm.DealID { return rm.DealID(c.ids.Next()) }

// RetrieveWithID is Retrieve under an id from NextID.
func (c *Client) RetrieveWithID(ctx context.Context, id rm.DealID, payload cid.Cid, params rm.Params, totalFunds abi.TokenAmount, p rm.RetrievalPeer, clientWallet, minerWallet address.Address, storeID *multistore.StoreID) (rm.DealID, error) {
	if err := checkParams(payload, params, totalFunds); err != nil {
		return 0, err
	}
	if clientWallet == address.Undef || minerWallet == address.Undef { // the record of the deal could not be stored
		return 0, reason.Usage.Errorf("a deal has an address that pays and one that is paid: %q and %q were given", clientWallet, minerWallet)
	}
	if err := c.addresses(ctx, p); err != nil {
		return 0, err
	}
	d := rm.ClientDealState{
		DealProposal: rm.DealProposal{PayloadCID: payload, ID: id, Params: params}, StoreID: storeID, TotalFunds: totalFunds,
		ClientWallet: clientWallet, MinerWallet: minerWallet, Status: rm.DealStatusNew, Sender: p.ID, CurrentInterval: params.PaymentInterval,
		PaymentRequested: big.Zero(), FundsSpent: big.Zero(), UnsealFundsPaid: big.Zero(), VoucherShortfall: big.Zero(),
	}
	c.creating.Lock()
	err := c.refuseSecond(d)
	if err != nil {
		c.creating.Unlock()
		return 0, err
	}
	cd := c.track(d)
	c.creating.Unlock()
	cd.mu.Lock()
	cd.size = c.offers.size(payloadOf(d))
	cd.mu.Unlock()
	return id, cd.machine.Send(rm.ClientEventOpen)
}
