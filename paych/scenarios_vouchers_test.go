package paych_test

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/filecoin-project/go-state-types/crypto"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/blake2b"

	cpaych "github.com/cartage-dev/cartage/paych"
)

// voucherScenarios are rows 1 to 26 and 33: vouchers that a payee must not take, or take once.
func voucherScenarios() []scenario {
	signature := func(change func(s *crypto.Signature)) func(w *world) {
		return func(w *world) {
			ch, lane := w.deal()
			v := w.voucher(ch, lane, nil)
			change(v.Signature)
			w.refuses(v, cpaych.ErrBadSignature)
		}
	}
	field := func(reason, chain error, change func(v *paych.SignedVoucher)) func(w *world) {
		return func(w *world) {
			ch, lane := w.deal()
			v := w.voucher(ch, lane, change)
			w.refuses(v, reason)
			if chain != nil {
				w.chainRefuses(v, nil, chain)
			}
		}
	}
	return []scenario{
		{1, "MLR", "a flipped bit", flippedBit},
		{2, "ML", "signed by another key", func(w *world) {
			ch, lane := w.deal()
			v := w.more().resign(*w.voucher(ch, lane, nil))
			w.refuses(v, cpaych.ErrBadSignature)
			w.chainRefuses(v, nil, cpaych.ErrBadSignature)
		}},
		{2, "ML", "T19 signed by the payee", func(w *world) {
			ch, lane := w.deal()
			v := w.payee.resign(*w.voucher(ch, lane, nil))
			w.refuses(v, cpaych.ErrBadSignature)
			w.chainRefuses(v, nil, cpaych.ErrBadSignature)
		}},
		{3, "M", "T18 type of another signature", signature(func(s *crypto.Signature) { s.Type = crypto.SigTypeBLS })},
		{3, "M", "type of no signature", signature(func(s *crypto.Signature) { s.Type = 9 })},
		{4, "M", "recovery byte 4", signature(func(s *crypto.Signature) { s.Data[64] = 4 })},
		{4, "M", "recovery byte 27", signature(func(s *crypto.Signature) { s.Data[64] += 27 })},
		{4, "M", "recovery byte 255", signature(func(s *crypto.Signature) { s.Data[64] = 255 })},
		{4, "M", "T18 64 bytes", signature(func(s *crypto.Signature) { s.Data = s.Data[:64] })},
		{4, "M", "66 bytes", signature(func(s *crypto.Signature) { s.Data = append(s.Data, 0) })},
		{5, "ML", "no signature", func(w *world) {
			ch, lane := w.deal()
			v := w.voucher(ch, lane, nil)
			v.Signature = nil
			w.refuses(v, cpaych.ErrNoSignature)
			w.chainRefuses(v, nil, cpaych.ErrNoSignature)
		}},
		{6, "M", "high-S twin", highS},
		{7, "M", "T12 T48 one voucher in two deals at once", twoDeals},
		{8, "M", "T05 voucher of an older deal", func(w *world) {
			ch, lane := w.deal()
			old := w.payer.pay("d", ch, lane, 200)
			w.payee.mustTake("d", old, 100)
			grown, err := w.payee.take("new", old)
			require.ErrorIs(w.t, err, cpaych.ErrLaneBound)
			require.Zero(w.t, grown)
		}},
		{9, "M", "T09 intercepted by another peer", func(w *world) {
			ch, lane := w.deal()
			w.payee.mustTake("d", w.payer.pay("d", ch, lane, 200), 100)
			_, err := w.payee.take("other peer/1", w.voucher(ch, lane, func(v *paych.SignedVoucher) { v.Nonce, v.Amount = 4, big.NewInt(300) }))
			require.ErrorIs(w.t, err, cpaych.ErrLaneBound)
		}},
		{10, "ML", "T05 lower nonce, higher amount", func(w *world) {
			ch, lane := w.deal()
			v := w.voucher(ch, lane, func(v *paych.SignedVoucher) { v.Nonce = 1 })
			w.refuses(v, cpaych.ErrStaleNonce)
			require.NoError(w.t, w.payee.Redeem(w.t.Context(), ch))
			w.chainRefuses(v, nil, cpaych.ErrStaleNonce)
		}},
		{11, "M", "higher nonce, equal amount", field(cpaych.ErrAmountNotIncreasing, nil, func(v *paych.SignedVoucher) { v.Amount = big.NewInt(100) })},
		{11, "M", "T08 higher nonce, lower amount", func(w *world) {
			ch, lane := w.deal()
			w.refuses(w.voucher(ch, lane, func(v *paych.SignedVoucher) { v.Amount = big.NewInt(99) }), cpaych.ErrAmountNotIncreasing)
			require.NoError(w.t, w.payee.Redeem(w.t.Context(), ch))
			require.EqualValues(w.t, 100, w.info(ch).ToSend.Int64(), "the best is still redeemable")
		}},
		{12, "M", "amount 0", field(cpaych.ErrAmount, nil, func(v *paych.SignedVoucher) { v.Amount = big.Zero() })},
		{12, "M", "amount below 0", field(cpaych.ErrAmount, nil, func(v *paych.SignedVoucher) { v.Amount = big.NewInt(-5) })},
		{12, "M", "T16 amount of 129 bytes or with zeros before it", badAmounts},
		{13, "M", "what does not decode", doesNotDecode},
		{14, "MLR", "lane 2^63", field(cpaych.ErrLaneLimit, cpaych.ErrLaneLimit, func(v *paych.SignedVoucher) { v.Lane = 1 << 63 })},
		{14, "MLR", "lane 2^64-1", func(w *world) {
			field(cpaych.ErrLaneLimit, cpaych.ErrLaneLimit, func(v *paych.SignedVoucher) { v.Lane = none })(w)
			_, next := w.payer.fund("next", w.payee.addr, 10)
			require.EqualValues(w.t, 1, next, "the next lane has not overflowed")
		}},
		{15, "ML", "minimum settle height", minSettle},
		{16, "ML", "T13 time locks", timeLocks},
		{17, "ML", "T13 secret withheld", secret},
		{18, "ML", "T15 extra", field(cpaych.ErrLocked, cpaych.ErrExtraUnsupported, func(v *paych.SignedVoucher) { v.Extra = &paych.ModVerifyParams{Actor: v.ChannelAddr} })},
		{19, "ML", "T14 merges", merges},
		{20, "M", "T10 another channel of the pair, or the ID form", func(w *world) {
			ch, lane := w.deal()
			other, err := address.NewActorAddress([]byte("other"))
			require.NoError(w.t, err)
			byID, err := address.NewIDAddress(1001)
			require.NoError(w.t, err)
			v := w.voucher(ch, lane, nil)
			for _, a := range []address.Address{other, byID} {
				_, err := w.payee.AcceptVoucher(w.t.Context(), "d", a, v, big.Zero(), 0)
				require.ErrorIs(w.t, err, cpaych.ErrWrongChannel)
				w.refuses(w.voucher(a, lane, nil), map[bool]error{true: cpaych.ErrUnknownChannel, false: cpaych.ErrWrongChannel}[a == other])
			}
		}},
		{21, "MLR", "T11 channel that pays somebody else", func(w *world) {
			ch, lane := w.deal()
			third := w.more()
			_, err := third.take("d", w.voucher(ch, lane, nil))
			require.ErrorIs(w.t, err, cpaych.ErrWrongPayee)
			list, err := third.List(w.t.Context())
			require.NoError(w.t, err)
			require.Empty(w.t, list)
		}},
		{22, "M", "channel of another payer", func(w *world) {
			ch, lane := w.deal()
			w.refuses(w.more().resign(*w.voucher(ch, lane, nil)), cpaych.ErrBadSignature)
		}},
		{23, "M", "payer that nobody can authenticate", func(w *world) {
			ch, lane := w.deal()
			f4, err := address.NewDelegatedAddress(10, make([]byte, 20))
			require.NoError(w.t, err)
			w.fake.set(func() { w.fake.channels[ch].From = f4 })
			w.payee.reopen()
			w.refuses(w.voucher(ch, lane, nil), cpaych.ErrBadSignature)
		}},
		{25, "MLR", "T22 more than the deposit, alone and in sum", func(w *world) {
			ch, lane := w.deal()
			v := w.voucher(ch, lane, func(v *paych.SignedVoucher) { v.Amount = big.NewInt(1001) })
			w.refuses(v, cpaych.ErrInsufficientChannel)
			w.chainRefuses(v, nil, cpaych.ErrInsufficientChannel)
			for i := range uint64(3) {
				other := w.voucher(ch, 10+i, func(v *paych.SignedVoucher) { v.Nonce, v.Amount = 1, big.NewInt(400) })
				grown, err := w.payee.take(fmt.Sprint("lane", i), other)
				if i < 2 {
					require.NoError(w.t, err)
					require.EqualValues(w.t, 400, grown)
					continue
				}
				require.ErrorIs(w.t, err, cpaych.ErrInsufficientChannel)
				require.ErrorContains(w.t, err, "short by 300")
			}
		}},
		{26, "M", "one deposit promised twice", func(w *world) {
			ch, lane := w.deal()
			_, err := w.payee.take("second", w.voucher(ch, lane+1, func(v *paych.SignedVoucher) { v.Nonce, v.Amount = 1, big.NewInt(901) }))
			require.ErrorIs(w.t, err, cpaych.ErrInsufficientChannel)
			require.ErrorContains(w.t, err, "short by 1")
		}},
		{26, "ML", "T04 one deposit shown to 50 deals at once", fiftyDeals},
		{33, "M", "vouchers of one unit at full speed", fullSpeed},
	}
}

