package relay_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/big"
	"net/http/httptest"
	"testing"
	"time"

	fbig "github.com/filecoin-project/go-state-types/big"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cartage-dev/cartage/internal/faults"
	"github.com/cartage-dev/cartage/paych/book"
	"github.com/cartage-dev/cartage/paych/evm"
	"github.com/cartage-dev/cartage/paych/evm/evmtest"
	"github.com/cartage-dev/cartage/paych/evm/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const delay = 86400

// room is a double of a chain, a payer with 1,000,000 units, and a receiver.
type room struct {
	t        *testing.T
	chain    *evmtest.Chain
	payer    *evmtest.Payer
	receiver *evm.Key
	records  *faults.Records
	rpc      string
	help     string
	config   evm.ChannelConfig
}

func newKey(t *testing.T, b byte) *evm.Key {
	k, err := evm.NewKey(bytes.Repeat([]byte{b}, 32))
	require.NoError(t, err)
	return k
}

func newRoom(t *testing.T) *room {
	r := &room{t: t, chain: evmtest.NewChain(31337, evm.Address{1}, time.Unix(1_800_000_000, 0)), receiver: newKey(t, 2), records: faults.NewRecords()}
	r.payer = &evmtest.Payer{Chain: r.chain, Key: newKey(t, 1)}
	r.chain.Mint(r.payer.Key.Address(), 1_000_000)
	r.config = r.payer.Channel(newKey(t, 3).Address(), r.receiver.Address(), delay, 0)
	node := httptest.NewServer(r.chain)
	t.Cleanup(node.Close)
	helper := httptest.NewServer(&evmtest.Facilitator{Chain: r.chain, Token: "secret"})
	t.Cleanup(helper.Close)
	r.rpc, r.help = node.URL, helper.URL
	return r
}

func (r *room) keys(a evm.Address) (*evm.Key, error) {
	if a == r.receiver.Address() {
		return r.receiver, nil
	}
	return nil, errors.New("no such key")
}

func (r *room) direct(sw *faults.Switch) *relay.Direct {
	c := relay.NewChain(r.rpc, 31337, r.chain.Now)
	r.t.Cleanup(c.Close)
	return relay.NewDirect(relay.DirectConfig{Chain: c, Sender: newKey(r.t, 9), Authorizers: r.keys, Store: faults.Store{Batching: r.records, Switch: sw}, MaxFee: big.NewInt(1e12), Poll: time.Millisecond, Patience: 20 * time.Millisecond})
}

func (r *room) facilitator(withReader bool) *relay.Facilitator {
	cfg := relay.FacilitatorConfig{URL: r.help, Token: "secret", ChainID: 31337, Authorizers: r.keys, Now: r.chain.Now}
	if withReader {
		cfg.Reader = relay.NewChain(r.rpc, 31337, r.chain.Now)
		r.t.Cleanup(cfg.Reader.Close)
	}
	f := relay.NewFacilitator(cfg)
	r.t.Cleanup(f.Close)
	return f
}

func (r *room) escrows() map[string]book.Escrow {
	return map[string]book.Escrow{"direct": r.direct(&faults.Switch{}), "facilitator": r.facilitator(false), "facilitator and reader": r.facilitator(true)}
}

func (r *room) key(c evm.ChannelConfig) book.ChannelKey {
	return book.ChannelKey{Kind: evm.Kind, Network: r.chain.Network(), Asset: c.Token.String(), Channel: r.chain.Domain().ChannelID(c).String()}
}

func (r *room) funding(c evm.ChannelConfig, amount, maximum int64, before book.Balance) book.Intent {
	offer := map[string]any{"scheme": evm.Scheme, "network": r.chain.Network(), "asset": c.Token, "payTo": c.Receiver}
	payload, err := json.Marshal(map[string]any{"x402Version": 2, "accepted": offer, "payload": evm.Payload{Type: evm.TypeDeposit, Config: c, Voucher: r.payer.Voucher(c, maximum), Deposit: r.payer.Deposit(c, amount)}})
	require.NoError(r.t, err)
	if before.Deposit.Nil() {
		before.Deposit = fbig.Zero()
	}
	return book.Intent{Key: r.key(c), Config: c.Encode(), Payload: payload, Before: before.Deposit}
}

