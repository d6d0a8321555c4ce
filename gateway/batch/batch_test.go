package batch_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/gateway/x402"
	"github.com/cartage-dev/cartage/internal/faults"
	"github.com/cartage-dev/cartage/paych/book"
	"github.com/cartage-dev/cartage/paych/evm"
)

// each runs a test with both ways to reach the chain.
func each(t *testing.T, f func(t *testing.T, s *shop)) {
	for name, direct := range map[string]bool{"facilitator": false, "direct": true} {
		t.Run(name, func(t *testing.T) { f(t, newShop(t, direct)) })
	}
}

// TestG_31_Windows: the charges of windows add up to what all of it costs, to the unit; the receipts say so, the book has it, and after claim and settle the
// receiver has as many tokens.
func TestG_31_Windows(t *testing.T) {
	each(t, func(t *testing.T, s *shop) {
		s.buy(0, 100, s.deposits(2000))
		n := 100
		for _, to := range []int{101, 5000, 9000, 25384, 41768, 58152, len(s.block.data)} {
			a := s.buy(n, to, s.voucher)
			require.Equal(t, s.payer.Key.Address().String(), a.receipt(t).Payer)
			require.Equal(t, "private, max-age=29030400, immutable, no-transform", a.Header.Get("Cache-Control"))
			n = to
		}
		require.Equal(t, owed(int64(n)), s.charged)
		require.Equal(t, s.charged, s.entry().Earned.Int64())
		require.EqualValues(t, n, s.entry().Bytes)
		require.NoError(t, s.desk.Redeem(t.Context()))
		require.Equal(t, s.charged, s.chain.BalanceOf(s.receiver.Address()))
		e := s.entry()
		require.Equal(t, s.charged, e.Redeemed.Int64())
		days, err := s.book.Days(t.Context())
		require.NoError(t, err)
		require.Equal(t, []int64{s.charged, s.charged, 0}, []int64{days[0].Earned.Int64(), days[0].Redeemed.Int64(), days[0].Lost.Int64()})
		require.EqualValues(t, 8, days[0].Payments)
		s.charged = e.Earned.Int64()
		s.buy(0, 100, s.voucher)
	})
}

// TestChallenge: a 402 reads no block, and says what stock clients want to know.
func TestChallenge(t *testing.T) {
	s := newShop(t, false)
	o := s.offer(0, window)
	require.Equal(t, "batch-settlement", o.Scheme)
	require.Equal(t, "eip155:31337", o.Network)
	require.Equal(t, "3", o.Amount.String())
	require.Equal(t, s.receiver.Address().String(), o.PayTo)
	require.Equal(t, map[string]any{"receiverAuthorizer": s.receiver.Address().String(), "withdrawDelay": float64(delay), "name": "Token", "version": "2", "assetTransferMethod": "eip3009", "minDeposit": "1000"}, o.Extra)
	require.Zero(t, s.block.reads.Load())
	s.price.Store(0)
	require.Equal(t, 206, s.mustAsk(0, window, "").StatusCode, "free while there is no price")
}

