package batch_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	fbig "github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cartage-dev/cartage/gateway"
	"github.com/cartage-dev/cartage/gateway/batch"
	"github.com/cartage-dev/cartage/gateway/x402"
	"github.com/cartage-dev/cartage/internal/faults"
	"github.com/cartage-dev/cartage/paych/book"
	"github.com/cartage-dev/cartage/paych/evm"
	"github.com/cartage-dev/cartage/paych/evm/evmtest"
	"github.com/cartage-dev/cartage/paych/evm/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// oneBlock is Blocks with one leaf, whose reads can be counted and made to fail.
type oneBlock struct {
	cid   cid.Cid
	data  []byte
	reads atomic.Int64
	fails atomic.Bool
}

func (b *oneBlock) Find(_ context.Context, c cid.Cid) (gateway.Place, error) {
	if !c.Equals(b.cid) {
		return gateway.Place{}, gateway.ErrNotFound
	}
	return gateway.Place{Piece: 1, Size: uint32(len(b.data))}, nil
}

func (b *oneBlock) Read(context.Context, cid.Cid, gateway.Place, []byte) ([]byte, error) {
	b.reads.Add(1)
	if b.fails.Load() {
		return nil, gateway.ErrNotFound
	}
	return b.data, nil
}

const (
	window = 4 << 10
	delay  = 86400
	// price of a TiB: 4,096 bytes cost 2.8 units.
	price = 7 << 27 / 10 * 8
)

// shop is a gateway that sells one block for channels on the double of a chain, and one who pays.
type shop struct {
	t       testing.TB
	block   *oneBlock
	chain   *evmtest.Chain
	direct  bool
	node    *httptest.Server
	helper  *httptest.Server
	records *faults.Records
	book    *book.Book
	desk    *relay.Desk
	server  *httptest.Server
	price   atomic.Int64
	close   func()

	receiver *evm.Key
	payer    *evmtest.Payer
	config   evm.ChannelConfig
	charged  int64 // as the payer counts it
}

func newKey(t testing.TB, b byte) *evm.Key {
	k, err := evm.NewKey(bytes.Repeat([]byte{b}, 32))
	require.NoError(t, err)
	return k
}

func newShop(t testing.TB, direct bool) *shop {
	s := &shop{t: t, direct: direct, block: &oneBlock{data: make([]byte, 64<<10)}, chain: evmtest.NewChain(31337, evm.Address{1}, time.Unix(1_800_000_000, 0)), records: faults.NewRecords(), receiver: newKey(t, 2)}
	fill := rand.New(rand.NewPCG(1, 1))
	for i := range s.block.data {
		s.block.data[i] = byte(fill.Uint32())
	}
	sum := sha256.Sum256(s.block.data)
	h, err := mh.Encode(sum[:], mh.SHA2_256)
	require.NoError(t, err)
	s.block.cid = cid.NewCidV1(cid.Raw, h)
	s.price.Store(price)
	s.node, s.helper = httptest.NewServer(s.chain), httptest.NewServer(&evmtest.Facilitator{Chain: s.chain})
	t.Cleanup(s.node.Close)
	t.Cleanup(s.helper.Close)
	s.payer = &evmtest.Payer{Chain: s.chain, Key: newKey(t, 1)}
	s.chain.Mint(s.payer.Key.Address(), 1_000_000)
	s.config = s.payer.Channel(s.receiver.Address(), s.receiver.Address(), delay, 0)
	s.open(&faults.Switch{})
	t.Cleanup(func() { s.close() })
	return s
}

func (s *shop) keys(a evm.Address) (*evm.Key, error) {
	if a == s.receiver.Address() {
		return s.receiver, nil
	}
	return nil, errors.New("no such key")
}

// open starts the seller over what it has stored.
func (s *shop) open(sw *faults.Switch) {
	store := faults.Store{Batching: s.records, Switch: sw}
	var err error
	s.book, err = book.Open(s.t.Context(), store, s.chain.Now)
	require.NoError(s.t, err)
	c := relay.NewChain(s.node.URL, 31337, s.chain.Now)
	f := relay.NewFacilitator(relay.FacilitatorConfig{URL: s.helper.URL, ChainID: 31337, Authorizers: s.keys, Now: s.chain.Now})
	escrow := book.Escrow(f)
	if s.direct {
		escrow = relay.NewDirect(relay.DirectConfig{Chain: c, Sender: newKey(s.t, 9), Authorizers: s.keys, Store: store, MaxFee: big.NewInt(1e12), Poll: time.Millisecond})
	}
	s.desk = relay.NewDesk(relay.DeskConfig{Book: s.book, Escrow: escrow, Network: s.chain.Network(), Watch: time.Minute, ClaimAt: fbig.NewInt(1000), MaxChannel: fbig.NewInt(5000), PerDay: 1000, Now: s.chain.Now, Log: slog.New(slog.DiscardHandler)})
	cashier := batch.New(batch.Config{Book: s.book, Desk: s.desk, Token: s.chain.Token, TokenDecimals: 4, PayTo: s.receiver.Address(), Authorizer: s.receiver.Address(), Delay: delay,
		PerTiB: func() abi.TokenAmount { return fbig.NewInt(s.price.Load()) }, Window: window, MaxChannel: fbig.NewInt(5000), MaxAsset: fbig.NewInt(50_000), Now: s.chain.Now})
	g, err := gateway.New(gateway.Config{Blocks: s.block, Seller: &gateway.Seller{Cashiers: []gateway.Cashier{cashier}},
		Limits: gateway.Limits{Requests: 1e6, AllRequests: 1e6, FailedPayments: 1e6, Window: window, MaxWindow: 4 * window}})
	require.NoError(s.t, err)
	s.server = httptest.NewServer(g)
	s.close = func() {
		s.server.Client().CloseIdleConnections()
		s.server.Close()
		c.Close()
		f.Close()
	}
}