// entry is one that has earned an amount.
func (r *room) entry(c evm.ChannelConfig, earned int64) book.Entry {
	v := r.payer.Voucher(c, earned)
	zero := fbig.Zero()
	return book.Entry{Version: 1, Key: r.key(c), Config: c.Encode(), Earned: fbig.NewInt(earned), Secured: fbig.NewInt(earned), Redeemed: zero, Lost: zero, Refund: zero,
		Balance: book.Balance{Deposit: zero, Claimed: zero}, Proof: append(v.Maximum.FillBytes(make([]byte, 16)), v.Signature...)}
}

// TestEscrows: a channel is funded, claimed, settled and refunded, to the unit; each call may be repeated, and an answer that is lost costs nothing.
func TestEscrows(t *testing.T) {
	for name := range newRoom(t).escrows() {
		for _, lost := range []int{0, 1} {
			r := newRoom(t)
			e := r.escrows()[name]
			f := r.funding(r.config, 5000, 100, book.Balance{})
			r.chain.DropAnswers(lost)
			for range 2 {
				b, _, err := e.Fund(t.Context(), f)
				require.NoError(t, err, name)
				require.Equal(t, "5000", b.Deposit.String())
			}
			require.Equal(t, 1, r.chain.Sent("deposit"), name)
			require.EqualValues(t, 995_000, r.chain.BalanceOf(r.payer.Key.Address()))
			entry := r.entry(r.config, 1234)
			r.chain.DropAnswers(lost)
			for range 2 {
				s, err := e.Redeem(t.Context(), []book.Entry{entry})
				require.NoError(t, err, name)
				require.Equal(t, "1234", s.Balances[0].Claimed.String())
			}
			require.EqualValues(t, 1234, r.chain.BalanceOf(r.config.Receiver))
			require.Equal(t, 1, r.chain.Sent("claim"), name)
			entry = r.entry(r.config, 2000)
			r.chain.DropAnswers(lost)
			for range 2 {
				_, err := e.Release(t.Context(), entry, fbig.NewInt(3000))
				require.NoError(t, err, name)
			}
			require.EqualValues(t, 998_000, r.chain.BalanceOf(r.payer.Key.Address()), name)
			s, err := e.State(t.Context(), []book.Entry{entry})
			require.NoError(t, err)
			require.Equal(t, []string{"2000", "2000"}, []string{s[0].Deposit.String(), s[0].Claimed.String()})
			require.EqualValues(t, 1, s[0].RefundNonce)
			require.NoError(t, err)
		}
	}
}

// TestRefused: what the chain will not do is a refusal that does not pass, with its words; a chain that is away passes.
func TestRefused(t *testing.T) {
	r := newRoom(t)
	for name, e := range r.escrows() {
		_, _, err := e.Fund(t.Context(), r.funding(r.config, 2_000_000, 100, book.Balance{}))
		var refused *book.RefusedError
		require.ErrorAs(t, err, &refused, name)
		require.Contains(t, refused.Text+refused.Code, "ufficient", name)
		require.NotErrorIs(t, err, book.ErrUnavailable)
	}
	r.chain.Away(true)
	for name, e := range r.escrows() {
		_, _, err := e.Fund(t.Context(), r.funding(r.config, 2000, 100, book.Balance{}))
		require.ErrorIs(t, err, book.ErrUnavailable, name)
	}
}

// TestRowByRow: a batch with a row that the contract refuses is claimed without that row, which is named.
func TestRowByRow(t *testing.T) {
	for name := range newRoom(t).escrows() {
		r := newRoom(t)
		e := r.escrows()[name]
		other := r.payer.Channel(r.config.Receiver, r.receiver.Address(), delay, 1)
		for _, c := range []evm.ChannelConfig{r.config, other} {
			_, _, err := e.Fund(t.Context(), r.funding(c, 1000, 100, book.Balance{}))
			require.NoError(t, err)
		}
		bad := r.entry(other, 900)
		bad.Earned = fbig.NewInt(1001)
		s, err := e.Redeem(t.Context(), []book.Entry{bad, r.entry(r.config, 700)})
		var refused *book.RefusedError
		require.ErrorAs(t, err, &refused, name)
		require.Len(t, s.Balances, 2)
		require.Equal(t, "700", s.Balances[1].Claimed.String())
		require.EqualValues(t, 700, r.chain.BalanceOf(r.config.Receiver))
	}
}

