package retrievalimpl

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/fsm"
	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/piecestore"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/providerstates"
	"github.com/cartage-dev/cartage/retrievalmarket/network"
	"github.com/cartage-dev/cartage/shared"
)

// PieceSource finds and opens pieces. Find touches no piece; an absent payload answers an error that wraps ErrNotFound.
type PieceSource interface {
	Find(ctx context.Context, payload cid.Cid, piece *cid.Cid) (Found, error)
	Acquire(ctx context.Context, piece cid.Cid) (Reader, error)
}

// Found is a piece that holds a payload.
type Found struct {
	Info piecestore.PieceInfo
	// Size is the length of the CAR, an upper bound of the payload.
	Size uint64
}

// Reader reads the blocks of a piece until it is closed.
type Reader interface {
	Get(cid.Cid) ([]byte, error)
	Close() error
}

// ProviderConfig is what a provider is made of.
type ProviderConfig struct {
	Hub     *Hub
	Network network.RetrievalMarketNetwork
	Node    rm.RetrievalProviderNode
	Address address.Address // of the provider; its worker is quoted as payment address
	Pieces  PieceSource
	Asks    rm.AskStore
	Store   datastore.Batching
	Decide  DealDecider
	// TakesDeals says why no new deal is taken at present: offers and proposals are answered so. nil: they always are.
	TakesDeals func() error
	// SelectorOver is told of each proposal that is refused because of the size of its selector. It may be nil.
	SelectorOver func()
	// Pricing is the ask of each deal; the stored ask when nil.
	Pricing RetrievalPricingFunc
	// MaxDealsPerPeer and MaxDeals bound the deals that have not ended (M-19); 0 means 1,024 and 10,000.
	MaxDealsPerPeer, MaxDeals int
	// Credit is what is risked on whom (M-32, T03); nil is accounting.DefaultCredit.
	Credit *accounting.CreditLimits
	// Now is the time by which credit comes back and debts expire; time.Now when nil.
	Now func() time.Time
	// Origins tells where a peer is connected from, so that many names of one place count as one; nil is nowhere.
	Origins func(peer.ID) []accounting.Origin
	// SupportsPrepaid tells whether a peer pays in advance when it is asked to.
	SupportsPrepaid func(peer.ID) bool
	// FreeOnly is for a node that cannot take money: it quotes no price and takes no deal that has one.
	FreeOnly bool
	// RefusesMoney is asked before an offer and a deal with a price: an error is why the node takes no money now. nil: it does.
	RefusesMoney func(ctx context.Context) error
	// LegacyOnly is for a provider that takes proposals of the first generation only.
	LegacyOnly bool
	Deadlines  map[fsm.StateKey]fsm.Deadline
	Log        *slog.Logger
}

// DealDecider says whether a proposal is accepted, and why not.
type DealDecider func(ctx context.Context, state rm.ProviderDealState) (accept bool, reason string, err error)

// Provider implements retrievalmarket.RetrievalProvider.
type Provider struct {
	cfg    ProviderConfig
	paidTo atomic.Pointer[address.Address]
	table  *fsm.Table[rm.ProviderDealState]
	store  deals[rm.ProviderDealState, *rm.ProviderDealState]
	subs   *subscribers[rm.ProviderEvent, rm.ProviderDealState]
	ready  *shared.ReadyManager

	ctx    context.Context
	cancel context.CancelFunc
	group  lifecycle.Group

	payers   *accounting.Payers // after Start
	quotes   quotes
	onStop   func() error
	creating sync.Mutex // one new deal at a time: its record is looked for and then stored

	mu     sync.Mutex
	deals  map[rm.ProviderDealIdentifier]*providerDeal
	byChan map[dt.ChannelID]*providerDeal
}

var _ rm.RetrievalProvider = (*Provider)(nil)

