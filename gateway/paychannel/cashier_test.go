package paychannel_test

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	spaych "github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/gateway/x402"
	"github.com/cartage-dev/cartage/internal/faults"
	"github.com/cartage-dev/cartage/paych"
)

// TestG_35_Windows: any split into windows costs what the whole costs, to the unit; the receipt says so, the book has it, and the ledger pays it.
func TestG_35_Windows(t *testing.T) {
	s := newShop(t)
	var got []byte
	for i, to := range []int{100, 101, 5000, 9000, 25384, 41768, 58152, len(s.block.data)} {
		from := len(got)
		a := s.mustAsk(from, to, s.sign(from, to))
		require.Equal(t, 206, a.StatusCode, "%d: %s", i, a.body)
		got = append(got, a.body...)
		r := a.receipt(t)
		require.True(t, r.Success)
		require.Equal(t, s.from.String(), r.Payer)
		require.Equal(t, big.NewInt(int64(price*(to-from))).String(), r.Extra["chargedAmount"])
		require.Equal(t, "private, max-age=29030400, immutable, no-transform", a.Header.Get("Cache-Control"))
	}
	require.Equal(t, s.block.data, got)
	require.EqualValues(t, price*len(got), s.booked())
	e, ok := s.seller.LaneEntry(s.channel, s.lane)
	require.True(t, ok)
	require.EqualValues(t, len(got), e.Bytes)
	require.NoError(t, s.seller.Redeem(t.Context(), s.channel))
	earned, err := s.seller.Earnings(t.Context())
	require.NoError(t, err)
	require.Equal(t, big.NewInt(int64(price*len(got))).String(), earned.Deals[0].Redeemed.String())
}

// TestChallenges: a 402 reads no block, says what is sold and what it costs, and what is too large is asked for in windows.
func TestChallenges(t *testing.T) {
	s := newShop(t)
	a := s.mustAsk(0, 4096, "")
	require.Equal(t, 402, a.StatusCode)
	c := a.challenge(t)
	require.Equal(t, "payment_required", c.Error)
	require.Equal(t, "bytes 0-4095 of 65536", c.Resource.Description)
	require.Contains(t, c.Resource.URL, s.block.cid.String())
	o := c.Accepts[0]
	require.Equal(t, "cartage-paych", o.Scheme)
	require.Equal(t, "12288", o.Amount.String())
	require.Equal(t, s.payTo.String(), o.PayTo)
	require.Equal(t, "no-store", a.Header.Get("Cache-Control"))
	require.LessOrEqual(t, len(a.body), 2<<10)
	a = s.mustAsk(0, 20<<10, "")
	require.Equal(t, 400, a.StatusCode)
	require.Equal(t, "window_required", a.code(t))
	require.Contains(t, string(a.body), `"maxWindow":16384`)
	require.Zero(t, s.block.reads.Load())
}

// TestG_42_Replay: the same payment for the same bytes is answered again without a charge, three times within ten minutes; for other bytes it
// is no payment.
func TestG_42_Replay(t *testing.T) {
	s := newShop(t)
	first := s.sign(0, 4096)
	a := s.mustAsk(0, 4096, first)
	require.Equal(t, 206, a.StatusCode, "%s", a.body)
	other := s.mustAsk(4096, 8192, first)
	require.Equal(t, 402, other.StatusCode)
	require.Equal(t, "cartage_paych_cumulative_amount_mismatch", other.code(t))
	for range 3 {
		again := s.mustAsk(0, 4096, first)
		require.Equal(t, 206, again.StatusCode, "%s", again.body)
		require.Equal(t, a.body, again.body)
		require.Equal(t, a.receipt(t), again.receipt(t))
	}
	require.Equal(t, 402, s.mustAsk(0, 4096, first).StatusCode)
	second := s.sign(4096, 8192)
	require.Equal(t, 206, s.mustAsk(4096, 8192, second).StatusCode)
	s.clock.Add(int64(10*time.Minute/time.Second) + 1)
	require.Equal(t, 402, s.mustAsk(4096, 8192, second).StatusCode)
	require.Equal(t, 402, s.mustAsk(0, 4096, first).StatusCode, "an older one")
	require.EqualValues(t, 2*4096*price, s.booked())
}

// TestG_41_Exact: a voucher that adds more or less than the offer is refused with what the book has, and charges nothing; a payer that lost its
// book goes on from that.
func TestG_41_Exact(t *testing.T) {
	s := newShop(t)
	require.Equal(t, 206, s.mustAsk(0, 100, s.sign(0, 100)).StatusCode)
	booked := s.booked()
	o := s.offer(100, 200)
	for i, total := range []int64{booked + 1, booked + 100*price + 1} {
		a := s.mustAsk(100, 200, s.payment(o, s.voucher(big.NewInt(total))))
		require.Equal(t, 402, a.StatusCode)
		require.Equal(t, "cartage_paych_cumulative_amount_mismatch", a.code(t), i)
		extra := a.challenge(t).Accepts[0].Extra
		state, ok := extra["channelState"].(map[string]any)
		require.True(t, ok)
		require.Equal(t, big.NewInt(booked).String(), state["chargedCumulativeAmount"])
		last, ok := extra["voucherState"].(map[string]any)
		require.True(t, ok)
		data, err := base64.RawURLEncoding.DecodeString(last["voucher"].(string))
		require.NoError(t, err)
		v, err := paych.DecodeVoucher(data)
		require.NoError(t, err)
		require.NoError(t, paych.VerifyVoucher(v, s.from), "the payer knows its own signature")
		require.Equal(t, big.NewInt(booked), v.Amount)
	}
	require.Equal(t, booked, s.booked())
}

