package testmarket_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/libp2p/go-libp2p/core/host"
	mocknet "github.com/libp2p/go-libp2p/p2p/net/mock"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/testmarket"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
)

// watch notes when the first verified bytes of each deal came, and when it ended.
type watch struct {
	mu    sync.Mutex
	first map[rm.DealID]time.Time
	ended map[rm.DealID]chan struct{}
}

func (w *watch) tell(_ rm.ClientEvent, s rm.ClientDealState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, known := w.first[s.ID]; !known && s.TotalReceived > 0 {
		w.first[s.ID] = time.Now()
	}
	if clientstates.IsFinal(s.Status) {
		close(w.of(s.ID))
	}
}

func (w *watch) of(id rm.DealID) chan struct{} {
	if w.ended[id] == nil {
		w.ended[id] = make(chan struct{})
	}
	return w.ended[id]
}

func newWatch(p *testmarket.Peer) *watch {
	w := &watch{first: map[rm.DealID]time.Time{}, ended: map[rm.DealID]chan struct{}{}}
	p.Client.SubscribeToEvents(w.tell)
	return w
}

// buy makes one deal, waits for its end, and returns the time to its first bytes.
func (w *watch) buy(tb testing.TB, ctx context.Context, c, p *testmarket.Peer, params rm.Params, seed uint64) time.Duration {
	root, _, err := p.Store.BuildDAG(1, 1024, seed)
	require.NoError(tb, err)
	began := time.Now()
	id, err := c.Client.Retrieve(ctx, root, params, big.NewInt(1<<40), p.As(), c.Address, p.Address, nil)
	require.NoError(tb, err)
	w.mu.Lock()
	end := w.of(id)
	w.mu.Unlock()
	<-end
	d, err := c.Client.GetDeal(id)
	require.NoError(tb, err)
	require.Equal(tb, rm.DealStatusCompleted, d.Status, d.Message)
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.first[id].Sub(began)
}

// TestRoundTrips counts the round trips from the proposal to the first verified bytes, on a link whose latency is all there is: the
// clock of the bubble stands still while anybody computes.
func TestRoundTrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		net := mocknet.New()
		const oneWay = 50 * time.Millisecond
		net.SetLinkDefaults(mocknet.LinkOptions{Latency: oneWay})
		bank := testmarket.NewBank()
		var peers []*testmarket.Peer
		for i := range 2 {
			p, err := testmarket.NewPeer(bank, uint64(i+1))
			require.NoError(t, err)
			p.NewHost = func() (host.Host, error) {
				return net.AddPeer(p.Key, ma.StringCast(fmt.Sprintf("/ip4/10.0.0.%d/tcp/4001", i+1)))
			}
			require.NoError(t, p.Start(ctx))
			peers = append(peers, p)
		}
		t.Cleanup(func() {
			for _, p := range peers {
				require.NoError(t, p.Stop(context.Background()))
			}
			require.NoError(t, net.Close())
		})
		require.NoError(t, net.LinkAll())
		require.NoError(t, net.ConnectAllButSelf())
		time.Sleep(time.Second)
		params := terms(2, 0, 1<<20, 0)
		require.NoError(t, peers[1].Asks.SetAsk(ask(params)))
		w := newWatch(peers[0])
		fresh := w.buy(t, ctx, peers[0], peers[1], params, 1)
		open := w.buy(t, ctx, peers[0], peers[1], params, 2)
		t.Logf("no payment channel yet: %.1f round trips; with an open one: %.1f", float64(fresh)/float64(2*oneWay), float64(open)/float64(2*oneWay))
		require.LessOrEqual(t, fresh, 5*2*oneWay)
		// One, and a half that only this network has: a stream delivers the acceptance before it takes the blocks behind it.
		require.LessOrEqual(t, open, 3*oneWay)
	})
}

func benchPair(b *testing.B) (context.Context, *testmarket.Peer, *testmarket.Peer, rm.Params) {
	ctx, cancel := context.WithCancel(b.Context())
	bank := testmarket.NewBank()
	var peers []*testmarket.Peer
	for i := range 2 {
		p, err := testmarket.NewPeer(bank, uint64(i+1))
		require.NoError(b, err)
		p.Book = true
		require.NoError(b, p.Start(ctx))
		peers = append(peers, p)
	}
	b.Cleanup(func() {
		for _, p := range peers {
			require.NoError(b, p.Stop(context.Background()))
		}
		cancel()
	})
	testmarket.Know(peers[0], peers[1])
	params := terms(2, 0, 1<<20, 0)
	require.NoError(b, peers[1].Asks.SetAsk(ask(params)))
	return ctx, peers[0], peers[1], params
}

// BenchmarkFirstByte is the time from the proposal to the first verified bytes, over loopback TCP, with an open payment channel.
func BenchmarkFirstByte(b *testing.B) {
	ctx, c, p, params := benchPair(b)
	w := newWatch(c)
	w.buy(b, ctx, c, p, params, 1<<40)
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		took = append(took, w.buy(b, ctx, c, p, params, uint64(i)))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-median")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
}

// BenchmarkDeals are whole paid deals of one leaf of 1 KiB.
func BenchmarkDeals(b *testing.B) {
	for _, at := range []int{1, 64} {
		b.Run(fmt.Sprintf("%d at once", at), func(b *testing.B) {
			ctx, c, p, params := benchPair(b)
			w := newWatch(c)
			w.buy(b, ctx, c, p, params, 1<<40)
			seeds := make(chan uint64)
			var wg sync.WaitGroup
			for range at {
				wg.Go(func() {
					for s := range seeds {
						w.buy(b, ctx, c, p, params, s)
					}
				})
			}
			b.ResetTimer()
			for i := range b.N {
				seeds <- uint64(i)
			}
			close(seeds)
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deals/s")
		})
	}
}