// providerDeal is the owner of a deal in progress. Its fields are what the meter needs at once, without waiting for the
// machine.
type providerDeal struct {
	id      rm.ProviderDealIdentifier
	chid    dt.ChannelID // guarded by the provider's lock
	machine *fsm.Machine[rm.ProviderDealState]
	pieces  PieceSource
	keep    keeper[rm.ProviderDealState]
	last    rm.DealStatus // that was stored, or waits to be; the machine's own

	paying   chan struct{} // payments of a deal are taken one after the other; no lock, because a book that is away is waited for
	mu       sync.Mutex
	paid     abi.TokenAmount
	unsealed bool
	resumed  bool // the channel was let go when the piece could be read
	sentAll  bool
	whole    uint64    // what was sent, when that was all
	size     uint64    // of the piece; 0 if it is not known after a restart
	stored   bool      // taken up from the store: the count of what was sent may be behind
	bound    bool      // a proposal that came again after a crash has a channel
	heard    bool      // the client has said something since this process has the deal
	active   time.Time // something happened between both sides, as far as this process knows
	bad      int
	refused  error        // the last bad voucher, when there were too many
	blame    reason.Blame // on whose account the deal ends, if it ends unpaid

	endStored bool // with its debt; the machine's own

	ending sync.Mutex // the record of the end, and what is booked behind it, are stored one after the other
	ended  bool       // the record of the end has been made

	opening  sync.Mutex // held while a piece is opened, which may take as long as unsealing does: nothing else waits for it
	reader   Reader
	released atomic.Bool
}

// NewProviderFromConfig makes a provider; Start runs it.
func NewProviderFromConfig(cfg ProviderConfig) (*Provider, error) {
	t, err := fsm.Compile(providerstates.Spec(cfg.Deadlines))
	if err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	p := &Provider{cfg: cfg, table: t, store: deals[rm.ProviderDealState, *rm.ProviderDealState]{cfg.Store, func(d *rm.ProviderDealState) { d.LegacyProtocol = true }}, ready: shared.NewReadyManager(),
		deals: map[rm.ProviderDealIdentifier]*providerDeal{}, byChan: map[dt.ChannelID]*providerDeal{}}
	p.SetAddress(cfg.Address)
	if p.cfg.MaxDealsPerPeer == 0 {
		p.cfg.MaxDealsPerPeer = 1024
	}
	if p.cfg.MaxDeals == 0 {
		p.cfg.MaxDeals = 10_000
	}
	p.subs = newSubscribers[rm.ProviderEvent, rm.ProviderDealState](func(e rm.ProviderEvent) bool { return e == rm.ProviderEventBlockSent })
	cfg.Hub.provider = p
	return p, nil
}

// Start implements retrievalmarket.RetrievalProvider: unfinished deals are taken up before the first query or request is
// answered.
func (p *Provider) Start(ctx context.Context) error {
	p.ctx, p.cancel = context.WithCancel(context.WithoutCancel(ctx))
	err := p.store.open(ctx)
	if err == nil {
		err = p.openPayers(ctx)
	}
	var open []rm.ProviderDealState
	if err == nil {
		open, err = p.openDeals(ctx)
	}
	channels := sync.OnceValue(func() map[rm.ProviderDealIdentifier][]boundChannel { return p.channelsByDeal(ctx) })
	for _, d := range open {
		if err == nil {
			err = p.load(ctx, p.withChannel(d, channels))
		}
	}
	if err == nil {
		err = p.cfg.Network.SetDelegate(p)
	}
	p.ready.FireReady(err)
	return err
}

