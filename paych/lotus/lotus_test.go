package lotus_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/google/uuid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cartage-dev/cartage/blob"
	pay "github.com/cartage-dev/cartage/paych"
	"github.com/cartage-dev/cartage/paych/lotus"
	"github.com/cartage-dev/cartage/paych/paychtest"
)

func TestMain(m *testing.M) {
	address.CurrentNetwork = address.Mainnet
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("go.opencensus.io/stats/view.(*worker).start"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"))
}

// side is a manager with a wallet over a simulated node.
type side struct {
	*pay.Manager
	t     *testing.T
	addr  address.Address
	chain *lotus.Chain
}

func newSide(t *testing.T, n *paychtest.SimulatedLotus, inWallet bool) *side {
	t.Helper()
	w, err := pay.OpenWallet(blob.OS{}, t.TempDir())
	require.NoError(t, err)
	a, err := w.New()
	require.NoError(t, err)
	n.Fund(a, big.NewInt(1000), inWallet)
	c := dial(t, n, paychtest.TokenSign)
	m, err := pay.Open(t.Context(), dssync.MutexWrap(datastore.NewMapDatastore()), c, w)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close(context.Background())) })
	return &side{m, t, a, c}
}

func dial(t *testing.T, n *paychtest.SimulatedLotus, token string) *lotus.Chain {
	t.Helper()
	c, stop, err := lotus.Dial(t.Context(), lotus.Config{URL: n.URL, Token: token, CallTime: 5 * time.Second})
	require.NoError(t, err)
	t.Cleanup(stop)
	return c
}

func start(t *testing.T) *paychtest.SimulatedLotus {
	t.Helper()
	n := paychtest.NewSimulatedLotus()
	t.Cleanup(n.Close)
	n.Advance(10)
	return n
}

// pushed waits until so many messages are in the pool.
func pushed(t *testing.T, n *paychtest.SimulatedLotus, count int) {
	t.Helper()
	require.Eventually(t, func() bool { return n.Pool() == count }, 5*time.Second, time.Millisecond)
}

// opened makes a channel from one side to another; between the push and its result f is called.
func opened(t *testing.T, n *paychtest.SimulatedLotus, payer, payee *side, f func()) address.Address {
	t.Helper()
	r, err := payer.GetOrCreate(t.Context(), "deal", payer.addr, payee.addr, big.NewInt(500))
	require.NoError(t, err)
	require.True(t, r.Wait.Defined())
	pushed(t, n, 1)
	f()
	ch, err := payer.WaitReady(t.Context(), r.Wait)
	require.NoError(t, err)
	return ch
}

// TestLife: a channel from its create to its collect, with exact amounts.
func TestLife(t *testing.T) {
	n := start(t)
	payer, payee := newSide(t, n, true), newSide(t, n, true)
	ch := opened(t, n, payer, payee, func() { n.Advance(6) })
	require.Equal(t, "500", n.Balance(payer.addr).String())
	lane, err := payer.AllocateLane(t.Context(), "deal", ch, big.NewInt(500))
	require.NoError(t, err)
	var last *paych.SignedVoucher
	for _, amount := range []int64{100, 250, 300} {
		last, _, err = payer.CreateVoucher(t.Context(), "deal", ch, lane, big.NewInt(amount), 0)
		require.NoError(t, err)
		_, err = payee.AcceptVoucher(t.Context(), "deal", ch, last, big.Zero(), 0)
		require.NoError(t, err)
	}
	done := make(chan error, 1)
	go func() { done <- payee.Settle(context.WithoutCancel(t.Context()), ch) }()
	for range 2 { // redeem, then settle
		pushed(t, n, 1)
		n.Advance(6)
	}
	require.NoError(t, <-done)
	info, err := payer.chain.Channel(t.Context(), ch)
	require.NoError(t, err)
	require.Equal(t, "300", info.ToSend.String())
	require.Equal(t, map[uint64]pay.LaneInfo{lane: {Redeemed: big.NewInt(300), Nonce: last.Nonce}}, info.Lanes)
	require.NotZero(t, info.SettlingAt)
	n.Advance(paychtest.SettleDelay)
	go func() { done <- payee.Collect(context.WithoutCancel(t.Context()), ch) }()
	pushed(t, n, 1)
	n.Advance(6)
	require.NoError(t, <-done)
	require.Equal(t, "700", n.Balance(payer.addr).String())
	require.Equal(t, "1300", n.Balance(payee.addr).String())
	info, err = payer.chain.Channel(t.Context(), ch)
	require.NoError(t, err)
	require.True(t, info.Collected)
	other, err := address.NewActorAddress([]byte("nobody"))
	require.NoError(t, err)
	_, err = payer.chain.Channel(t.Context(), other)
	require.ErrorIs(t, err, pay.ErrUnknownChannel)
}