// TestG_33_HonouredPrices: an offer is taken at its price for ten minutes after the ask has changed; other terms are not.
func TestG_33_HonouredPrices(t *testing.T) {
	s := newShop(t)
	old := s.sign(0, 100)
	s.price.Store(5)
	require.Equal(t, "500", s.offer(0, 100).Amount.String())
	require.Equal(t, 206, s.mustAsk(0, 100, old).StatusCode)
	s.price.Store(price)
	o := s.offer(100, 200)
	s.price.Store(5)
	s.offer(100, 200)
	s.clock.Add(601)
	s.paid = big.Add(s.paid, big.NewInt(300))
	late := s.mustAsk(100, 200, s.payment(o, s.voucher(s.paid)))
	require.Equal(t, 402, late.StatusCode)
	require.Equal(t, "terms_changed", late.code(t))
	cheap := s.offer(100, 200)
	cheap.Amount, _ = x402.ParseAmount("1")
	require.Equal(t, "terms_changed", s.mustAsk(100, 200, s.payment(cheap, s.voucher(s.paid))).code(t))
	cheap = s.offer(100, 200)
	cheap.PayTo = s.from.String()
	require.Equal(t, "terms_changed", s.mustAsk(100, 200, s.payment(cheap, s.voucher(s.paid))).code(t))
	require.EqualValues(t, 300, s.booked())
}

// TestHostilePayments: what is no payment, or one of somebody else, is named and leaves nothing.
func TestHostilePayments(t *testing.T) {
	s := newShop(t)
	o := s.offer(0, 100)
	good := *s.voucher(big.NewInt(300))
	forged := good
	forged.Amount = big.NewInt(301)
	stranger := good
	var err error
	stranger.ChannelAddr, err = address.NewActorAddress([]byte("nobody's"))
	require.NoError(t, err)
	unsigned := good
	unsigned.Signature = nil
	for want, v := range map[string]spaych.SignedVoucher{
		"cartage_paych_bad_signature": forged, "cartage_paych_no_signature": unsigned, "cartage_paych_unknown_channel": stranger,
	} {
		a := s.mustAsk(0, 100, s.payment(o, &v))
		require.Equal(t, 402, a.StatusCode, "%s", a.body)
		require.Equal(t, want, a.code(t))
	}
	for _, text := range []string{"x", strings.Repeat("A", 20<<10), base64.StdEncoding.EncodeToString([]byte(`{"x402Version":2}`))} {
		a := s.mustAsk(0, 100, text)
		require.Contains(t, []int{400, 431}, a.StatusCode)
		require.Equal(t, "payment_malformed", a.code(t))
	}
	require.Zero(t, s.booked())
	require.Zero(t, s.block.reads.Load())
}

// TestG_50_OneCharge: of one voucher that comes many times at once, one is charged.
func TestG_50_OneCharge(t *testing.T) {
	s := newShop(t)
	p := s.sign(0, 4096)
	codes := make(chan int, 12)
	for range cap(codes) {
		go func() {
			a, err := s.ask(0, 4096, p)
			if err != nil {
				codes <- 0
				return
			}
			codes <- a.StatusCode
		}()
	}
	served := 0
	for range cap(codes) {
		if <-codes == 206 {
			served++
		}
	}
	require.GreaterOrEqual(t, served, 1)
	require.LessOrEqual(t, served, 4, "one and three replays")
	require.EqualValues(t, 4096*price, s.booked())
}

// TestCrashPoints (T-09, G-44): the seller loses power at each of its writes in turn, with all or nothing of what was not synced; the buyer asks
// again as it did. No window is charged twice, and each is delivered for its one charge.
func TestCrashPoints(t *testing.T) {
	for _, keepAll := range []bool{false, true} {
		for n := 1; ; n++ {
			s := newShop(t)
			sw := &faults.Switch{At: n}
			s.close()
			s.open(sw)
			for from := 0; from < 3*4096; from += 4096 {
				p := s.sign(from, from+4096)
				a, err := s.ask(from, from+4096, p)
				for tries := 0; err != nil || a.StatusCode != 206; tries++ {
					require.Less(t, tries, 2, "write %d: %v %d %s", n, err, a.StatusCode, a.body)
					require.True(t, sw.Crashed())
					s.close()
					s.records.PowerLoss(func(writes int) int {
						if keepAll {
							return writes
						}
						return 0
					})
					s.open(nil)
					a, err = s.ask(from, from+4096, p)
				}
				require.Equal(t, s.block.data[from:from+4096], a.body)
			}
			require.EqualValues(t, 3*4096*price, s.booked(), "write %d", n)
			if !sw.Crashed() {
				require.Greater(t, n, 6)
				break
			}
		}
	}
}
