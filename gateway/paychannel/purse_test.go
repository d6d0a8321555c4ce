package paychannel_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-unixfsnode/data/builder"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/storage/memstore"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/gateway"
	"github.com/cartage-dev/cartage/gateway/buyer"
	"github.com/cartage-dev/cartage/gateway/paychannel"
	"github.com/cartage-dev/cartage/gateway/x402"
	"github.com/cartage-dev/cartage/internal/faults"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/paych"
)

// dag is Blocks in memory, and what a buyer has of them.
type dag struct {
	store *memstore.Store
	root  cid.Cid
}

func (d *dag) Find(ctx context.Context, c cid.Cid) (gateway.Place, error) {
	data, err := d.store.Get(ctx, c.KeyString())
	if err != nil {
		return gateway.Place{}, gateway.ErrNotFound
	}
	return gateway.Place{Piece: 1, Size: uint32(len(data))}, nil
}

func (d *dag) Read(ctx context.Context, c cid.Cid, _ gateway.Place, _ []byte) ([]byte, error) {
	return d.store.Get(ctx, c.KeyString())
}

// bag is a buyer.Store in memory.
type bag struct {
	mu     sync.Mutex
	blocks map[cid.Cid][]byte
}

func (b *bag) Size(c cid.Cid) (int, bool) {
	data, err := b.Get(c)
	return len(data), err == nil
}

func (b *bag) Get(c cid.Cid) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	data, ok := b.blocks[c]
	if !ok {
		return nil, gateway.ErrNotFound
	}
	return data, nil
}

func (b *bag) Put(c cid.Cid, data []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.blocks[c] = bytes.Clone(data)
	return nil
}

// market is a shop that sells a file of sixty leaves, and one who buys it.
type market struct {
	*shop
	dag    *dag
	bag    *bag
	buyer2 *buyer.Buyer
	notes  datastore.Batching
}

func newMarket(t *testing.T) *market {
	d := &dag{store: &memstore.Store{}}
	ls := cidlink.DefaultLinkSystem()
	ls.SetReadStorage(d.store)
	ls.SetWriteStorage(d.store)
	data := make([]byte, 60*1024)
	fill := rand.New(rand.NewPCG(5, 5))
	for i := range data {
		data[i] = byte(fill.Uint32())
	}
	l, _, err := builder.BuildUnixFSFile(bytes.NewReader(data), "size-1024", &ls)
	require.NoError(t, err)
	d.root = l.(cidlink.Link).Cid
	m := &market{shop: newShopOf(t, d), dag: d, bag: &bag{blocks: map[cid.Cid][]byte{}}, buyer2: buyer.New(buyer.Config{}), notes: faults.NewRecords()}
	t.Cleanup(m.buyer2.Close)
	return m
}

// order is a run of the order, with a purse of its own.
func (m *market) order(budget int64) (buyer.Order, *paychannel.Purse) {
	m.t.Helper()
	p, err := paychannel.OpenPurse(m.t.Context(), paychannel.PurseConfig{Manager: m.buyer, Store: m.notes, Network: "cartage:test", From: m.from, Order: "order", Gateway: "gw", Budget: big.NewInt(budget)})
	require.NoError(m.t, err)
	return buyer.Order{Query: gateway.Query{Root: m.dag.root}, Store: m.bag, Purse: p}, p
}

func (m *market) base(server string) *url.URL {
	u, err := url.Parse(server)
	require.NoError(m.t, err)
	return u
}

// owed is what the whole CAR costs behind its header, which nobody has to buy.
func (m *market) owed() int64 {
	q, err := m.buyer2.Find(m.t.Context(), m.base(m.server.URL), gateway.Query{Root: m.dag.root})
	require.NoError(m.t, err)
	header, err := gateway.Query{Root: m.dag.root}.Header()
	require.NoError(m.t, err)
	return price * (int64(q.Size) - int64(len(header)))
}

// earned is what the seller has booked over all lanes.
func (m *market) earned() int64 {
	sum := big.Zero()
	for _, s := range m.seller.Booked() {
		sum = big.Add(sum, s.Vouchered)
	}
	return sum.Int64()
}

func (m *market) requireWhole() {
	m.t.Helper()
	require.Len(m.t, m.bag.blocks, 61)
	for c, data := range m.bag.blocks {
		have, err := m.dag.Read(m.t.Context(), c, gateway.Place{}, nil)
		require.NoError(m.t, err)
		require.Equal(m.t, have, data)
	}
}

func amountOf(t *testing.T, p *paychannel.Purse) int64 {
	spent, err := p.Spent(t.Context())
	require.NoError(t, err)
	return spent.Int64()
}