// TestReorganisation: a create that is taken back and mined again is one channel; the payee takes no voucher before it is deep enough.
func TestReorganisation(t *testing.T) {
	n := start(t)
	payer, payee := newSide(t, n, true), newSide(t, n, true)
	ch := opened(t, n, payer, payee, func() {
		n.Advance(3)
		n.Reorganise(3, false)
		n.Advance(7)
	})
	require.Equal(t, 1, n.Requests("MpoolPushMessage"))
	require.Equal(t, "500", n.Balance(payer.addr).String())
	lane, err := payer.AllocateLane(t.Context(), "deal", ch, big.NewInt(500))
	require.NoError(t, err)
	v, _, err := payer.CreateVoucher(t.Context(), "deal", ch, lane, big.NewInt(100), 0)
	require.NoError(t, err)
	n.Reorganise(7, false)
	n.Advance(2)
	_, err = payee.AcceptVoucher(t.Context(), "deal", ch, v, big.Zero(), 0)
	require.ErrorIs(t, err, pay.ErrUnconfirmed)
	n.Advance(5)
	_, err = payee.AcceptVoucher(t.Context(), "deal", ch, v, big.Zero(), 0)
	require.NoError(t, err)
}

// TestFailures: what goes wrong on the chain, or in the wallet of the node, is an error with its name, and nothing is left reserved.
func TestFailures(t *testing.T) {
	n := start(t)
	payer, payee := newSide(t, n, true), newSide(t, n, false)
	r, err := payer.GetOrCreate(t.Context(), "deal", payer.addr, payee.addr, big.NewInt(500))
	require.NoError(t, err)
	pushed(t, n, 1)
	n.OutOfGas(1)
	n.Advance(6)
	_, err = payer.WaitReady(t.Context(), r.Wait)
	require.ErrorContains(t, err, "SysErrOutOfGas")
	require.Equal(t, "1000", n.Balance(payer.addr).String())

	_, err = payer.GetOrCreate(t.Context(), "big", payer.addr, payee.addr, big.NewInt(5000))
	require.ErrorIs(t, err, pay.ErrWalletFunds)
	_, err = payee.GetOrCreate(t.Context(), "deal", payee.addr, payer.addr, big.NewInt(10))
	require.ErrorIs(t, err, pay.ErrNoKey)
	require.ErrorContains(t, err, "the wallet of the Lotus node")

	ch := opened(t, n, payer, payee, func() { n.Advance(6) })
	more, err := payer.GetOrCreate(t.Context(), "second", payer.addr, payee.addr, big.NewInt(200))
	require.NoError(t, err)
	pushed(t, n, 1)
	n.Advance(6)
	again, err := payer.WaitReady(t.Context(), more.Wait)
	require.NoError(t, err)
	require.Equal(t, ch, again, "a top-up is to the same channel")
	require.Equal(t, "300", n.Balance(payer.addr).String())
}

// TestTransport: broken connections, bad gateways and the absence of the node are waited out; a message is sent once whatever
// happens to its answer.
func TestTransport(t *testing.T) {
	n := start(t)
	payer, payee := newSide(t, n, true), newSide(t, n, true)
	n.Fail("MpoolPushMessage", paychtest.DropAfter, paychtest.BadGateway, paychtest.DropBefore)
	n.Fail("ChainHead", paychtest.DropBefore, paychtest.BadGateway)
	n.Fail("StateWaitMsg", paychtest.DropBefore, paychtest.DropAfter)
	opened(t, n, payer, payee, func() {
		n.Away(true)
		time.Sleep(50 * time.Millisecond)
		n.Away(false)
		n.Advance(6)
	})
	require.Equal(t, 4, n.Requests("MpoolPushMessage"))
	require.Equal(t, "500", n.Balance(payer.addr).String(), "one message")

	c := dial(t, n, paychtest.TokenSign)
	n.Fail("WalletBalance", paychtest.Garbage)
	b, err := c.Balance(t.Context(), payer.addr)
	require.NoError(t, err, "asked again")
	require.Equal(t, "500", b.String())
	n.Away(true)
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = c.Balance(short, payer.addr)
	require.Error(t, err)
	n.Away(false)
}

