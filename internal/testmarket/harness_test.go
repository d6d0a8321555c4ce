package testmarket_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/internal/testmarket"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// trace is what subscribers of one side were told of one deal: events and states, without those of single blocks.
type trace struct {
	mu    sync.Mutex
	steps []string
	last  rm.DealStatus
	text  string
	more  chan struct{}
	on    func(step string)
}

func newTrace() *trace { return &trace{more: make(chan struct{})} }

func (t *trace) add(event string, s rm.DealStatus, text string) {
	step := event + ">" + strings.TrimPrefix(s.String(), "DealStatus")
	t.mu.Lock()
	changed := s != t.last
	t.last, t.text = s, text
	if changed || event != "BlocksReceived" && event != "BlockSent" {
		t.steps = append(t.steps, step)
	}
	on := t.on
	close(t.more)
	t.more = make(chan struct{})
	t.mu.Unlock()
	if on != nil {
		on(step)
	}
}

// forget begins anew for the next deal.
func (t *trace) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.steps, t.last, t.text = nil, rm.DealStatusNew, ""
}

func (t *trace) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.steps, " ")
}

// until waits until a step was told.
func (t *trace) until(tb testing.TB, what string, ok func(steps []string, s rm.DealStatus) bool) {
	tb.Helper()
	deadline := time.After(20 * time.Second)
	for {
		t.mu.Lock()
		good, more := ok(t.steps, t.last), t.more
		t.mu.Unlock()
		if good {
			return
		}
		select {
		case <-more:
		case <-deadline:
			tb.Fatalf("waited in vain for %s: %s (%s)", what, t, t.text)
		}
	}
}

func (t *trace) saw(tb testing.TB, step string) {
	tb.Helper()
	t.until(tb, step, func(steps []string, _ rm.DealStatus) bool {
		for _, s := range steps {
			if s == step {
				return true
			}
		}
		return false
	})
}

func (t *trace) ended(tb testing.TB) rm.DealStatus {
	tb.Helper()
	t.until(tb, "the end", func(_ []string, s rm.DealStatus) bool { return clientstates.IsFinal(s) })
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

// pair is a client and a provider of one DAG.
type pair struct {
	t      *testing.T
	ctx    context.Context
	bank   *testmarket.SimulatedBank
	c, p   *testmarket.Peer
	tc, tp *trace
	root   cid.Cid
	total  uint64
	funds  abi.TokenAmount
	params rm.Params
}

// terms are the ask of a provider and what a client proposes.
func terms(price, unseal int64, interval, increase uint64) rm.Params {
	return rm.Params{PricePerByte: big.NewInt(price), UnsealPrice: big.NewInt(unseal), PaymentInterval: interval, PaymentIntervalIncrease: increase}
}

func ask(p rm.Params) *rm.Ask {
	return &rm.Ask{PricePerByte: p.PricePerByte, UnsealPrice: p.UnsealPrice, PaymentInterval: p.PaymentInterval, PaymentIntervalIncrease: p.PaymentIntervalIncrease}
}

// newPair starts a client and a provider with a list of leaves; change comes before the start.
func newPair(t *testing.T, p rm.Params, leaves, size int, change ...func(*pair)) *pair {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	m := &pair{t: t, ctx: ctx, bank: testmarket.NewBank(), tc: newTrace(), tp: newTrace(), params: p}
	var err error
	m.c, err = testmarket.NewPeer(m.bank, 1)
	require.NoError(t, err)
	m.p, err = testmarket.NewPeer(m.bank, 2)
	require.NoError(t, err)
	m.root, m.total, err = m.p.Store.BuildDAG(leaves, size, 3)
	require.NoError(t, err)
	m.funds = big.Add(big.Mul(p.PricePerByte, big.NewIntUnsigned(m.total)), p.UnsealPrice)
	m.c.Stream, m.p.Stream = testutil.OverStreams(t), testutil.OverStreams(t)
	for _, f := range change {
		f(m)
	}
	m.start()
	require.NoError(t, m.p.Asks.SetAsk(ask(m.params)))
	t.Cleanup(func() {
		require.NoError(t, m.c.Stop(context.Background()))
		require.NoError(t, m.p.Stop(context.Background()))
	})
	return m
}

func (m *pair) start() {
	require.NoError(m.t, m.c.Start(m.ctx))
	require.NoError(m.t, m.p.Start(m.ctx))
	testmarket.Know(m.c, m.p)
	m.c.Client.SubscribeToEvents(func(e rm.ClientEvent, s rm.ClientDealState) {
		m.tc.add(strings.TrimPrefix(e.String(), "ClientEvent"), s.Status, s.Message)
	})
	m.p.Provider.SubscribeToEvents(func(e rm.ProviderEvent, s rm.ProviderDealState) {
		m.tp.add(strings.TrimPrefix(e.String(), "ProviderEvent"), s.Status, s.Message)
	})
}

func (m *pair) retrieve() rm.DealID {
	m.t.Helper()
	id, err := m.c.Client.Retrieve(m.ctx, m.root, m.params, m.funds, m.p.As(), m.c.Address, m.p.Address, nil)
	require.NoError(m.t, err)
	return id
}

// completed checks that both sides ended well, that everything is here, and that the money is exact.
func (m *pair) completed(due abi.TokenAmount) {
	m.t.Helper()
	require.Equal(m.t, rm.DealStatusCompleted, m.tc.ended(m.t), "%s", m.tc)
	require.Equal(m.t, rm.DealStatusCompleted, m.tp.ended(m.t), "%s", m.tp)
	require.Equal(m.t, m.p.Store.Len(), m.c.Store.Len())
	made, taken := m.bank.Totals()
	require.Equal(m.t, due.String(), made.String(), "vouchered")
	require.Equal(m.t, due.String(), taken.String(), "accepted")
}

func (m *pair) due() abi.TokenAmount {
	return big.Add(big.Mul(m.params.PricePerByte, big.NewIntUnsigned(m.total)), m.params.UnsealPrice)
}

// gate makes the provider wait before its n-th read until the returned function is called.
func (m *pair) gate(n int) (reached chan struct{}, open func()) {
	reached, opened := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	read := 0
	m.p.Store.OnRead(func(cid.Cid) {
		mu.Lock()
		read++
		at := read
		mu.Unlock()
		if at == n {
			close(reached)
		}
		if at >= n {
			<-opened
		}
	})
	return reached, sync.OnceFunc(func() { close(opened) })
}