// load takes up a stored deal (4.8): what the voucher book says is raised into it and into the transfer.
func (p *Provider) load(ctx context.Context, d rm.ProviderDealState) error {
	if b, ok := p.cfg.Node.(rm.ProviderBook); ok {
		best, err := b.BestForDeal(ctx, providerstates.DealKey(d.Identifier()))
		if err != nil {
			return err
		}
		if best != nil {
			d.FundsReceived = big.Max(d.FundsReceived, best.Amount)
		}
	}
	t := providerstates.Terms(&d)
	paidBytes := t.PaidBytes(d.FundsReceived)
	if priced(d.PricePerByte) {
		if err := p.payers.Adopt(ctx, providerstates.DealKey(d.Identifier()), d.Receiver.String(), t); err != nil {
			return err
		}
	}
	d.CurrentInterval = t.CurrentInterval(paidBytes)
	pd := p.track(d)
	pd.stored = true
	if found, err := p.cfg.Pieces.Find(ctx, d.PayloadCID, d.PieceCID); err == nil { // what is asked for in advance is bounded by it again
		pd.size = found.Size
	}
	pd.unsealed = d.Status != rm.DealStatusNew && d.Status != rm.DealStatusFundsNeededUnseal && d.Status != rm.DealStatusUnsealing
	if d.ChannelID != (dt.ChannelID{}) {
		p.mu.Lock()
		p.bind(pd, d.ChannelID)
		p.mu.Unlock()
		p.cfg.Hub.dt.Unsuspend(d.ChannelID)
		if over := p.channelOver(ctx, pd, d.ChannelID); over {
			return notEnded(pd.machine.Reenter())
		}
	}
	switch d.Status {
	case rm.DealStatusBlocksComplete, rm.DealStatusFundsNeededLastPayment, rm.DealStatusFinalizing:
		// What the transfer has not counted in its store is sent, and asked for, once more.
		pd.whole = p.sent(ctx, d.ChannelID)
		pd.sentAll = pd.whole >= d.TotalSent
	default: // the transfer stored its end, and the deal had not heard of it
		if s, err := p.cfg.Hub.dt.ChannelState(ctx, d.ChannelID); err == nil && s.Status() == dt.Finalizing {
			if owed := p.sentWhole(pd, s.Queued()); owed.IsZero() { // what was asked for is in the book
				_ = pd.machine.Send(rm.ProviderEventPaymentRequested, s.Queued())
				_ = pd.machine.Send(rm.ProviderEventPaymentReceived, d.FundsReceived, d.TotalSent)
			}
		}
	}
	if d.Status == rm.DealStatusNew && d.ChannelID != (dt.ChannelID{}) { // it was accepted, and had not heard of it
		return notEnded(pd.machine.Send(rm.ProviderEventDealAccepted, d.ChannelID))
	}
	if d.Status == rm.DealStatusFundsNeededLastPayment && t.Owed(d.TotalSent, d.FundsReceived).Sign() == 0 {
		return notEnded(pd.machine.Send(rm.ProviderEventPaymentReceived, d.FundsReceived, d.TotalSent))
	}
	if d.Status == rm.DealStatusFundsNeededUnseal && p.verdict(pd, &d, 0).Demand == accounting.DemandNothing {
		return notEnded(pd.machine.Send(rm.ProviderEventPaymentReceived, d.FundsReceived, d.TotalSent))
	}
	return notEnded(pd.machine.Reenter())
}

// channelOver tells a deal how its transfer ended while the deal was not there to hear it.
func (p *Provider) channelOver(ctx context.Context, pd *providerDeal, chid dt.ChannelID) bool {
	s, err := p.cfg.Hub.dt.ChannelState(ctx, chid)
	if err != nil {
		return false
	}
	switch s.Status() {
	case dt.Completed:
		_ = pd.machine.Send(rm.ProviderEventComplete)
	case dt.Failed:
		_ = pd.machine.Send(rm.ProviderEventDataTransferError, fmt.Errorf("deal data transfer failed: %s", s.Message()))
	case dt.Cancelled:
		_ = pd.machine.Send(rm.ProviderEventClientCancelled)
	default:
		return false
	}
	return true
}

func (p *Provider) track(d rm.ProviderDealState) *providerDeal {
	pd := &providerDeal{active: time.Now(), id: d.Identifier(), paying: make(chan struct{}, 1), paid: d.FundsReceived, pieces: p.cfg.Pieces, last: d.Status}
	pd.keep.write = func(rec rm.ProviderDealState) error { return p.put(pd, rec) }
	pd.machine = fsm.NewMachine(p.ctx, p.table, d, p, fsm.Hooks[rm.ProviderDealState]{
		Persist: func(_ fsm.EventName, rec rm.ProviderDealState) error { return p.persist(pd, rec) },
		Notify:  func(e fsm.EventName, rec rm.ProviderDealState) { p.notify(pd, e.(rm.ProviderEvent), rec) },
		Dropped: func(e fsm.EventName, rec rm.ProviderDealState, err error) {
			p.cfg.Log.Debug("provider deal event dropped", "deal", rec.Identifier(), "error", err)
		},
		Failed: func(_ rm.ProviderDealState, err error) (fsm.EventName, []any) {
			return rm.ProviderEventDataTransferError, []any{err}
		},
	})
	p.mu.Lock()
	p.deals[pd.id] = pd
	p.mu.Unlock()
	return pd
}

// persist stores the record of a deal after an event. What a start finds again in the voucher book and the transfer may wait.
func (p *Provider) persist(pd *providerDeal, rec rm.ProviderDealState) (err error) {
	before := pd.last
	defer func() {
		if err == nil {
			pd.last = rec.Status
		}
	}()
	if _, booked := p.cfg.Node.(rm.ProviderBook); booked && paying(before) && paying(rec.Status) {
		return pd.keep.later(rec)
	}
	return pd.keep.now(rec, pd.keep.write)
}