// TestAuth: a token that is not taken, or may not send, is said so, and is not printed.
func TestAuth(t *testing.T) {
	n := start(t)
	payer := newSide(t, n, true)
	op := pay.Op{Kind: pay.OpAddFunds, From: payer.addr, To: payer.addr, Channel: payer.addr, Value: big.NewInt(1), Intent: uuid.New()}
	for _, token := range []string{paychtest.TokenRead, "stolen"} {
		_, err := dial(t, n, token).Submit(t.Context(), op)
		require.ErrorIs(t, err, lotus.ErrAuth)
		require.NotContains(t, err.Error(), token)
	}
	_, err := dial(t, n, paychtest.TokenSign).Submit(t.Context(), op)
	require.NoError(t, err)
}

// TestBehind: on a node whose head is too old nothing is begun; what is there can be read.
func TestBehind(t *testing.T) {
	n := start(t)
	payer, payee := newSide(t, n, true), newSide(t, n, true)
	n.Age(time.Hour)
	_, err := payer.GetOrCreate(t.Context(), "deal", payer.addr, payee.addr, big.NewInt(500))
	require.ErrorIs(t, err, lotus.ErrNodeBehind)
	b, err := payer.chain.Balance(t.Context(), payer.addr)
	require.NoError(t, err)
	require.Equal(t, "1000", b.String())
	_, epoch, err := payer.chain.Head(t.Context())
	require.NoError(t, err)
	require.Equal(t, abi.ChainEpoch(10), epoch)
}

// TestWebSocket: the same node over a WebSocket.
func TestWebSocket(t *testing.T) {
	n := start(t)
	c, stop, err := lotus.Dial(t.Context(), lotus.Config{URL: "ws" + n.URL[len("http"):], Token: paychtest.TokenSign})
	require.NoError(t, err)
	defer stop()
	_, epoch, err := c.Head(t.Context())
	require.NoError(t, err)
	require.Equal(t, abi.ChainEpoch(10), epoch)
}

// lanes makes a channel with so many lanes, with a voucher of amount on each.
func lanes(t *testing.T, n *paychtest.SimulatedLotus, payer, payee *side, count int, amount int64) address.Address {
	t.Helper()
	ch := opened(t, n, payer, payee, func() { n.Advance(7) })
	require.NoError(t, payer.ReleaseDeal(t.Context(), "deal"))
	for i := range count {
		deal := fmt.Sprint("x", i)
		l, err := payer.AllocateLane(t.Context(), deal, ch, big.NewInt(amount))
		require.NoError(t, err)
		v, _, err := payer.CreateVoucher(t.Context(), deal, ch, l, big.NewInt(amount), 1)
		require.NoError(t, err)
		_, err = payee.AcceptVoucher(t.Context(), deal, ch, v, big.Zero(), 1)
		require.NoError(t, err)
	}
	return ch
}

// TestSweep: the vouchers of all lanes of a channel are on their way before the first is on the chain: a payer with many lanes does not
// outlast the settle delay.
func TestSweep(t *testing.T) {
	n := start(t)
	payer, payee := newSide(t, n, true), newSide(t, n, true)
	ch := lanes(t, n, payer, payee, 40, 10)
	done := make(chan error, 1)
	go func() { done <- payee.Redeem(context.WithoutCancel(t.Context()), ch) }()
	pushed(t, n, 40)
	n.Advance(6)
	require.NoError(t, <-done)
	info, err := payee.chain.Channel(t.Context(), ch)
	require.NoError(t, err)
	require.Equal(t, "400", info.ToSend.String())
}

// TestDust: a lane whose voucher is worth less than the fee of redeeming it costs nothing.
func TestDust(t *testing.T) {
	n := start(t)
	payer, payee := newSide(t, n, true), newSide(t, n, true)
	ch := lanes(t, n, payer, payee, 15, 10)
	n.Fee(big.NewInt(11))
	require.NoError(t, payee.Redeem(t.Context(), ch))
	require.Zero(t, n.Pool())
	n.Fee(big.NewInt(10))
	done := make(chan error, 1)
	go func() { done <- payee.Redeem(context.WithoutCancel(t.Context()), ch) }()
	pushed(t, n, 15)
	n.Advance(6)
	require.NoError(t, <-done)
}

// TestRefusedForGood: what the node refuses for good ends with its answer: nothing is sent later for a deal that is gone.
func TestRefusedForGood(t *testing.T) {
	n := start(t)
	payer, payee := newSide(t, n, false), newSide(t, n, true)
	_, err := payer.GetOrCreate(t.Context(), "deal", payer.addr, payee.addr, big.NewInt(500))
	require.ErrorIs(t, err, pay.ErrNoKey)
	pushes := n.Requests("MpoolPushMessage")
	n.Fund(payer.addr, big.NewInt(0), true) // now the node has the key
	time.Sleep(300 * time.Millisecond)      // a message of unknown fate is sent again after 100 ms
	require.Equal(t, pushes, n.Requests("MpoolPushMessage"))
	require.Zero(t, n.Pool())
}