// flippedBit: a bit in each byte, so in each of the eleven fields: nothing is stored, and the chain takes none of those that decode.
func flippedBit(w *world) {
	ch, lane := w.deal()
	good := w.voucher(ch, lane, nil)
	data, err := cpaych.EncodeVoucher(good)
	require.NoError(w.t, err)
	before, err := w.payee.Best(w.t.Context(), true, "d")
	require.NoError(w.t, err)
	decoded := 0
	for i := range data {
		for bit := range 8 {
			bad := slices.Clone(data)
			bad[i] ^= 1 << bit
			v, err := cpaych.DecodeVoucher(bad)
			if err == nil {
				if decoded++; w.on != "M" && decoded%10 == 0 && v.ChannelAddr == ch {
					w.chainRefuses(v, nil, nil)
				}
				_, err = w.payee.AcceptVoucher(w.t.Context(), "d", ch, v, big.Zero(), 0)
			}
			require.Error(w.t, err, "byte %d bit %d", i, bit)
		}
		if w.on == "R" && i%8 != 0 {
			continue
		}
	}
	require.Greater(w.t, decoded, 100)
	after, err := w.payee.Best(w.t.Context(), true, "d")
	require.NoError(w.t, err)
	require.Equal(w.t, before, after)
	w.payee.mustTake("d", good, 50)
}