// TestBuyer (T-17): what is bought is what was wanted, for what it costs, to the unit; the second time nothing is fetched or paid.
func TestBuyer(t *testing.T) {
	m := newMarket(t)
	o, p := m.order(1e6)
	got, err := m.buyer2.Fetch(t.Context(), m.base(m.server.URL), o)
	require.NoError(t, err)
	m.requireWhole()
	require.Equal(t, m.owed(), amountOf(t, p))
	require.Equal(t, m.owed(), m.earned())
	require.Equal(t, m.owed(), got.Paid.Int64())
	require.EqualValues(t, (m.owed()/price+4095)/4096, got.Windows, "windows of 4 KiB, as advised")
	require.EqualValues(t, 61, got.Blocks)
	require.NoError(t, p.Close(t.Context()))
	again, err := m.buyer2.Fetch(t.Context(), m.base(m.server.URL), o)
	require.NoError(t, err)
	require.Zero(t, again.Windows)
	require.NoError(t, m.seller.Redeem(t.Context(), m.seller.Booked()[0].Channel))
}

// TestBudget: a budget holds over all runs, and above it nothing is signed.
func TestBudget(t *testing.T) {
	m := newMarket(t)
	o, p := m.order(100)
	_, err := m.buyer2.Fetch(t.Context(), m.base(m.server.URL), o)
	require.ErrorIs(t, err, reason.PriceAbove)
	require.Zero(t, amountOf(t, p))
	half := m.owed() / 2
	for range 2 {
		o, p = m.order(half)
		_, err = m.buyer2.Fetch(t.Context(), m.base(m.server.URL), o)
		require.ErrorIs(t, err, reason.BudgetUsed)
		require.LessOrEqual(t, amountOf(t, p), half)
		require.Equal(t, amountOf(t, p), m.earned())
		require.NoError(t, p.Close(t.Context()))
	}
	o.Purse = nil
	_, err = m.buyer2.Fetch(t.Context(), m.base(m.server.URL), o)
	require.ErrorIs(t, err, reason.PriceAbove)
	o, p = m.order(m.owed())
	_, err = m.buyer2.Fetch(t.Context(), m.base(m.server.URL), o)
	require.NoError(t, err)
	m.requireWhole()
	require.Equal(t, m.owed(), amountOf(t, p))
}

// TestHoles: blocks that came another way are neither fetched nor paid for.
func TestHoles(t *testing.T) {
	m := newMarket(t)
	o, p := m.order(1e6)
	_, err := m.buyer2.Fetch(t.Context(), m.base(m.server.URL), o)
	require.NoError(t, err)
	n := 0
	for c := range m.bag.blocks {
		if n++; n%7 == 0 {
			delete(m.bag.blocks, c)
		}
	}
	before := amountOf(t, p)
	o, p = m.order(1e6)
	o.Window = 1100
	_, err = m.buyer2.Fetch(t.Context(), m.base(m.server.URL), o)
	require.NoError(t, err)
	m.requireWhole()
	require.LessOrEqual(t, amountOf(t, p)-before, int64(9*2*1100*price))
}

// TestBuyerCrashPoints: the buyer loses power at each of its writes in turn, and begins anew. What it pays in all is what it owes, and at most
// one window more; the seller charges no window twice.
func TestBuyerCrashPoints(t *testing.T) {
	for n := 1; ; n++ {
		m := newMarket(t)
		books, sw := faults.NewRecords(), &faults.Switch{At: n}
		run := func(sw *faults.Switch) error {
			store := faults.Store{Batching: books, Switch: sw}
			pm, err := paych.Open(t.Context(), store, m.chain(m.buyers), m.buyers)
			require.NoError(t, err)
			defer func() { require.NoError(t, pm.Close(context.WithoutCancel(t.Context()))) }()
			p, err := paychannel.OpenPurse(t.Context(), paychannel.PurseConfig{Manager: pm, Store: store, Network: "cartage:test", From: m.from, Order: "order", Gateway: "gw", Budget: big.NewInt(1e6)})
			require.NoError(t, err)
			o := buyer.Order{Query: gateway.Query{Root: m.dag.root}, Store: m.bag, Purse: p, Window: 16 << 10}
			if _, err = m.buyer2.Fetch(t.Context(), m.base(m.server.URL), o); err == nil && !sw.Crashed() {
				m.requireWhole()
				require.LessOrEqual(t, amountOf(t, p), m.owed()+16<<10*price, "write %d", n)
			}
			return err
		}
		err := run(sw) // it may come to its end although its last note was not written
		if !sw.Crashed() {
			require.NoError(t, err)
			require.Greater(t, n, 10)
			return
		}
		books.PowerLoss(nil)
		require.NoError(t, run(&faults.Switch{}), "write %d", n)
		require.LessOrEqual(t, m.earned(), m.owed()+16<<10*price, "write %d", n)
	}
}

