package testnet_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	spaych "github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	inet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/internal/testmarket"
	"github.com/cartage-dev/cartage/paych"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
	"github.com/cartage-dev/cartage/retrievalmarket/marketnode"
)

// loot is what all identities of an attack have taken together. It claims blocks of a payload that it can read without having been sent them.
type loot struct {
	read func(cid.Cid) ([]byte, error)

	mu     sync.Mutex
	blocks map[cid.Cid]bool
	bytes  uint64
	claims int // what the next deal says that it has, beside what was taken
	more   []*loot
}

// taken is how many bytes were given, each block counted once for each loot.
func (l *loot) taken() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	sum := l.bytes
	for _, m := range l.more {
		sum += m.taken()
	}
	return sum
}

// join counts what is in another loot as well.
func (l *loot) join(other *loot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.more = append(l.more, other)
}

// claim says how many of the first blocks deals say that they have from now on.
func (l *loot) claim(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.claims = n
}

// Open implements retrievalimpl.Targets.
func (l *loot) Open(_ context.Context, d rm.ClientDealState) (retrievalimpl.Target, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &haul{loot: l, root: d.PayloadCID, claims: l.claims}, nil
}

// Done implements retrievalimpl.Targets.
func (l *loot) Done(rm.ClientDealState) {}

// haul is the loot as one deal sees it.
type haul struct {
	*loot
	root   cid.Cid
	claims int

	mu    sync.Mutex
	had   map[cid.Cid]bool
	base  uint64
	fresh uint64
}

var errClaimed = errors.New("that is all that is claimed")

// pretend notes the first blocks of the payload as those that are here; mu is held.
func (h *haul) pretend(sel ipld.Node) {
	h.had = map[cid.Cid]bool{}
	ls := carstore.Links(func(c cid.Cid) ([]byte, error) {
		if len(h.had) >= h.claims {
			return nil, errClaimed
		}
		data, err := h.read(c)
		if !h.had[c] {
			h.had[c] = true
			h.base += uint64(len(data))
		}
		return data, err
	})
	_ = carstore.WalkSelector(&ls, h.root, sel, nil)
}

func (h *haul) get(c cid.Cid) ([]byte, error) {
	h.mu.Lock()
	here := h.had[c]
	h.mu.Unlock()
	if !here {
		h.loot.mu.Lock()
		here = h.blocks[c]
		h.loot.mu.Unlock()
	}
	if !here {
		return nil, carstore.ErrNotFound
	}
	return h.read(c)
}

// LinkSystem implements retrievalimpl.Target.
func (h *haul) LinkSystem() ipld.LinkSystem {
	return carstore.Writing(carstore.Links(h.get), func(c cid.Cid, data []byte) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.loot.mu.Lock()
		defer h.loot.mu.Unlock()
		if !h.blocks[c] {
			h.blocks[c] = true
			h.bytes += uint64(len(data))
			h.fresh += uint64(len(data))
		}
		return nil
	})
}

// Locate implements retrievalimpl.Target.
func (h *haul) Locate(sel ipld.Node) (carstore.Position, error) {
	h.mu.Lock()
	if h.had == nil {
		h.pretend(sel)
	}
	h.mu.Unlock()
	return carstore.LocateIn(h.root, sel, h.get)
}

// Base implements retrievalimpl.Target.
func (h *haul) Base() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.base
}

// Bytes implements retrievalimpl.Target.
func (h *haul) Bytes() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.base + h.fresh
}

// purse is an address that pays: what one attacker has on the chain.
type purse struct {
	*paych.Manager
	address address.Address
}

func (a *attack) purse(t *testing.T, name string) *purse {
	m, addr, hangup, err := a.net.Payer(a.ctx, name)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, m.Close(context.Background()))
		hangup()
	})
	return &purse{m, addr}
}

// pays is how a thief answers a request for money: the amount that it signs of what is due, nil for nothing.
type pays func(due abi.TokenAmount) abi.TokenAmount

func never(abi.TokenAmount) abi.TokenAmount      { return big.Int{} }
func always(due abi.TokenAmount) abi.TokenAmount { return due }

// upTo pays no more than so much for one deal.
func upTo(most int64) pays {
	return func(due abi.TokenAmount) abi.TokenAmount { return big.Min(due, big.NewInt(most)) }
}

// thief is one identity of an attack: the real client, with a node that pays as it likes and a store that lies.
type thief struct {
	*testmarket.Peer
	*purse
	loot *loot

	mu  sync.Mutex
	pay pays
}

// set changes how it pays from now on.
func (th *thief) set(p pays) {
	th.mu.Lock()
	defer th.mu.Unlock()
	th.pay = p
}

// thiefNode is what a thief pays with.
type thiefNode struct {
	marketnode.Client
	th *thief
}

