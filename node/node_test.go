package node_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/money"
	"github.com/cartage-dev/cartage/node"
	"github.com/cartage-dev/cartage/paych/ledger"
)

// devLedger serves a development ledger with a faucet in dir, until stop.
func devLedger(ctx context.Context, dir string) (url, tokenFile string, stop func() error, err error) {
	home := filepath.Join(dir, "ledger")
	if err = os.MkdirAll(home, 0o700); err != nil {
		return "", "", nil, err
	}
	if err = ledger.Init(home, ledger.Options{Dev: true, Epoch: 200 * time.Millisecond, SettleDelay: 300}); err != nil {
		return "", "", nil, err
	}
	tokenFile = filepath.Join(dir, "ledger.token")
	if err = os.WriteFile(tokenFile, []byte("a token\n"), 0o600); err != nil {
		return "", "", nil, err
	}
	l, err := ledger.Open(ctx, home)
	if err != nil {
		return "", "", nil, err
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", nil, errors.Join(err, l.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- l.Serve(ctx, ln, "a token") }()
	return "http://" + ln.Addr().String(), tokenFile, func() error {
		cancel()
		return errors.Join(<-served, l.Close())
	}, nil
}

// market is a ledger, a seller with a file, and a buyer with money.
type market struct {
	ctx           context.Context
	seller, buyer *node.Node
	file          []byte
	root          string
}

func newMarket(t *testing.T, ask node.Ask, more ...node.Option) *market {
	ctx, dir := t.Context(), t.TempDir()
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	url, token, stop, err := devLedger(ctx, dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, stop()) })
	open := func(name string, more ...node.Option) *node.Node {
		n, err := node.Open(ctx, filepath.Join(dir, name), append([]node.Option{node.WithLedger(url, token), node.WithConfig(map[string]string{"ledger.min_settle_window": "10s"})}, more...)...)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, n.Close(context.WithoutCancel(ctx))) })
		return n
	}
	m := &market{ctx: ctx, seller: open("seller", more...), buyer: open("buyer"), file: make([]byte, 5<<20+17)}
	_, _ = rand.NewChaCha8([32]byte{1}).Read(m.file)
	path := filepath.Join(dir, "movie.mp4")
	require.NoError(t, os.WriteFile(path, m.file, 0o600))
	piece, err := m.seller.Provide(ctx, path)
	require.NoError(t, err)
	m.root = piece.Root
	_, err = m.buyer.API().Faucet(ctx)
	require.NoError(t, err)
	m.sells(t, ask)
	return m
}

// sells serves until the test ends.
func (m *market) sells(t *testing.T, ask node.Ask) {
	ctx, cancel := context.WithCancel(m.ctx)
	served, ready := make(chan error, 1), make(chan struct{})
	go func() { served <- m.seller.Serve(ctx, ask, func() { close(ready) }) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-served)
	})
	<-ready
	offers, err := m.buyer.Quote(m.ctx, m.root, node.From(m.seller.Addrs()...))
	require.NoError(t, err)
	require.True(t, offers[0].Available)
}

func twoAtto() node.Ask { return node.Ask{Price: money.MustParsePrice("2/B")} }

func TestBuy(t *testing.T) {
	m := newMarket(t, twoAtto())
	var phases []node.Phase
	p, err := m.buyer.Buy(m.ctx, m.root, node.From(m.seller.Addrs()...), node.Budget(money.MustParse("1FIL")), node.Progress(func(p node.Phase) { phases = append(phases, p) }))
	require.NoError(t, err)
	out := new(bytes.Buffer)
	n, err := p.WriteTo(out)
	require.NoError(t, err)
	require.Equal(t, int64(len(m.file)), n)
	require.True(t, bytes.Equal(m.file, out.Bytes()))
	to := filepath.Join(t.TempDir(), "bought.mp4")
	require.NoError(t, p.Save(to))
	got, err := os.ReadFile(to)
	require.NoError(t, err)
	require.True(t, bytes.Equal(m.file, got))
	require.Error(t, p.Save(to), "something is there")
	require.Equal(t, 2*p.Received(), p.Spent().Units.Uint64())
	require.NotEmpty(t, phases)
	require.Equal(t, p.Received(), phases[len(phases)-1].Received)
	require.NoError(t, p.Close())

	again, err := m.buyer.Buy(m.ctx, "ipfs://"+m.root, node.From(m.seller.Addrs()...))
	require.NoError(t, err, "what is here costs nothing")
	require.Zero(t, again.Received())
	require.NoError(t, again.Close())
	part, err := m.buyer.Buy(m.ctx, m.root, node.From(m.seller.Addrs()...), node.Range(1000, 1999))
	require.NoError(t, err)
	out.Reset()
	_, err = part.WriteTo(out)
	require.NoError(t, err)
	require.True(t, bytes.Equal(m.file[1000:2000], out.Bytes()))
	require.NoError(t, part.Close())

	for d, err := range m.seller.Deals(m.ctx, node.Filter{Role: "provider"}) {
		require.NoError(t, err)
		require.Equal(t, m.buyer.ID().String(), d.Peer)
		require.Equal(t, d.Owed, d.Vouchered)
	}
}

