package testmarket_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	mocknet "github.com/libp2p/go-libp2p/p2p/net/mock"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/internal/testmarket"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
)

// crowd are clients and providers that trade in waves, with trouble of all kinds.
type crowd struct {
	t       *testing.T
	ctx     context.Context
	rnd     *rand.Rand
	bank    *testmarket.SimulatedBank
	clients []*testmarket.Peer
	sellers []*testmarket.Peer
	seed    uint64
	apart   func(a, b *testmarket.Peer)
	join    func(a, b *testmarket.Peer)
	pace    time.Duration // between two looks at the deals
}

// bargain is a deal of a crowd.
type bargain struct {
	c, p   *testmarket.Peer
	id     rm.DealID
	root   cid.Cid
	total  uint64
	params rm.Params
	cancel bool
	// trouble is what happened, for the message of a failure.
	trouble string
}

func (w *crowd) peers() []*testmarket.Peer {
	return append(append([]*testmarket.Peer(nil), w.clients...), w.sellers...)
}

// unlimitedCredit is for tests of everything but credit: one client has many deals at once.
func unlimitedCredit() *accounting.CreditLimits {
	return &accounting.CreditLimits{Allowance: 1 << 50, PerPeer: 1 << 30, Memory: 1} // a deal that is cancelled bars no other
}

func newCrowd(t *testing.T, ctx context.Context, seed uint64, n int, make func(n uint64, p *testmarket.Peer)) *crowd {
	w := &crowd{t: t, ctx: ctx, rnd: rand.New(rand.NewPCG(seed, 0)), bank: testmarket.NewBank(), pace: 5 * time.Second}
	for i := range 2 * n {
		p, err := testmarket.NewPeer(w.bank, uint64(i+1))
		require.NoError(t, err)
		p.Book, p.Idle, p.Stream = true, 5*time.Minute, testutil.OverStreams(t)
		p.Config = func(c *retrievalimpl.ProviderConfig) {
			c.MaxDealsPerPeer, c.Credit = 1000, unlimitedCredit()
		}
		make(uint64(i+1), p)
		if i%4 == 0 { // every second client
			p.ClientConfig = payAhead
		}
		if i%2 == 0 {
			w.clients = append(w.clients, p)
		} else {
			w.sellers = append(w.sellers, p)
		}
	}
	return w
}

func (w *crowd) start() {
	for _, p := range w.peers() {
		require.NoError(w.t, p.Start(w.ctx))
	}
	for _, c := range w.clients {
		for _, p := range w.sellers {
			w.join(c, p)
		}
	}
}

func (w *crowd) stop() {
	for _, p := range w.peers() {
		require.NoError(w.t, p.Stop(context.Background()))
	}
}

// offer gives a seller a new ask.
func (w *crowd) offer(p *testmarket.Peer) rm.Params {
	params := rm.Params{PricePerByte: big.NewInt(w.rnd.Int64N(5)), UnsealPrice: big.Zero(), PaymentInterval: uint64(500 + w.rnd.IntN(20000)), PaymentIntervalIncrease: uint64(w.rnd.IntN(3000))}
	if w.rnd.IntN(4) == 0 {
		params.UnsealPrice = big.NewInt(w.rnd.Int64N(1000))
	}
	require.NoError(w.t, p.Asks.SetAsk(ask(params)))
	return params
}

func (w *crowd) open(p *testmarket.Peer, params rm.Params) *bargain {
	w.seed++
	b := &bargain{c: w.clients[w.rnd.IntN(len(w.clients))], p: p, params: params}
	leaves, size := 1+w.rnd.IntN(30), 100+w.rnd.IntN(4000)
	root, before, err := p.Store.BuildDAG(leaves, size, w.seed)
	require.NoError(w.t, err)
	_ = before
	b.root = root
	data, err := p.Get(root)
	require.NoError(w.t, err)
	b.total = uint64(len(data)) + uint64(leaves*size) // a raw leaf is its bytes
	funds := big.Add(big.Mul(params.PricePerByte, big.NewIntUnsigned(b.total)), params.UnsealPrice)
	b.id, err = b.c.Client.Retrieve(w.ctx, root, params, funds, p.As(), b.c.Address, p.Address, nil)
	require.NoError(w.t, err)
	return b
}

// trouble happens to a deal while it runs: one in ten is cancelled by either side, and one in ten loses its connection.
func (w *crowd) trouble(b *bargain) {
	after := time.Duration(w.rnd.IntN(60)) * time.Millisecond
	switch w.rnd.IntN(20) {
	case 0:
		b.cancel = true
		b.trouble = fmt.Sprintf("cancelled by the client after %s", after)
		time.AfterFunc(after, func() { _ = b.c.Client.CancelDeal(b.id) })
	case 1:
		b.cancel = true
		b.trouble = fmt.Sprintf("cancelled by the provider after %s", after)
		id := rm.ProviderDealIdentifier{Receiver: b.c.Host.ID(), DealID: b.id}
		time.AfterFunc(after, func() { _ = b.p.Provider.CancelDeal(id) })
	case 2, 3:
		b.trouble = fmt.Sprintf("connection lost after %s", after)
		time.Sleep(after)
		w.apart(b.c, b.p)
		time.Sleep(time.Duration(w.rnd.IntN(200)) * time.Millisecond)
		w.join(b.c, b.p)
	}
}