// CreateDealVoucher implements retrievalmarket.ClientBook.
func (n thiefNode) CreateDealVoucher(ctx context.Context, deal string, ch address.Address, lane uint64, amount abi.TokenAmount, bytes uint64) (*spaych.SignedVoucher, rm.Outcome, error) {
	n.th.mu.Lock()
	amount = n.th.pay(amount)
	n.th.mu.Unlock()
	if amount.Int != nil {
		if e, err := n.BestForDeal(ctx, deal); err != nil || e == nil || amount.GreaterThan(e.Amount) {
			return n.Client.CreateDealVoucher(ctx, deal, ch, lane, amount, bytes)
		}
	}
	<-ctx.Done()
	return nil, rm.Stale, ctx.Err()
}

// identity starts a new key that pays out of a purse.
func (a *attack) identity(t *testing.T, of *purse, l *loot, pay pays, prepays bool) *thief {
	t.Helper()
	number := a.number.Add(1)
	p, err := testmarket.NewPeer(testmarket.NewBank(), number)
	require.NoError(t, err)
	p.Stream = a.streams || number%2 == 0
	th := &thief{Peer: p, purse: of, loot: l, pay: pay}
	p.ClientConfig = func(c *retrievalimpl.ClientConfig) {
		c.Node, c.Targets = thiefNode{marketnode.Client{Manager: of.Manager}, th}, l
		if prepays {
			c.SupportsAhead = func(peer.ID) bool { return true }
			c.Advances = accounting.AdvanceLimits{Bytes: 1 << 40, Memory: time.Hour}
		}
	}
	require.NoError(t, p.Start(a.ctx))
	t.Cleanup(func() { a.leave(t, th) })
	if prepays {
		for _, name := range []protocol.ID{retrievalimpl.AheadProtocol, retrievalimpl.PrepaidProtocol} {
			p.Host.SetStreamHandler(name, func(s inet.Stream) { _ = s.Close() })
		}
	}
	a.connect(t, th)
	return th
}

// connect makes a connection to the provider.
func (a *attack) connect(t *testing.T, th *thief) {
	h := a.provider.Node.Host
	require.NoError(t, th.Host.Connect(a.ctx, peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}))
}

// leave ends an identity.
func (a *attack) leave(t *testing.T, th *thief) {
	if th.Peer == nil {
		return
	}
	require.NoError(t, th.Stop(context.Background()))
	th.Peer = nil
}

// open proposes a deal at what the provider asks, with an interval of the thief's choice, 0 for what is asked.
func (a *attack) open(t *testing.T, th *thief, root cid.Cid, interval uint64) rm.DealID {
	t.Helper()
	seller := rm.RetrievalPeer{Address: a.address, ID: a.provider.Node.Host.ID()}
	offer, err := th.Client.Query(a.ctx, seller, root, rm.QueryParams{})
	require.NoError(t, err)
	require.Equal(t, rm.QueryResponseAvailable, offer.Status, offer.Message)
	params := rm.NewParamsV0(offer.MinPricePerByte, offer.MaxPaymentInterval, offer.MaxPaymentIntervalIncrease)
	params.UnsealPrice = offer.UnsealPrice
	if interval > 0 {
		params.PaymentInterval = interval
	}
	id, err := th.Client.Retrieve(a.ctx, root, params, a.funds, seller, th.address, offer.PaymentAddress, nil)
	require.NoError(t, err)
	return id
}

// stuck waits until a deal has ended, or wants money that it does not get, and no more comes.
func (a *attack) stuck(t *testing.T, th *thief, id rm.DealID) rm.ClientDealState {
	t.Helper()
	for still := 0; ; {
		s, err := th.Client.GetDeal(id)
		require.NoError(t, err)
		switch s.Status {
		case rm.DealStatusSendFunds, rm.DealStatusSendFundsLastPayment, rm.DealStatusInsufficientFunds:
			still++
		default:
			still = 0
		}
		if clientstates.IsFinal(s.Status) || still > 4 {
			return s
		}
		require.NoError(t, a.ctx.Err(), "deal %s is %s", id, s.Status)
		time.Sleep(5 * time.Millisecond)
	}
}

// take is open, stuck and away: what came is in the loot.
func (a *attack) take(t *testing.T, th *thief, root cid.Cid, interval uint64) rm.ClientDealState {
	t.Helper()
	id := a.open(t, th, root, interval)
	s := a.stuck(t, th, id)
	if !clientstates.IsFinal(s.Status) {
		require.NoError(t, th.Client.CancelDeal(id))
		for !clientstates.IsFinal(s.Status) {
			require.NoError(t, a.ctx.Err(), "deal %s is %s", id, s.Status)
			time.Sleep(time.Millisecond)
			var err error
			s, err = th.Client.GetDeal(id)
			require.NoError(t, err)
		}
	}
	return s
}