// TestG_42_Replays: a voucher, a deposit and a refund that come again are answered again, and not charged or relayed again, three times within ten minutes.
func TestG_42_Replays(t *testing.T) {
	each(t, func(t *testing.T, s *shop) {
		first := s.deposit(s.offer(0, window), 2000)
		a := s.mustAsk(0, window, first)
		require.Equal(t, 206, a.StatusCode, "%s", a.body)
		s.charged = a.charged(t)
		require.Equal(t, "2000", a.receipt(t).Amount)
		for range 3 {
			again := s.mustAsk(0, window, first)
			require.Equal(t, 206, again.StatusCode, "%s", again.body)
			require.Equal(t, a.receipt(t), again.receipt(t))
		}
		last := s.mustAsk(0, window, first)
		require.Equal(t, 402, last.StatusCode)
		require.Equal(t, 1, s.chain.Sent("deposit"))
		second := s.voucher(s.offer(window, 2*window))
		b := s.mustAsk(window, 2*window, second)
		require.Equal(t, 206, b.StatusCode)
		s.charged += b.charged(t)
		require.Equal(t, b.receipt(t), s.mustAsk(window, 2*window, second).receipt(t))
		require.Equal(t, 402, s.mustAsk(0, window, second).StatusCode, "for other bytes it is no payment")
		s.chain.Advance(10*time.Minute + time.Second)
		require.Equal(t, 402, s.mustAsk(window, 2*window, second).StatusCode)
		require.Equal(t, s.charged, s.entry().Earned.Int64())
		refund := s.refundOf(s.offer(0, window), 500)
		r := s.mustAsk(0, window, refund)
		require.Equal(t, 200, r.StatusCode, "%s", r.body)
		require.Equal(t, "500", r.receipt(t).Amount)
		require.Equal(t, r.receipt(t), s.mustAsk(0, window, refund).receipt(t))
		require.EqualValues(t, 998_500, s.chain.BalanceOf(s.payer.Key.Address()))
	})
}

// TestG_41_Corrective: a voucher that adds more or less than the offer is refused with what the book has and the payer's own signature, and charges nothing.
func TestG_41_Corrective(t *testing.T) {
	s := newShop(t, false)
	s.buy(0, window, s.deposits(2000))
	o := s.offer(window, 2*window)
	for _, off := range []int64{-1, 1, 100} {
		good := s.charged
		s.charged += off
		a := s.mustAsk(window, 2*window, s.voucher(o))
		s.charged = good
		require.Equal(t, 402, a.StatusCode)
		require.Equal(t, "invalid_batch_settlement_evm_cumulative_amount_mismatch", a.code(t))
		extra := a.challenge(t).Accepts[0].Extra
		require.Equal(t, "3", extra["channelState"].(map[string]any)["chargedCumulativeAmount"])
		state := extra["voucherState"].(map[string]any)
		require.Equal(t, "3", state["signedMaxClaimable"])
		require.Len(t, state["signature"], 132)
	}
	require.EqualValues(t, 3, s.entry().Earned.Int64())
	s.buy(window, 2*window, s.voucher)
}

// TestRefusals: each payment that cannot be taken has its code, charges nothing and leaves no entry.
func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		code string
		pay  func(s *shop, o x402.Offer) string
	}{
		{"channel_not_found", func(s *shop, o x402.Offer) string { return s.voucher(o) }},
		{"network_mismatch", func(s *shop, o x402.Offer) string { o.Network = "eip155:1"; return s.voucher(o) }},
		{"terms_changed", func(s *shop, o x402.Offer) string { o.Amount, _ = x402.ParseAmount("2"); return s.voucher(o) }},
		{"terms_changed", func(s *shop, o x402.Offer) string { o.PayTo = s.payer.Key.Address().String(); return s.voucher(o) }},
		{"payload_type", func(s *shop, o x402.Offer) string {
			return s.encode(o, evm.Payload{Type: "gift", Config: s.config, Voucher: s.payer.Voucher(s.config, 3)})
		}},
		{"deposit_payload", func(s *shop, o x402.Offer) string {
			return s.encode(o, evm.Payload{Type: evm.TypeDeposit, Config: s.config, Voucher: s.payer.Voucher(s.config, 3)})
		}},
		{"withdraw_delay_mismatch", func(s *shop, o x402.Offer) string { s.config.WithdrawDelay = 900; return s.deposit(o, 2000) }},
		{"receiver_mismatch", func(s *shop, o x402.Offer) string { s.config.Receiver[0]++; return s.deposit(o, 2000) }},
		{"voucher_signature", func(s *shop, o x402.Offer) string { s.config.PayerAuthorizer[0]++; return s.deposit(o, 2000) }},
		{"deposit_below_min_deposit", func(s *shop, o x402.Offer) string { return s.deposit(o, 999) }},
		{"deposit_transaction_failed", func(s *shop, o x402.Offer) string { return s.deposit(o, 2_000_000) }},
		{"payload_authorization_valid_before", func(s *shop, o x402.Offer) string {
			p := s.deposit(o, 2000)
			s.chain.Advance(10 * time.Minute)
			return p
		}},
		{"receive_authorization_signature", func(s *shop, o x402.Offer) string {
			d := s.payer.Deposit(s.config, 2000)
			d.Amount.SetInt64(2001)
			return s.encode(o, evm.Payload{Type: evm.TypeDeposit, Config: s.config, Voucher: s.payer.Voucher(s.config, 3), Deposit: d})
		}},
		{"cumulative_amount_mismatch", func(s *shop, o x402.Offer) string { s.charged = 5; return s.deposit(o, 2000) }},
	} {
		t.Run(tc.code, func(t *testing.T) {
			s := newShop(t, true)
			a := s.mustAsk(0, window, tc.pay(s, s.offer(0, window)))
			require.Equal(t, 402, a.StatusCode, "%s", a.body)
			require.Equal(t, tc.code, strings.TrimPrefix(a.code(t), "invalid_batch_settlement_evm_"))
			require.Zero(t, s.entry().Version)
			require.Zero(t, s.chain.Sent("deposit"))
			require.EqualValues(t, 1_000_000, s.chain.BalanceOf(s.payer.Key.Address()))
			intents, err := s.book.Intents(t.Context())
			require.NoError(t, err)
			require.Empty(t, intents)
		})
	}
}