// TestDirectCrashes (G-54): a power loss at each write of the relay: the same transaction is sent again, and nothing has an effect twice.
func TestDirectCrashes(t *testing.T) {
	for n := 1; ; n++ {
		r := newRoom(t)
		sw := &faults.Switch{At: n}
		d := r.direct(sw)
		do := func(f func(d *relay.Direct) error) {
			if err := f(d); err != nil {
				require.True(t, sw.Crashed(), "write %d: %v", n, err)
				r.records.PowerLoss(func(int) int { return n % 2 })
				d = r.direct(&faults.Switch{})
				require.NoError(t, f(d), "write %d", n)
			}
		}
		f := r.funding(r.config, 5000, 100, book.Balance{})
		do(func(d *relay.Direct) error { _, _, err := d.Fund(t.Context(), f); return err })
		entry := r.entry(r.config, 1234)
		do(func(d *relay.Direct) error { _, err := d.Redeem(t.Context(), []book.Entry{entry}); return err })
		do(func(d *relay.Direct) error { _, err := d.Release(t.Context(), entry, fbig.NewInt(1000)); return err })
		require.Equal(t, []int{1, 1, 1, 1}, []int{r.chain.Sent("deposit"), r.chain.Sent("claim"), r.chain.Sent("settle"), r.chain.Sent("refund")}, "write %d", n)
		require.EqualValues(t, 996_000, r.chain.BalanceOf(r.payer.Key.Address()))
		require.EqualValues(t, 1234, r.chain.BalanceOf(r.config.Receiver))
		if !sw.Crashed() {
			require.Greater(t, n, 8)
			return
		}
	}
}

// TestUnmined: a transaction that is not mined is offered a higher fee, and one that a crash left is brought to its end before another is sent.
func TestUnmined(t *testing.T) {
	r := newRoom(t)
	d := r.direct(&faults.Switch{})
	r.chain.Hold(true)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	f := r.funding(r.config, 5000, 100, book.Balance{})
	_, _, err := d.Fund(ctx, f)
	require.ErrorIs(t, err, book.ErrUnavailable)
	r.chain.Hold(false)
	b, _, err := d.Fund(t.Context(), f)
	require.NoError(t, err)
	require.Equal(t, "5000", b.Deposit.String())
	require.Equal(t, 1, r.chain.Sent("deposit"))
}

// TestChecks: another chain, and a facilitator for another network, are found at the start.
func TestChecks(t *testing.T) {
	r := newRoom(t)
	good, bad := relay.NewChain(r.rpc, 31337, nil), relay.NewChain(r.rpc, 8453, nil)
	t.Cleanup(good.Close)
	t.Cleanup(bad.Close)
	require.NoError(t, good.Check(t.Context(), evm.Address{1}))
	require.ErrorContains(t, bad.Check(t.Context(), evm.Address{1}), "31337")
	require.NoError(t, r.facilitator(false).Check(t.Context()))
	other := relay.NewFacilitator(relay.FacilitatorConfig{URL: r.help, Token: "secret", ChainID: 8453})
	t.Cleanup(other.Close)
	require.ErrorContains(t, other.Check(t.Context()), "eip155:8453")
	wrong := relay.NewFacilitator(relay.FacilitatorConfig{URL: r.help, ChainID: 31337})
	t.Cleanup(wrong.Close)
	require.ErrorIs(t, wrong.Check(t.Context()), book.ErrUnavailable)
	require.Error(t, relay.CheckURL("http://example.org"))
	require.NoError(t, relay.CheckURL("http://127.0.0.1:8545"))
	require.NoError(t, relay.CheckURL("https://example.org"))
}
