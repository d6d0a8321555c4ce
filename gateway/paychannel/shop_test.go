package paychannel_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	spaych "github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/gateway"
	"github.com/cartage-dev/cartage/gateway/paychannel"
	"github.com/cartage-dev/cartage/gateway/x402"
	"github.com/cartage-dev/cartage/internal/faults"
	"github.com/cartage-dev/cartage/paych"
	"github.com/cartage-dev/cartage/paych/ledger"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("go.opencensus.io/stats/view.(*worker).start"))
}

// oneBlock is Blocks with one leaf, which it counts the reads of.
type oneBlock struct {
	cid   cid.Cid
	data  []byte
	reads atomic.Int64
}

func (b *oneBlock) Find(_ context.Context, c cid.Cid) (gateway.Place, error) {
	if !c.Equals(b.cid) {
		return gateway.Place{}, gateway.ErrNotFound
	}
	return gateway.Place{Piece: 1, Size: uint32(len(b.data))}, nil
}

func (b *oneBlock) Read(_ context.Context, c cid.Cid, _ gateway.Place, _ []byte) ([]byte, error) {
	b.reads.Add(1)
	if !c.Equals(b.cid) {
		return nil, gateway.ErrNotFound
	}
	return b.data, nil
}

// shop is a gateway that sells one block out of payment channels of a real ledger, and a buyer.
type shop struct {
	t       testing.TB
	block   *oneBlock
	blocks  gateway.Blocks // what is sold
	chain   func(w *paych.Wallet) paych.Chain
	fund    func(address.Address)
	records *faults.Records // of the seller
	sellers *paych.Wallet
	seller  *paych.Manager
	server  *httptest.Server
	payTo   address.Address
	price   atomic.Int64
	clock   atomic.Int64

	buyers  *paych.Wallet
	buyer   *paych.Manager
	from    address.Address
	channel address.Address
	lane    uint64
	paid    abi.TokenAmount // of the lane
}

const price = 3

func newShop(t testing.TB) *shop { return newShopOf(t, nil) }

// newShopOf is a shop that sells other blocks than one, if blocks is not nil.
func newShopOf(t testing.TB, blocks gateway.Blocks) *shop {
	s := &shop{blocks: blocks, t: t, block: &oneBlock{data: make([]byte, 64<<10)}, records: faults.NewRecords(), paid: big.Zero()}
	fill := rand.New(rand.NewPCG(1, 1))
	for i := range s.block.data {
		s.block.data[i] = byte(fill.Uint32())
	}
	sum := sha256.Sum256(s.block.data)
	h, err := mh.Encode(sum[:], mh.SHA2_256)
	require.NoError(t, err)
	s.block.cid = cid.NewCidV1(cid.Raw, h)
	if s.blocks == nil {
		s.blocks = s.block
	}
	s.price.Store(price)
	s.clock.Store(1_800_000_000)
	s.openLedger()
	s.sellers, s.payTo = s.wallet("seller")
	s.buyers, s.from = s.wallet("buyer")
	s.buyer, err = paych.Open(t.Context(), dssync.MutexWrap(datastore.NewMapDatastore()), s.chain(s.buyers), s.buyers)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.buyer.Close(context.WithoutCancel(t.Context()))) })
	s.open(nil)
	t.Cleanup(s.close)
	s.openChannel(1_000_000_000)
	return s
}

func (s *shop) openLedger() {
	home := s.t.TempDir()
	require.NoError(s.t, ledger.Init(home, ledger.Options{Dev: true, Epoch: 20 * time.Millisecond, SettleDelay: 1000}))
	l, err := ledger.Open(s.t.Context(), home)
	require.NoError(s.t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(s.t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.t.Context()))
	served := make(chan error, 1)
	go func() { served <- l.Serve(ctx, ln, "token") }()
	s.t.Cleanup(func() {
		cancel()
		require.NoError(s.t, <-served)
		require.NoError(s.t, l.Close())
	})
	s.chain = func(w *paych.Wallet) paych.Chain {
		c, done, err := ledger.Dial(s.t.Context(), "http://"+ln.Addr().String(), "token", w)
		require.NoError(s.t, err)
		s.t.Cleanup(done)
		return c
	}
	s.fund = func(a address.Address) {
		_, err := l.Faucet(s.t.Context(), a)
		require.NoError(s.t, err)
	}
}

func (s *shop) wallet(name string) (*paych.Wallet, address.Address) {
	w, err := paych.OpenWallet(blob.OS{}, filepath.Join(s.t.TempDir(), name))
	require.NoError(s.t, err)
	a, err := w.New()
	require.NoError(s.t, err)
	s.fund(a)
	return w, a
}