// TestG_46_Refund: a refund gives back what was not charged, after which a deposit goes on from what was charged; G-47: the door for channels costs nothing.
func TestG_46_Refund(t *testing.T) {
	each(t, func(t *testing.T, s *shop) {
		s.buy(0, window, s.deposits(2000))
		o, err := s.request("/x402/channel", "", "")
		require.NoError(t, err)
		door := o.challenge(t).Accepts[0]
		require.Equal(t, "0", door.Amount.String())
		state, err := s.request("/x402/channel", "", s.voucher(door))
		require.NoError(t, err)
		require.Equal(t, 200, state.StatusCode, "%s", state.body)
		var seen map[string]any
		require.NoError(t, json.Unmarshal(state.body, &seen))
		require.Equal(t, "2000", seen["balance"])
		require.Equal(t, "3", seen["chargedCumulativeAmount"])
		r, err := s.request("/x402/channel", "", s.refundOf(door, 0))
		require.NoError(t, err)
		require.Equal(t, 200, r.StatusCode, "%s", r.body)
		require.Empty(t, r.body)
		require.Equal(t, "1997", r.receipt(t).Amount)
		require.NotContains(t, r.receipt(t).Extra, "chargedAmount")
		require.EqualValues(t, 999_997, s.chain.BalanceOf(s.payer.Key.Address()))
		require.Equal(t, book.Closed, s.entry().State)
		again := s.mustAsk(0, window, s.refundOf(s.offer(0, window), 0))
		require.Equal(t, "invalid_batch_settlement_evm_refund_no_balance", again.code(t))
		require.Equal(t, 402, s.mustAsk(0, window, s.voucher(s.offer(0, window))).StatusCode)
		s.buy(window, 2*window, s.deposits(1000))
		require.Equal(t, book.Active, s.entry().State)
	})
}

// TestSpoiled: a deposit whose window cannot be served is booked, with a receipt that charges nothing; the same payment may be used once the window is back.
func TestSpoiled(t *testing.T) {
	s := newShop(t, false)
	p := s.deposit(s.offer(0, window), 2000)
	s.block.fails.Store(true)
	a := s.mustAsk(0, window, p)
	require.Equal(t, 404, a.StatusCode, "%s", a.body)
	require.EqualValues(t, 0, a.charged(t))
	require.Equal(t, "2000", s.entry().Deposit.String())
	require.Zero(t, s.entry().Earned.Int64())
	s.block.fails.Store(false)
	b := s.mustAsk(0, window, p)
	require.Equal(t, 206, b.StatusCode, "%s", b.body)
	require.Equal(t, 1, s.chain.Sent("deposit"))
}