// put stores a deal's record; its end together with what it leaves unpaid.
func (p *Provider) put(pd *providerDeal, rec rm.ProviderDealState) error {
	ctx, id := context.WithoutCancel(p.ctx), rec.Identifier().String()
	final := p.table.Final(rec.Status)
	if final { // a payment whose event comes too late to be applied is in the record all the same
		pd.ending.Lock()
		defer pd.ending.Unlock()
		pd.ended = true
		pd.mu.Lock()
		rec.FundsReceived = big.Max(rec.FundsReceived, pd.paid)
		pd.mu.Unlock()
	}
	if !final || pd.endStored { // an end whose sync failed is stored once more without the debt
		return p.store.put(ctx, id, rec, final)
	}
	b, err := p.store.ds.Batch(ctx)
	if err != nil {
		return err
	}
	if err := p.store.write(ctx, b, id, rec); err != nil {
		return err
	}
	sent := rec.TotalSent
	if rec.Status != rm.DealStatusCompleted { // which has paid for everything
		sent = max(sent, p.sent(ctx, rec.ChannelID))
	}
	if err := p.endLoan(ctx, b, pd, &rec, sent); err != nil {
		return err
	}
	if err := b.Commit(ctx); err != nil {
		return err
	}
	pd.endStored = true
	return p.store.sync(ctx)
}

func (p *Provider) notify(pd *providerDeal, e rm.ProviderEvent, rec rm.ProviderDealState) {
	if e != rm.ProviderEventBlockSent {
		p.cfg.Log.Info("provider deal", "deal", rec.Identifier().String(), "event", p.table.EventName(e), "state", rec.Status.String(), "message", rec.Message)
	}
	if e == providerstates.ProviderCancelled { // it has no published name
		e = rm.ProviderEventClientCancelled
	}
	p.subs.publish(e, rec)
	if !p.table.Final(rec.Status) {
		return
	}
	p.mu.Lock()
	chid := pd.chid
	delete(p.deals, pd.id)
	delete(p.byChan, chid)
	p.mu.Unlock()
	if rec.Status != rm.DealStatusCompleted && chid != (dt.ChannelID{}) { // it may have heard of its channel too late to close it
		p.closeLater(chid)
	}
}

// OnReady implements retrievalmarket.RetrievalProvider.
func (p *Provider) OnReady(f shared.ReadyFunc) { p.ready.OnReady(f) }

// SetAsk implements retrievalmarket.RetrievalProvider.
func (p *Provider) SetAsk(ask *rm.Ask) {
	if err := p.cfg.Asks.SetAsk(ask); err != nil {
		p.cfg.Log.Error("Error setting retrieval ask", "error", err)
	}
}

// GetAsk implements retrievalmarket.RetrievalProvider.
func (p *Provider) GetAsk() *rm.Ask { return p.cfg.Asks.GetAsk() }

// SubscribeToEvents implements retrievalmarket.RetrievalProvider.
func (p *Provider) SubscribeToEvents(f rm.ProviderSubscriber) rm.Unsubscribe {
	return p.subs.subscribe(f)
}

// ListDeals implements retrievalmarket.RetrievalProvider.
func (p *Provider) ListDeals() map[rm.ProviderDealIdentifier]rm.ProviderDealState {
	out := map[rm.ProviderDealIdentifier]rm.ProviderDealState{}
	if p.ready.Ready() != nil {
		return out
	}
	if err := p.store.each(p.ctx, func(d rm.ProviderDealState) error {
		out[d.Identifier()] = d
		return nil
	}); err != nil {
		p.cfg.Log.Error("list deals", "error", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, d := range p.deals {
		s, _ := d.machine.State()
		s.TotalSent = max(s.TotalSent, p.sent(p.ctx, s.ChannelID)) // progress is stored now and then
		out[id] = s
	}
	return out
}

// CancelDeal ends a deal on the provider's side.
func (p *Provider) CancelDeal(id rm.ProviderDealIdentifier) error {
	p.mu.Lock()
	d := p.deals[id]
	p.mu.Unlock()
	if d == nil {
		return fmt.Errorf("deal %s is not running: %w", id, rm.ErrNotFound)
	}
	d.blameOurselves()
	return d.machine.Send(providerstates.ProviderCancelled)
}