func (w *crowd) restart(p *testmarket.Peer) {
	each := func(f func(a, b *testmarket.Peer)) {
		for _, c := range w.clients {
			for _, s := range w.sellers {
				if c == p || s == p {
					f(c, s)
				}
			}
		}
	}
	each(w.apart) // nobody reaches the host that ends
	require.NoError(w.t, p.Stop(w.ctx))
	require.NoError(w.t, p.Start(w.ctx))
	each(w.join)
}

// settled waits until no deal is in progress on either side, and checks what came of each.
func (w *crowd) settled(deals []*bargain) (completed int) {
	w.t.Helper()
	for i := 0; ; i++ {
		open := ""
		for _, b := range deals {
			c, p, ok := b.states(w.t)
			if !clientstates.IsFinal(c.Status) || ok && !clientstates.IsFinal(p.Status) {
				open = fmt.Sprintf("client %s (%s), provider %s (%s)", c.Status, c.Message, p.Status, p.Message)
			}
		}
		if open == "" {
			break
		}
		require.Less(w.t, i, 12*60, "a deal does not end: %s", open) // an hour
		time.Sleep(w.pace)
	}
	for _, b := range deals {
		completed += b.check(w.t)
	}
	return completed
}

func (b *bargain) states(t *testing.T) (rm.ClientDealState, rm.ProviderDealState, bool) {
	c, err := b.c.Client.GetDeal(b.id)
	require.NoError(t, err)
	p, ok := b.p.Provider.ListDeals()[rm.ProviderDealIdentifier{Receiver: b.c.Host.ID(), DealID: b.id}]
	return c, p, ok
}

// channel is how the transfer of a deal stands on a side.
func (b *bargain) channel(p *testmarket.Peer, c rm.ClientDealState) string {
	s, err := p.Manager.ChannelState(context.Background(), c.ChannelID)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s queued %d received %d: %s", dt.Statuses[s.Status()], s.Queued(), s.Received(), s.Message())
}

// check compares the money of both sides with what is due.
func (b *bargain) check(t *testing.T) int {
	t.Helper()
	c, p, ok := b.states(t)
	terms := clientstates.Terms(&c)
	require.True(t, c.FundsSpent.LessThanEqual(terms.Due(c.TotalReceived)), "client %s (%s) paid %s for %d of %d bytes, terms %v, trouble %v; provider %s (%s) sent %d credits %s; %s; %s", c.Status, c.Message, c.FundsSpent, c.TotalReceived, b.total, terms, b.trouble, p.Status, p.Message, p.TotalSent, p.FundsReceived, b.channel(b.c, c), b.channel(b.p, c))
	if ok {
		require.True(t, p.FundsReceived.LessThanEqual(c.FundsSpent), "provider %s (%s) credits %s of %s; client %s (%s), channel %s; cancel %v, trouble %v; %s; %s", p.Status, p.Message, p.FundsReceived, c.FundsSpent,
			c.Status, c.Message, c.ChannelID, b.cancel, b.trouble, b.channel(b.c, c), b.channel(b.p, c))
	}
	if c.Status != rm.DealStatusCompleted {
		require.True(t, b.cancel, "channel %d: client %s: %s; provider %s: %s; received %d of %d, sent %d, spent %s, credited %s, asked for %s, terms %v, trouble %v; %s; %s",
			c.ChannelID.ID, c.Status, c.Message, p.Status, p.Message, c.TotalReceived, b.total, p.TotalSent, c.FundsSpent, p.FundsReceived, c.PaymentRequested, terms, b.trouble, b.channel(b.c, c), b.channel(b.p, c))
		return 0
	}
	due := big.Zero()
	if !terms.Free() {
		due = terms.Due(b.total)
	}
	require.Equal(t, b.total, c.TotalReceived)
	if b.cancel && p.Status != rm.DealStatusCompleted { // the provider's cancel came before the last word, or before the last payment (T61)
		return 1
	}
	require.Equal(t, due.String(), c.FundsSpent.String(), "vouchered for %d of %d bytes; client %s, asked for %s; provider %s: %s, sent %d, credits %s; terms %v, cancel %v, trouble %v; %s; %s", c.TotalReceived, b.total,
		c.Message, c.PaymentRequested, p.Status, p.Message, p.TotalSent, p.FundsReceived, terms, b.cancel, b.trouble, b.channel(b.c, c), b.channel(b.p, c))
	require.Equal(t, due.String(), p.FundsReceived.String(), "accepted; provider %s: %s; client %s; sent %d, terms %v, trouble %v; %s; %s", p.Status, p.Message, c.Message,
		p.TotalSent, terms, b.trouble, b.channel(b.c, c), b.channel(b.p, c))
	require.Equal(t, rm.DealStatusCompleted, p.Status, p.Message)
	return 1
}