// open starts the seller over what it has stored.
func (s *shop) open(sw *faults.Switch) {
	if sw == nil {
		sw = &faults.Switch{}
	}
	store := faults.Store{Batching: s.records, Switch: sw}
	var err error
	s.seller, err = paych.Open(s.t.Context(), store, s.chain(s.sellers), s.sellers)
	require.NoError(s.t, err)
	cashier := paychannel.New(paychannel.Config{Manager: s.seller, Store: store, Network: func() string { return "cartage:test" },
		PayTo: func() (address.Address, error) { return s.payTo, nil }, Price: func() abi.TokenAmount { return big.NewInt(s.price.Load()) }, Window: 4 << 10,
		Now: func() time.Time { return time.Unix(s.clock.Load(), 0) }})
	g, err := gateway.New(gateway.Config{Blocks: s.blocks, Seller: &gateway.Seller{Cashiers: []gateway.Cashier{cashier}},
		Limits: gateway.Limits{Requests: 1e6, AllRequests: 1e6, FailedPayments: 1e6, Window: 4 << 10, MaxWindow: 16 << 10}})
	require.NoError(s.t, err)
	s.server = httptest.NewServer(g)
}

func (s *shop) close() {
	s.server.Client().CloseIdleConnections()
	s.server.Close()
	require.NoError(s.t, s.seller.Close(context.WithoutCancel(s.t.Context())))
}

func (s *shop) openChannel(amount int64) {
	ctx := s.t.Context()
	r, err := s.buyer.GetOrCreate(ctx, "http", s.from, s.payTo, big.NewInt(amount))
	require.NoError(s.t, err)
	if s.channel = r.Channel; r.Wait.Defined() {
		s.channel, err = s.buyer.WaitReady(ctx, r.Wait)
		require.NoError(s.t, err)
	}
	s.lane, err = s.buyer.AllocateLane(ctx, "http", s.channel, big.NewInt(amount))
	require.NoError(s.t, err)
}

// answer is a response with its body.
type answer struct {
	*http.Response
	body []byte
}

// ask sends a request for a range of the block, with a payment or without.
func (s *shop) ask(from, to int, payment string) (answer, error) {
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.server.URL+"/ipfs/"+s.block.cid.String()+"?format=raw", nil)
	if err != nil {
		return answer{}, err
	}
	r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, to-1))
	if payment != "" {
		r.Header.Set(x402.HeaderPayment, payment)
	}
	resp, err := s.server.Client().Do(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp, body}, err
}

func (s *shop) mustAsk(from, to int, payment string) answer {
	s.t.Helper()
	a, err := s.ask(from, to, payment)
	require.NoError(s.t, err)
	return a
}

// challenge is what an answer asks for.
func (a answer) challenge(t testing.TB) x402.Challenge {
	t.Helper()
	c, err := x402.DecodeChallenge(a.Header.Get(x402.HeaderRequired))
	require.NoError(t, err, "%d %s", a.StatusCode, a.body)
	return c
}

func (a answer) receipt(t testing.TB) x402.Receipt {
	t.Helper()
	r, err := x402.DecodeReceipt(a.Header.Get(x402.HeaderReceipt))
	require.NoError(t, err, "%d %s", a.StatusCode, a.body)
	return r
}

func (a answer) code(t testing.TB) string {
	t.Helper()
	var f struct{ Error string }
	require.NoError(t, json.Unmarshal(a.body, &f), "%s", a.body)
	return f.Error
}

// offer is what a range costs.
func (s *shop) offer(from, to int) x402.Offer {
	s.t.Helper()
	a := s.mustAsk(from, to, "")
	require.Equal(s.t, 402, a.StatusCode, "%s", a.body)
	return a.challenge(s.t).Accepts[0]
}

// voucher signs a total.
func (s *shop) voucher(total abi.TokenAmount) *spaych.SignedVoucher {
	s.t.Helper()
	v, _, err := s.buyer.CreateVoucher(s.t.Context(), "http", s.channel, s.lane, total, 0)
	require.NoError(s.t, err)
	return v
}

// payment takes an offer with a voucher.
func (s *shop) payment(o x402.Offer, v *spaych.SignedVoucher) string {
	s.t.Helper()
	payload, err := paychannel.Payload(v)
	require.NoError(s.t, err)
	text, err := x402.Payment{X402Version: x402.Version, Accepted: o, Payload: payload}.Encode()
	require.NoError(s.t, err)
	return text
}

// sign takes an offer for a range with the next voucher.
func (s *shop) sign(from, to int) string {
	o := s.offer(from, to)
	s.paid = big.Add(s.paid, big.NewFromGo(o.Amount.Int()))
	return s.payment(o, s.voucher(s.paid))
}

// booked is what the seller has of the lane.
func (s *shop) booked() int64 {
	e, ok := s.seller.LaneEntry(s.channel, s.lane)
	if !ok {
		return 0
	}
	return e.Amount.Int64()
}