// highS: the other signature of the same voucher is valid, and adds nothing.
func highS(w *world) {
	ch, lane := w.deal()
	v := w.voucher(ch, lane, nil)
	w.payee.mustTake("d", v, 50)
	twin := *v
	twin.Signature = &crypto.Signature{Type: v.Signature.Type, Data: slices.Clone(v.Signature.Data)}
	var s secp256k1.ModNScalar
	s.SetByteSlice(twin.Signature.Data[32:64])
	s.Negate()
	b := s.Bytes()
	copy(twin.Signature.Data[32:64], b[:])
	twin.Signature.Data[64] ^= 1
	require.NoError(w.t, cpaych.VerifyVoucher(&twin, w.payer.addr), "every implementation takes it")
	w.payee.mustTake("d", &twin, 0)
}

func twoDeals(w *world) {
	ch, lane := w.payer.fund("d", w.payee.addr, 1000)
	v := w.payer.pay("d", ch, lane, 50)
	var wg sync.WaitGroup
	var total, taken atomic.Int64
	for i := range 20 {
		wg.Go(func() {
			grown, err := w.payee.take(fmt.Sprint("deal", i%2), v)
			total.Add(grown)
			if err == nil && grown > 0 {
				taken.Add(1)
			}
		})
	}
	wg.Wait()
	require.EqualValues(w.t, 50, total.Load())
	require.EqualValues(w.t, 1, taken.Load())
}