// TestBuyReturns: whatever does not go well is an error with a class, a reason and what was spent.
func TestBuyReturns(t *testing.T) {
	m := newMarket(t, twoAtto())
	from := node.From(m.seller.Addrs()...)
	stranger := "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo"
	for name, c := range map[string]struct {
		ref     string
		opts    []node.BuyOption
		class   error
		reasons []string
	}{
		"no budget":         {m.root, []node.BuyOption{from}, node.ErrFunds, []string{"price-above"}},
		"too small a one":   {m.root, []node.BuyOption{from, node.Budget(money.MustParse("100"))}, node.ErrFunds, []string{"price-above"}},
		"too dear":          {m.root, []node.BuyOption{from, node.MaxPrice(money.MustParsePrice("1/B"))}, node.ErrFunds, []string{"price-above"}},
		"nobody named":      {m.root, nil, node.ErrNotFound, []string{"no-provider"}},
		"nobody there":      {m.root, []node.BuyOption{node.From(stranger)}, node.ErrUnreachable, nil},
		"nobody has it":     {"bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi", []node.BuyOption{from}, node.ErrNotFound, nil},
		"nothing at a path": {m.root + "/docs", []node.BuyOption{from, node.Budget(money.MustParse("1FIL"))}, node.ErrNotFound, nil},
		"no reference":      {"movie", []node.BuyOption{from}, nil, []string{"usage"}},
		"another asset":     {m.root, []node.BuyOption{from, node.Budget(money.Amount{Units: money.MustParse("1").Units, Asset: money.Asset{Name: "usdc@base"}})}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := m.buyer.Buy(m.ctx, c.ref, c.opts...)
			var e *api.Error
			require.ErrorAs(t, err, &e)
			if c.class != nil {
				require.ErrorIs(t, err, c.class)
			}
			if c.reasons != nil {
				require.Contains(t, c.reasons, e.Reason)
			}
		})
	}
	ctx, cancel := context.WithCancel(m.ctx)
	_, err := m.buyer.Buy(ctx, m.root, from, node.Budget(money.MustParse("1FIL")), node.Progress(func(node.Phase) { cancel() }))
	require.ErrorIs(t, err, node.ErrInterrupted)
	for o, err := range m.buyer.Orders(m.ctx) {
		require.NoError(t, err)
		if o.State == "parked" {
			require.NoError(t, m.buyer.Cancel(m.ctx, o.ID))
		}
	}
}

// TestServeEnds: nothing is sold before and after Serve.
func TestServeEnds(t *testing.T) {
	m := newMarket(t, node.Ask{})
	ctx, cancel := context.WithCancel(m.ctx)
	cancel()
	require.NoError(t, m.seller.Serve(ctx, node.Ask{}))
	p, err := m.buyer.Buy(m.ctx, m.root, node.From(m.seller.Addrs()...))
	require.NoError(t, err, "the other one goes on")
	require.NoError(t, p.Close())

	quiet, err := node.Open(m.ctx, t.TempDir())
	require.NoError(t, err)
	defer func() { require.NoError(t, quiet.Close(m.ctx)) }()
	path := filepath.Join(t.TempDir(), "a.txt")
	require.NoError(t, os.WriteFile(path, []byte("not for sale yet"), 0o600))
	piece, err := quiet.Provide(m.ctx, path)
	require.NoError(t, err)
	_, err = m.buyer.Buy(m.ctx, piece.Root, node.From(quiet.Addrs()...))
	require.Error(t, err)
	require.ErrorContains(t, m.seller.Serve(m.ctx, node.Ask{Price: money.Price{Amount: money.Amount{Units: money.MustParse("1").Units, Asset: money.Asset{Name: "usdc@base"}}, Per: 1}}), "FIL")
}

// TestOptions: what is set counts, and what is wrong is an error of Open.
func TestOptions(t *testing.T) {
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))
	require.NoError(t, err)
	defer h.Close()
	metrics := prometheus.NewRegistry()
	m := newMarket(t, node.Ask{}, node.WithHost(h), node.WithRegisterer(metrics))
	require.Equal(t, h.ID(), m.seller.ID())
	p, err := m.buyer.Buy(m.ctx, m.root, node.From(m.seller.Addrs()...))
	require.NoError(t, err)
	require.NoError(t, p.Close())
	families, err := metrics.Gather()
	require.NoError(t, err)
	require.NotEmpty(t, families)

	for name, o := range map[string]node.Option{
		"unknown key": node.WithConfig(map[string]string{"retrieval.nothing": "1"}),
		"bad value":   node.WithConfig(map[string]string{"retrieval.queue_parallel": "many"}),
		"no host":     node.WithHost(nil),
		"no chain":    node.WithChain(nil),
		"bad address": node.WithListen("127.0.0.1:80"),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := node.Open(m.ctx, t.TempDir(), o)
			var e *api.Error
			require.ErrorAs(t, err, &e)
		})
	}
	_, err = node.Open(m.ctx, "")
	require.Error(t, err)
}
