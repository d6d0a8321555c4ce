package paych

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/google/uuid"
	"github.com/ipfs/go-datastore"
	"golang.org/x/time/rate"

	"github.com/cartage-dev/cartage/shared"
)

// Manager keeps the payment channels of a node, those it pays into and those it is paid from. All methods are safe for
// concurrent use.
type Manager struct {
	ds     datastore.Batching
	chain  Chain
	wallet Signer

	ctx    context.Context
	cancel context.CancelFunc
	group  shared.Group

	fundsLocks   map[address.Address]chan struct{} // who moves the money of a channel; guarded by mu
	strangers *rate.Limiter                     // of channels that have not paid yet

	timing    atomic.Pointer[Timing]
	minWindow time.Duration // of a chain on which vouchers are taken; 0: the default

	unfinished []*outChannel // with a message that was in flight when the process ended

	maySpend func(deal string) error // nil: always

	mu      sync.Mutex
	pairs   map[string]*outChannel
	byAddr  map[address.Address]*outChannel
	channels map[address.Address]*inChannel
	bound   map[string]dealRef       // the lane that pays for an inbound deal
	collected    map[address.Address]bool // collected: nothing can happen any more
}

// MaySpend asks f before a voucher is signed and before a channel is opened or topped up for a deal; an error of it is the error of the
// call. A voucher that exists already is given again without being asked for. f must not call the manager.
func MaySpend(f func(deal string) error) Option {
	return func(m *Manager) { m.maySpend = f }
}

// checkSpending asks whether money may be spent for a deal now.
func (m *Manager) checkSpending(deal string) error {
	if m.maySpend == nil {
		return nil
	}
	return m.maySpend(deal)
}

// Open returns a manager over ds, which is namespaced by the caller. Its lifetime ends with Close, not with ctx. Messages
// that were in flight are waited for again.
func Open(ctx context.Context, ds datastore.Batching, chain Chain, wallet Signer, options ...Option) (*Manager, error) {
	m := &Manager{ds: ds, chain: chain, wallet: wallet, pairs: map[string]*outChannel{}, byAddr: map[address.Address]*outChannel{}, channels: map[address.Address]*inChannel{}, bound: map[string]dealRef{}, collected: map[address.Address]bool{},
		fundsLocks:   map[address.Address]chan struct{}{},
		strangers: rate.NewLimiter(strangerRate, 4*strangerRate)}
	for _, o := range options {
		o(m)
	}
	m.ctx, m.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := m.loadOutbound(ctx); err != nil {
		m.cancel()
		return nil, err
	}
	for _, p := range m.unfinished {
		if p.hasMessage() {
			if err := m.enqueue(p, nil); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}

// Close ends all waiting for the chain, bounded by ctx.
func (m *Manager) Close(ctx context.Context) error {
	m.cancel()
	return m.group.Close(ctx)
}

func (m *Manager) loadOutbound(ctx context.Context) error {
	err := eachRecord(ctx, m.ds, "/o/pair", func(c *outRecord) error {
		p := newOutChannel(*c)
		if p.hasMessage() {
			m.unfinished = append(m.unfinished, p)
		}
		if !c.Settling {
			m.pairs[pairKey(c.From, c.To)] = p
		}
		if !c.Address.Empty() {
			m.byAddr[c.Address] = p
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = eachRecord(ctx, m.ds, "/o/lane", func(l *laneRecord) error {
		p := m.byAddr[l.Channel]
		if p == nil {
			return fmt.Errorf("lane %d belongs to unknown channel %s", l.Lane, l.Channel)
		}
		p.lanes[l.Lane] = l
		return nil
	})
	if err != nil {
		return err
	}
	if err := m.skipNoncesAfterRestore(ctx); err != nil {
		return err
	}
	return m.loadInbound(ctx)
}

func pairKey(from, to address.Address) string { return string(from.Bytes()) + string(to.Bytes()) }

// channelBetween returns the owner of the channel from one address to another.
func (m *Manager) channelBetween(from, to address.Address) (*outChannel, error) {
	if !m.wallet.Has(from) {
		return nil, fmt.Errorf("%w: %s", ErrNoKey, from)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	k := pairKey(from, to)
	p := m.pairs[k]
	if p == nil || p.isRetired() {
		p = newOutChannel(outRecord{ID: uuid.NewString(), From: from, To: to, Amount: big.Zero(), Promised: big.Zero(), Reserved: big.Zero(), Pending: big.Zero()})
		m.pairs[k] = p
	}
	return p, nil
}

// isRetired tells whether the channel is on its way to be closed: a new deal gets a new one.
func (p *outChannel) isRetired() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rec.Settling && !p.rec.Address.Empty()
}

func (m *Manager) outChannelAt(ch address.Address) (*outChannel, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.byAddr[ch]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%w: %s is not one that this node pays into", ErrUnknownChannel, ch)
}

// Uses tells whether a payment channel of an address is being made.
func (m *Manager) Uses(a address.Address) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.pairs {
		p.mu.Lock()
		busy := p.rec.From == a && (p.hasMessage() || p.serving)
		p.mu.Unlock()
		if busy {
			return true
		}
	}
	return false
}

// Head is where the chain is.
func (m *Manager) Head(ctx context.Context) ([]byte, abi.ChainEpoch, error) { return m.chain.Head(ctx) }

// Chain is the chain below the manager.
func (m *Manager) Chain() Chain { return m.chain }