// TestG_56_ChainAway: vouchers are taken while the chain is away, up to a third of the delay; then, and for deposits and refunds, the answer passes.
func TestG_56_ChainAway(t *testing.T) {
	s := newShop(t, false)
	s.buy(0, window, s.deposits(2000))
	s.chain.Away(true)
	s.chain.Advance(delay * time.Second / 3)
	s.buy(window, 2*window, s.voucher)
	s.chain.Advance(time.Second)
	for _, p := range []string{s.voucher(s.offer(0, window)), s.deposit(s.offer(0, window), 1000), s.refundOf(s.offer(0, window), 0)} {
		a := s.mustAsk(0, window, p)
		require.Equal(t, 503, a.StatusCode, "%s", a.body)
		require.NotEmpty(t, a.Header.Get("Retry-After"))
	}
	s.chain.Away(false)
	_, err := s.desk.Tend(t.Context())
	require.NoError(t, err)
	s.buy(2*window, 3*window, s.voucher)
}

// TestG_55_Withdrawal: a payer who withdraws buys nothing any more, and what was earned is claimed before it ends; what was not is lost, and is said so.
func TestG_55_Withdrawal(t *testing.T) {
	each(t, func(t *testing.T, s *shop) {
		s.buy(0, window, s.deposits(2000))
		s.chain.Withdraw(s.config, 2000)
		_, err := s.desk.Tend(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 3, s.chain.BalanceOf(s.receiver.Address()))
		require.Equal(t, 402, s.mustAsk(0, window, s.voucher(s.offer(0, window))).StatusCode)
		s.chain.Advance(delay * time.Second)
		require.True(t, s.chain.Finalize(s.config))
		require.EqualValues(t, 999_997, s.chain.BalanceOf(s.payer.Key.Address()))
		require.Zero(t, s.entry().Lost.Int64())
	})
	s := newShop(t, false)
	s.buy(0, window, s.deposits(2000))
	s.chain.Withdraw(s.config, 2000)
	s.chain.Advance(delay * time.Second)
	require.True(t, s.chain.Finalize(s.config))
	_, _ = s.desk.Tend(t.Context())
	require.EqualValues(t, 3, s.entry().Lost.Int64(), "G-57")
	require.Zero(t, s.entry().Unclaimed().Int64())
}

// TestClaims: everything is claimed when enough is unclaimed; a channel with too much of it buys nothing until then.
func TestClaims(t *testing.T) {
	s := newShop(t, true)
	s.price.Store(price * 1000)
	s.buy(0, 1400, s.deposits(300_000))
	_, err := s.desk.Tend(t.Context())
	require.NoError(t, err)
	require.Zero(t, s.chain.BalanceOf(s.receiver.Address()), "too little to claim")
	s.buy(1400, 3000, s.voucher)
	_, err = s.desk.Tend(t.Context())
	require.NoError(t, err)
	require.Equal(t, s.charged, s.chain.BalanceOf(s.receiver.Address()))
	s.buy(0, window, s.voucher)
	a := s.mustAsk(0, window, s.voucher(s.offer(0, window)))
	require.Equal(t, 503, a.StatusCode)
	require.Equal(t, "invalid_batch_settlement_evm_verification_state_unavailable", a.code(t))
	_, err = s.desk.Tend(t.Context())
	require.NoError(t, err)
	s.buy(0, window, s.voucher)
}