// trade opens deals in waves, and restarts a peer in the middle of every third.
func (w *crowd) trade(waves, each int) (deals, completed int) {
	w.t.Helper()
	for wave := range waves {
		var list []*bargain
		asks := map[*testmarket.Peer]rm.Params{}
		for _, p := range w.sellers {
			asks[p] = w.offer(p)
		}
		for range each {
			p := w.sellers[w.rnd.IntN(len(w.sellers))]
			list = append(list, w.open(p, asks[p]))
			w.trouble(list[len(list)-1])
			time.Sleep(time.Duration(w.rnd.IntN(10)) * time.Millisecond)
		}
		if all := w.peers(); wave%3 == 2 {
			who := w.rnd.IntN(len(all))
			for _, b := range list {
				if all[who] == b.c || all[who] == b.p {
					b.trouble += fmt.Sprintf(" restart of %s", all[who].Address)
				}
			}
			w.restart(all[who])
		}
		deals += len(list)
		completed += w.settled(list)
	}
	return deals, completed
}

// seed is 1 unless the environment says otherwise, to look for trouble elsewhere.
func seed() uint64 {
	n, err := strconv.ParseUint(os.Getenv("CARTAGE_SEED"), 10, 64)
	if err != nil {
		return 1
	}
	return n
}

// TestThousandDeals: random sizes and asks, with cancels, lost connections and restarts: no deal hangs, and the money is exact on
// both sides. The bubble ends only when every goroutine has.
func TestThousandDeals(t *testing.T) { testutil.EachTransport(t, thousandDeals) }

func thousandDeals(t *testing.T) {
	waves, each := 25, 40
	if testing.Short() {
		waves = 3
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		net := mocknet.New()
		net.SetLinkDefaults(mocknet.LinkOptions{Latency: 2 * time.Millisecond})
		w := newCrowd(t, ctx, seed(), 4, func(n uint64, p *testmarket.Peer) {
			p.NewHost = func() (host.Host, error) {
				h, err := net.AddPeer(p.Key, ma.StringCast(fmt.Sprintf("/ip4/10.0.0.%d/tcp/4001", n)))
				if err != nil {
					return nil, err
				}
				for _, other := range net.Peers() { // links lead to the host of before
					if other != h.ID() {
						_ = net.UnlinkPeers(h.ID(), other)
						if _, err := net.LinkPeers(h.ID(), other); err != nil {
							return nil, err
						}
					}
				}
				return h, nil
			}
		})
		var mu sync.Mutex
		ids := func(a, b *testmarket.Peer) (peer.ID, peer.ID) { return a.Host.ID(), b.Host.ID() }
		w.apart = func(a, b *testmarket.Peer) {
			mu.Lock()
			defer mu.Unlock()
			x, y := ids(a, b)
			require.NoError(t, net.DisconnectPeers(x, y))
			require.NoError(t, net.UnlinkPeers(x, y))
		}
		w.join = func(a, b *testmarket.Peer) {
			mu.Lock()
			defer mu.Unlock()
			x, y := ids(a, b)
			if len(net.LinksBetweenPeers(x, y)) == 0 {
				_, err := net.LinkPeers(x, y)
				require.NoError(t, err)
			}
			_, err := net.ConnectPeers(x, y)
			require.NoError(t, err)
		}
		w.start()
		t.Cleanup(func() {
			w.stop()
			require.NoError(t, net.Close())
		})
		deals, completed := w.trade(waves, each)
		t.Logf("%d of %d deals completed", completed, deals)
		require.Greater(t, completed, deals*8/10)
	})
}

// TestFiftyDeals is TestThousandDeals over real TCP.
func TestFiftyDeals(t *testing.T) { testutil.EachTransport(t, fiftyDeals) }

func fiftyDeals(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	w := newCrowd(t, ctx, seed(), 3, func(_ uint64, p *testmarket.Peer) { p.Idle = 10 * time.Second })
	w.pace = 50 * time.Millisecond
	w.apart = func(a, b *testmarket.Peer) { require.NoError(t, a.Host.Network().ClosePeer(b.Host.ID())) }
	w.join = func(a, b *testmarket.Peer) {
		testmarket.Know(a, b)
		require.Eventually(t, func() bool { // both may dial at once
			return a.Host.Connect(ctx, peer.AddrInfo{ID: b.Host.ID(), Addrs: b.Host.Addrs()}) == nil
		}, time.Minute, 10*time.Millisecond)
	}
	w.start()
	t.Cleanup(w.stop)
	deals, completed := w.trade(5, 10)
	t.Logf("%d of %d deals completed", completed, deals)
	require.Greater(t, completed, deals*7/10)
}