// TestCheats (T-11): a gateway that cheats gains at most a window, and the reason says what it did.
func TestCheats(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(r *http.Response, body []byte) []byte
		want   reason.Reason
	}{
		"a wrong byte":    {func(_ *http.Response, b []byte) []byte { b[100] ^= 1; return b }, reason.HashMismatch},
		"another order":   {func(_ *http.Response, b []byte) []byte { return append(bytes.Clone(b[1100:]), b[:1100]...) }, reason.BlockUnexpected},
		"nothing":         {func(_ *http.Response, b []byte) []byte { return make([]byte, len(b)) }, reason.BlockUnexpected},
		"too short":       {func(_ *http.Response, b []byte) []byte { return b[:len(b)/2] }, reason.PeerUnreachable},
		"no receipt":      {func(r *http.Response, b []byte) []byte { r.Header.Del(x402.HeaderReceipt); return b }, reason.PeerFailed},
		"another range":   {func(r *http.Response, b []byte) []byte { r.Header.Set("Content-Range", "bytes 0-1/2"); return b }, reason.PeerFailed},
		"the whole of it": {func(r *http.Response, b []byte) []byte { r.StatusCode = 200; return b }, reason.PeerFailed},
		"402 for ever":    {func(r *http.Response, b []byte) []byte { r.StatusCode = 402; return []byte(`{"error":"x"}`) }, reason.PeerRefused},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMarket(t)
			proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(m.base(m.server.URL)) }, ModifyResponse: func(r *http.Response) error {
				if r.Header.Get(x402.HeaderReceipt) == "" {
					return nil
				}
				var b bytes.Buffer
				if _, err := b.ReadFrom(r.Body); err != nil {
					return err
				}
				body := tc.change(r, b.Bytes())
				r.Body = struct {
					*bytes.Reader
					nopCloser
				}{bytes.NewReader(body), nopCloser{}}
				r.ContentLength = int64(len(body))
				r.Header.Set("Content-Length", fmt.Sprint(len(body)))
				return nil
			}})
			defer proxy.Close()
			o, p := m.order(1e6)
			o.Window = 16 << 10
			_, err := m.buyer2.Fetch(t.Context(), m.base(proxy.URL), o)
			require.ErrorIs(t, err, tc.want, "%v", err)
			lost := int64(1)
			if tc.want == reason.PeerRefused {
				lost = 2 // it was given a second chance, on a new lane
			}
			require.LessOrEqual(t, amountOf(t, p), lost*16<<10*price)
			m.buyer2.Close()
		})
	}
}

type nopCloser struct{}

func (nopCloser) Close() error { return nil }

// TestPriceRises: an offer above what was quoted is not taken, whatever the budget.
func TestPriceRises(t *testing.T) {
	m := newMarket(t)
	o, p := m.order(1e9)
	raised := false
	o.Report = func(buyer.Progress) {
		if !raised {
			raised = true
			m.price.Store(1000)
			m.clock.Add(601)
			m.offer2()
			m.clock.Add(601)
		}
	}
	_, err := m.buyer2.Fetch(t.Context(), m.base(m.server.URL), o)
	require.ErrorIs(t, err, reason.PriceAbove)
	require.LessOrEqual(t, amountOf(t, p), int64(3*4096*price))
}

// offer2 makes the cashier look at its price.
func (m *market) offer2() {
	_, err := m.buyer2.Find(m.t.Context(), m.base(m.server.URL), gateway.Query{Root: m.dag.root})
	require.NoError(m.t, err)
}

// TestFreeAndForeign: what is free is fetched without a purse, also from a gateway that knows nothing of windows.
func TestFreeAndForeign(t *testing.T) {
	m := newMarket(t)
	m.price.Store(0)
	o, _ := m.order(0)
	o.Purse = nil
	_, err := m.buyer2.Fetch(t.Context(), m.base(m.server.URL), o)
	require.NoError(t, err)
	m.requireWhole()
	foreign := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(m.base(m.server.URL))
		r.Out.Header.Del("Range")
	}, ModifyResponse: func(r *http.Response) error {
		for name := range r.Header {
			if name != "Content-Type" {
				r.Header.Del(name)
			}
		}
		return nil
	}})
	defer foreign.Close()
	n := 0
	for c := range m.bag.blocks {
		if n++; n%5 == 0 && c != m.dag.root {
			delete(m.bag.blocks, c)
		}
	}
	_, err = m.buyer2.Fetch(t.Context(), m.base(foreign.URL), o)
	require.NoError(t, err)
	m.requireWhole()
	m.buyer2.Close()
	_, err = m.buyer2.Fetch(t.Context(), m.base("http://192.0.2.1"), o)
	require.ErrorIs(t, err, reason.Usage)
	_, err = m.buyer2.Fetch(t.Context(), m.base("ftp://x"), o)
	require.ErrorIs(t, err, reason.Usage)
}