// TestG_54_Relays: deposits and refunds in turn cannot empty the gas of the seller: a payer has eight deposits an hour.
func TestG_54_Relays(t *testing.T) {
	s := newShop(t, false)
	for range 8 {
		s.buy(0, window, s.deposits(1000))
	}
	a := s.mustAsk(0, window, s.deposit(s.offer(0, window), 1000))
	require.Equal(t, 503, a.StatusCode)
	require.Equal(t, "invalid_batch_settlement_evm_channel_busy", a.code(t))
	require.Equal(t, 8, s.chain.Sent("deposit"))
	s.buy(0, window, s.voucher)
	s.chain.Advance(time.Hour / 8)
	s.buy(0, window, s.deposits(1000))
}

// TestLostBook (G-44): a seller that lost its book goes on from what the chain shows, and a client that lost its state from its own signature.
func TestLostBook(t *testing.T) {
	s := newShop(t, true)
	s.buy(0, window, s.deposits(2000))
	require.NoError(t, s.desk.Redeem(t.Context()))
	s.close()
	s.records = faults.NewRecords()
	s.open(&faults.Switch{})
	s.buy(window, 2*window, s.voucher)
	days, err := s.book.Days(t.Context())
	require.NoError(t, err)
	require.Equal(t, s.charged-3, days[0].Earned.Int64(), "what was earned before is none of this book's days")
}

// TestCrashPoints (T-09, G-40, G-44, G-50): the seller loses power at each of its writes in turn, of deposits, windows, claims and refunds; the payer asks again as it
// did. No window is charged twice, at most one is answered again, no deposit is paid twice, and all that was charged is claimed.
func TestCrashPoints(t *testing.T) {
	for _, direct := range []bool{false, true} {
		for _, keepAll := range []bool{false, true} {
			for n := 1; ; n++ {
				s := newShop(t, direct)
				s.close()
				sw := &faults.Switch{At: n}
				s.open(sw)
				paid := func(from int, p string) answer {
					a, err := s.ask(from, from+window, p)
					for tries := 0; err != nil || a.StatusCode != 206 && a.StatusCode != 200; tries++ {
						require.Less(t, tries, 3, "write %d: %v %d %s", n, err, a.StatusCode, a.body)
						require.True(t, sw.Crashed(), "write %d: %s", n, a.body)
						s.crash(keepAll)
						if tries == 1 {
							_, err := s.desk.Tend(t.Context())
							require.NoError(t, err)
						}
						a, err = s.ask(from, from+window, p)
					}
					return a
				}
				a := paid(0, s.deposit(s.offer(0, window), 2000))
				require.Equal(t, s.block.data[:window], a.body)
				s.charged += a.charged(t)
				a = paid(window, s.voucher(s.offer(window, 2*window)))
				require.Equal(t, s.block.data[window:2*window], a.body)
				s.charged += a.charged(t)
				if err := s.desk.Redeem(t.Context()); err != nil {
					require.True(t, sw.Crashed(), "%v", err)
					s.crash(keepAll)
					require.NoError(t, s.desk.Redeem(t.Context()))
				}
				a = paid(0, s.refundOf(s.offer(0, window), 0))
				require.Equal(t, owed(2*window), s.charged, "write %d", n)
				e := s.entry()
				require.Equal(t, []int64{s.charged, s.charged}, []int64{e.Earned.Int64(), e.Redeemed.Int64()}, "write %d", n)
				require.Equal(t, s.charged, s.chain.BalanceOf(s.receiver.Address())+unsettled(s), "write %d", n)
				require.EqualValues(t, 1_000_000-s.charged, s.chain.BalanceOf(s.payer.Key.Address()), "write %d", n)
				require.Equal(t, 1, s.chain.Sent("deposit"))
				s.close()
				s.close = func() {}
				if !sw.Crashed() {
					require.Greater(t, n, 6)
					break
				}
			}
		}
	}
}

// unsettled is what was claimed and is not yet with the receiver.
func unsettled(s *shop) int64 { return s.chain.BalanceOf(evm.Settlement()) }