// fiftyDeals: of 50 lanes that together promise five times the deposit, no more is accepted than there is, and the chain takes all of that.
func fiftyDeals(w *world) {
	ch, _ := w.payer.fund("first", w.payee.addr, 1000)
	var wg sync.WaitGroup
	var total atomic.Int64
	for i := range uint64(50) {
		v := w.voucher(ch, 100+i, func(v *paych.SignedVoucher) { v.Nonce, v.Amount = 1, big.NewInt(100) })
		wg.Go(func() {
			grown, err := w.payee.take(fmt.Sprint("deal", i), v)
			total.Add(grown)
			if err != nil && !errors.Is(err, cpaych.ErrInsufficientChannel) {
				w.t.Error(err)
			}
		})
	}
	wg.Wait()
	require.EqualValues(w.t, 1000, total.Load())
	require.NoError(w.t, w.payee.Redeem(w.t.Context(), ch))
	require.EqualValues(w.t, 1000, w.info(ch).ToSend.Int64())
}

func badAmounts(w *world) {
	ch, lane := w.deal()
	v := w.voucher(ch, lane, nil)
	data, err := cpaych.EncodeVoucher(v)
	require.NoError(w.t, err)
	at := slices.Index(data, 0x42) // the amount: two bytes, the sign and 150
	require.Equal(w.t, []byte{0x42, 0, 150}, data[at:at+3])
	for _, amount := range [][]byte{{0x43, 0, 0, 150}, append([]byte{0x58, 129, 0}, make([]byte, 128)...), {0x42, 2, 150}, {0x41, 0}} {
		bad := slices.Concat(data[:at], amount, data[at+3:])
		_, err := cpaych.DecodeVoucher(bad)
		require.ErrorIs(w.t, err, cpaych.ErrDecode, "%x", amount)
	}
}

func doesNotDecode(w *world) {
	ch, lane := w.deal()
	data, err := cpaych.EncodeVoucher(w.voucher(ch, lane, nil))
	require.NoError(w.t, err)
	bad := [][]byte{append(slices.Clone(data), 0)}
	for n := range data {
		bad = append(bad, data[:n])
	}
	secret, err := cpaych.EncodeVoucher(w.voucher(ch, lane, func(v *paych.SignedVoucher) { v.SecretHash = make([]byte, 2<<20) }))
	require.NoError(w.t, err)
	at := slices.Index(secret, 0x5a)
	claims := slices.Concat(secret[:at], []byte{0x5a, 0x7f, 0xff, 0xff, 0xff}, secret[at+5:at+100])
	merges := slices.Concat(data[:slices.Index(data, 0x80)], []byte{0x99, 0x20, 0x01}, make([]byte, 100))
	for _, b := range append(bad, claims, merges) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := cpaych.DecodeVoucher(b)
		runtime.ReadMemStats(&after)
		require.ErrorIs(w.t, err, cpaych.ErrDecode)
		require.LessOrEqual(w.t, after.TotalAlloc-before.TotalAlloc, uint64(2*len(b)+64<<10))
	}
}

// minSettle: the manager refuses it. On the ledger a direct redeem obeys the rule: the channel settles later.
func minSettle(w *world) {
	ch, lane := w.deal()
	head := w.info(ch).OpenedAt
	v := w.voucher(ch, lane, func(v *paych.SignedVoucher) { v.MinSettleHeight = head + 5*settleDelay })
	w.refuses(v, cpaych.ErrLocked)
	if w.on == "M" {
		return
	}
	require.Zero(w.t, w.redeem(v, nil).ExitCode)
	require.Zero(w.t, w.do(w.payer, cpaych.Op{Kind: cpaych.OpSettle, Channel: ch}).ExitCode)
	require.Equal(w.t, head+5*settleDelay, w.info(ch).SettlingAt)
}