// crash ends the seller as a power loss does, and starts it anew.
func (s *shop) crash(keepAll bool) {
	s.close()
	s.records.PowerLoss(func(writes int) int {
		if keepAll {
			return writes
		}
		return 0
	})
	s.open(&faults.Switch{})
}

type answer struct {
	*http.Response
	body []byte
}

func (s *shop) request(path, ranges, payment string) (answer, error) {
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.server.URL+path, nil)
	if err != nil {
		return answer{}, err
	}
	if ranges != "" {
		r.Header.Set("Range", ranges)
	}
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

func (s *shop) ask(from, to int, payment string) (answer, error) {
	return s.request("/ipfs/"+s.block.cid.String()+"?format=raw", fmt.Sprintf("bytes=%d-%d", from, to-1), payment)
}

func (s *shop) mustAsk(from, to int, payment string) answer {
	s.t.Helper()
	a, err := s.ask(from, to, payment)
	require.NoError(s.t, err)
	return a
}

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

func (a answer) charged(t testing.TB) int64 {
	t.Helper()
	v, ok := new(big.Int).SetString(a.receipt(t).Extra["chargedAmount"].(string), 10)
	require.True(t, ok)
	return v.Int64()
}

func (a answer) code(t testing.TB) string {
	t.Helper()
	var f struct{ Error string }
	require.NoError(t, json.Unmarshal(a.body, &f), "%s", a.body)
	return f.Error
}

func (s *shop) offer(from, to int) x402.Offer {
	s.t.Helper()
	a := s.mustAsk(from, to, "")
	require.Equal(s.t, 402, a.StatusCode, "%s", a.body)
	return a.challenge(s.t).Accepts[0]
}

// encode takes an offer with a payload.
func (s *shop) encode(o x402.Offer, p evm.Payload) string {
	s.t.Helper()
	data, err := json.Marshal(p)
	require.NoError(s.t, err)
	text, err := x402.Payment{X402Version: x402.Version, Accepted: o, Payload: data}.Encode()
	require.NoError(s.t, err)
	return text
}

// voucher is a payment of an offer, on what was charged so far.
func (s *shop) voucher(o x402.Offer) string {
	return s.encode(o, evm.Payload{Type: evm.TypeVoucher, Config: s.config, Voucher: s.payer.Voucher(s.config, s.charged+o.Amount.Int().Int64())})
}

// deposit is a payment of an offer with a deposit.
func (s *shop) deposit(o x402.Offer, amount int64) string {
	return s.encode(o, evm.Payload{Type: evm.TypeDeposit, Config: s.config, Voucher: s.payer.Voucher(s.config, s.charged+o.Amount.Int().Int64()), Deposit: s.payer.Deposit(s.config, amount)})
}

// refundOf is a refund of an amount; 0 is all.
func (s *shop) refundOf(o x402.Offer, amount int64) string {
	p := evm.Payload{Type: evm.TypeRefund, Config: s.config, Voucher: s.payer.Voucher(s.config, s.charged)}
	if amount > 0 {
		p.Amount = big.NewInt(amount)
	}
	return s.encode(o, p)
}

// buy pays for a range and checks it.
func (s *shop) buy(from, to int, pay func(x402.Offer) string) answer {
	s.t.Helper()
	a := s.mustAsk(from, to, pay(s.offer(from, to)))
	require.Equal(s.t, 206, a.StatusCode, "%s", a.body)
	require.Equal(s.t, s.block.data[from:to], a.body)
	s.charged += a.charged(s.t)
	return a
}

func (s *shop) deposits(amount int64) func(x402.Offer) string {
	return func(o x402.Offer) string { return s.deposit(o, amount) }
}

// earned is what the seller has booked.
func (s *shop) entry() book.Entry {
	s.t.Helper()
	e, err := s.book.Get(s.t.Context(), book.ChannelKey{Kind: evm.Kind, Network: s.chain.Network(), Asset: s.config.Token.String(), Channel: s.chain.Domain().ChannelID(s.config).String()})
	require.NoError(s.t, err)
	return e
}

// owed is the exact price of n bytes, rounded up.
func owed(n int64) int64 {
	v := new(big.Int).Mul(big.NewInt(n), big.NewInt(price))
	v.Add(v, new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 40), big.NewInt(1)))
	return v.Rsh(v, 40).Int64()
}