// timeLocks: the manager refuses all of them. The ledger has exact limits.
func timeLocks(w *world) {
	ch, lane := w.deal()
	_, now, err := w.payee.chain.Head(w.t.Context())
	require.NoError(w.t, err)
	early := w.voucher(ch, lane, func(v *paych.SignedVoucher) { v.TimeLockMin = now + 10 })
	late := w.voucher(ch, lane, func(v *paych.SignedVoucher) { v.Nonce, v.TimeLockMax = 4, now+10 })
	w.refuses(early, cpaych.ErrLocked)
	w.refuses(late, cpaych.ErrLocked)
	if w.on == "M" {
		return
	}
	w.advance(9)
	w.chainRefuses(early, nil, cpaych.ErrTooEarly)
	w.advance(1)
	require.Zero(w.t, w.redeem(early, nil).ExitCode, "at its minimum")
	require.Zero(w.t, w.redeem(late, nil).ExitCode, "at its maximum")
	last := w.voucher(ch, lane, func(v *paych.SignedVoucher) { v.Nonce, v.Amount, v.TimeLockMax = 5, big.NewInt(160), now+10 })
	w.advance(1)
	w.chainRefuses(last, nil, cpaych.ErrExpired)
}

func secret(w *world) {
	ch, lane := w.deal()
	hash := blake2b.Sum256([]byte("preimage"))
	v := w.voucher(ch, lane, func(v *paych.SignedVoucher) { v.SecretHash = hash[:] })
	w.refuses(v, cpaych.ErrLocked)
	w.chainRefuses(v, nil, cpaych.ErrBadSecret)
	w.chainRefuses(v, []byte("another"), cpaych.ErrBadSecret)
	w.chainRefuses(v, make([]byte, 257), cpaych.ErrSecretTooLong)
	if w.on == "L" {
		require.Zero(w.t, w.redeem(v, []byte("preimage")).ExitCode)
	}
}

// merges: the manager refuses all. The ledger has rules 14 to 17, and never owes more than the balance.
func merges(w *world) {
	ch, lane := w.deal()
	for reason, m := range map[error][]paych.Merge{
		cpaych.ErrMergeSelf: {{Lane: lane, Nonce: 9}}, cpaych.ErrMergeUnknownLane: {{Lane: 77, Nonce: 9}}, cpaych.ErrMergeStale: {{Lane: 5, Nonce: 1}},
	} {
		if w.on == "L" && errors.Is(reason, cpaych.ErrMergeStale) {
			require.Zero(w.t, w.redeem(w.voucher(ch, 5, func(v *paych.SignedVoucher) { v.Nonce, v.Amount = 1, big.NewInt(40) }), nil).ExitCode)
		}
		v := w.voucher(ch, lane, func(v *paych.SignedVoucher) { v.Merges = m })
		w.refuses(v, cpaych.ErrMergesUnsupported)
		w.chainRefuses(v, nil, reason)
	}
	if w.on != "L" {
		return
	}
	twice := w.voucher(ch, lane, func(v *paych.SignedVoucher) { v.Merges = []paych.Merge{{Lane: 5, Nonce: 2}, {Lane: 5, Nonce: 2}} })
	w.chainRefuses(twice, nil, cpaych.ErrMergeStale)
	much := w.voucher(ch, lane, func(v *paych.SignedVoucher) {
		v.Amount, v.Merges = big.NewInt(1001), []paych.Merge{{Lane: 5, Nonce: 2}}
	})
	w.chainRefuses(much, nil, cpaych.ErrInsufficientChannel)
	require.True(w.t, w.info(ch).ToSend.LessThanEqual(w.info(ch).Balance))
}
