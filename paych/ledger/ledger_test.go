package ledger

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/filecoin-project/go-state-types/crypto"
	"github.com/filecoin-project/go-state-types/exitcode"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/blake2b"

	pay "github.com/cartage-dev/cartage/paych"
)

// bench is a ledger on a manual clock, with two funded accounts. Epochs are seconds.
type bench struct {
	*Ledger
	t            *testing.T
	clock        time.Time
	payer, payee *pay.Key
	ch           address.Address
	home         string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	home := t.TempDir()
	require.NoError(t, Init(home, Options{Epoch: time.Second, SettleDelay: 100, Dev: true}))
	b := &bench{t: t, home: home, clock: time.Now().Add(10 * time.Second)}
	l, err := Open(t.Context(), home, WithClock(func() time.Time { return b.clock }))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	b.Ledger = l
	b.payer, b.payee = newKey(t), newKey(t)
	_, err = l.Faucet(t.Context(), b.payer.Address)
	require.NoError(t, err)
	_, err = l.Faucet(t.Context(), b.payee.Address)
	require.NoError(t, err)
	r := b.do(b.payer, KindCreate, b.payee.Address, 1000, nil)
	require.Zero(t, r.ExitCode, r.Message)
	b.ch = r.Channel
	return b
}

func newKey(t *testing.T) *pay.Key {
	t.Helper()
	k, err := pay.NewKey()
	require.NoError(t, err)
	return k
}

func (b *bench) seq(a address.Address) uint64 {
	acc, err := service{l: b.Ledger}.Account(b.t.Context(), a)
	require.NoError(b.t, err)
	return acc.Seq
}

func (b *bench) balance(a address.Address) int64 {
	acc, err := service{l: b.Ledger}.Account(b.t.Context(), a)
	require.NoError(b.t, err)
	// Every account starts with the faucet's amount.
	return big.Sub(acc.Balance, big.Mul(big.NewInt(faucetFIL), big.NewInt(1e18))).Int64()
}

func (b *bench) tx(key *pay.Key, kind Kind, to address.Address, value int64, params []byte) *Tx {
	id := uuid.New()
	return &Tx{Network: b.net.ID, From: key.Address, Seq: b.seq(key.Address), ValidUntil: b.epoch(&meta{}) + 100, Kind: kind, To: to,
		Value: big.NewInt(value), Params: params, Intent: id[:]}
}

func (b *bench) send(key *pay.Key, t *Tx) (*ReceiptInfo, error) {
	require.NoError(b.t, t.Sign(key))
	data, err := t.Encode()
	require.NoError(b.t, err)
	c, err := b.Submit(b.t.Context(), data)
	if err != nil {
		return nil, err
	}
	return service{l: b.Ledger}.Receipt(b.t.Context(), c)
}

func (b *bench) do(key *pay.Key, kind Kind, to address.Address, value int64, params []byte) *ReceiptInfo {
	b.t.Helper()
	r, err := b.send(key, b.tx(key, kind, to, value, params))
	require.NoError(b.t, err)
	return r
}

func (b *bench) voucher(lane, nonce uint64, amount int64) *paych.SignedVoucher {
	return &paych.SignedVoucher{ChannelAddr: b.ch, Lane: lane, Nonce: nonce, Amount: big.NewInt(amount), Merges: []paych.Merge{}}
}

// redeem signs a voucher with the payer's key and puts it into the channel as the payee.
func (b *bench) redeem(v *paych.SignedVoucher, secret []byte) *ReceiptInfo {
	b.t.Helper()
	require.NoError(b.t, pay.SignVoucher(b.payer, v))
	return b.present(v, secret)
}

func (b *bench) present(v *paych.SignedVoucher, secret []byte) *ReceiptInfo {
	b.t.Helper()
	p := redeemParams{paych.UpdateChannelStateParams{Sv: *v, Secret: secret}}
	params, err := p.encode()
	require.NoError(b.t, err)
	return b.do(b.payee, KindRedeem, b.ch, 0, params)
}

func (b *bench) channel() *ChannelInfo {
	c, err := service{l: b.Ledger}.Channel(b.t.Context(), b.ch)
	require.NoError(b.t, err)
	return c
}

func (b *bench) refused(r *ReceiptInfo, code exitcode.ExitCode, err error) {
	b.t.Helper()
	require.Equal(b.t, uint64(code), r.ExitCode, r.Message)
	require.Contains(b.t, r.Message, err.Error())
}

// TestRedeemRules: each rule of 1.5 with its exit code, on a channel with one redeemed lane.
func TestRedeemRules(t *testing.T) {
	stranger := newKey(t)
	secret := []byte("preimage")
	hash := blake2b.Sum256(secret)
	for name, tc := range map[string]struct {
		change func(b *bench, v *paych.SignedVoucher)
		secret []byte
		code   exitcode.ExitCode
		err    error
	}{
		"04 secret too long":         {secret: make([]byte, 257), code: exitArgument, err: pay.ErrSecretTooLong},
		"06 other channel":           {change: func(b *bench, v *paych.SignedVoucher) { v.ChannelAddr = stranger.Address }, code: exitArgument, err: pay.ErrWrongChannel},
		"07 too early":               {change: func(_ *bench, v *paych.SignedVoucher) { v.TimeLockMin = 11 }, code: exitArgument, err: pay.ErrTooEarly},
		"07 at the minimum":          {change: func(_ *bench, v *paych.SignedVoucher) { v.TimeLockMin = 10 }},
		"08 expired":                 {change: func(_ *bench, v *paych.SignedVoucher) { v.TimeLockMax = 9 }, code: exitArgument, err: pay.ErrExpired},
		"08 at the maximum":          {change: func(_ *bench, v *paych.SignedVoucher) { v.TimeLockMax = 10 }},
		"09 negative":                {change: func(_ *bench, v *paych.SignedVoucher) { v.Amount = big.NewInt(-1) }, code: exitArgument, err: pay.ErrNegativeAmount},
		"10 wrong secret":            {change: func(_ *bench, v *paych.SignedVoucher) { v.SecretHash = hash[:] }, secret: []byte("x"), code: exitArgument, err: pay.ErrBadSecret},
		"10 right secret":            {change: func(_ *bench, v *paych.SignedVoucher) { v.SecretHash = hash[:] }, secret: secret},
		"11 extra":                   {change: func(_ *bench, v *paych.SignedVoucher) { v.Extra = &paych.ModVerifyParams{Actor: stranger.Address} }, code: exitArgument, err: pay.ErrExtraUnsupported},
		"12 lane above the limit":    {change: func(_ *bench, v *paych.SignedVoucher) { v.Lane = 1 << 63 }, code: exitArgument, err: pay.ErrLaneLimit},
		"12 highest lane":            {change: func(_ *bench, v *paych.SignedVoucher) { v.Lane = pay.MaxLane }},
		"13 same nonce":              {change: func(_ *bench, v *paych.SignedVoucher) { v.Nonce = 5 }, code: exitArgument, err: pay.ErrStaleNonce},
		"14 merges itself":           {change: func(_ *bench, v *paych.SignedVoucher) { v.Merges = []paych.Merge{{Lane: 1, Nonce: 9}} }, code: exitArgument, err: pay.ErrMergeSelf},
		"15 merges an unknown lane":  {change: func(_ *bench, v *paych.SignedVoucher) { v.Merges = []paych.Merge{{Lane: 7, Nonce: 9}} }, code: exitArgument, err: pay.ErrMergeUnknownLane},
		"16 merges with a stale one": {change: func(_ *bench, v *paych.SignedVoucher) { v.Merges = []paych.Merge{{Lane: 2, Nonce: 3}} }, code: exitArgument, err: pay.ErrMergeStale},
		"16 merges one lane twice": {change: func(_ *bench, v *paych.SignedVoucher) {
			v.Merges = []paych.Merge{{Lane: 2, Nonce: 4}, {Lane: 2, Nonce: 4}}
		}, code: exitArgument, err: pay.ErrMergeStale},
		"16 merges": {change: func(_ *bench, v *paych.SignedVoucher) { v.Merges = []paych.Merge{{Lane: 2, Nonce: 4}} }},
		"17 below what was merged": {change: func(_ *bench, v *paych.SignedVoucher) {
			v.Lane, v.Amount, v.Merges = 3, big.NewInt(0), []paych.Merge{{Lane: 1, Nonce: 9}, {Lane: 2, Nonce: 9}}
		}},
		"18 above the balance": {change: func(_ *bench, v *paych.SignedVoucher) { v.Amount = big.NewInt(951) }, code: exitArgument, err: pay.ErrInsufficientChannel},
		"18 all of it":         {change: func(_ *bench, v *paych.SignedVoucher) { v.Amount = big.NewInt(950) }},
		"13 lower amount":      {change: func(_ *bench, v *paych.SignedVoucher) { v.Amount = big.NewInt(1) }},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			require.Zero(t, b.redeem(b.voucher(1, 5, 100), nil).ExitCode)
			require.Zero(t, b.redeem(b.voucher(2, 3, 50), nil).ExitCode)
			before := b.channel()
			v := b.voucher(1, 6, 200)
			if tc.change != nil {
				tc.change(b, v)
			}
			r := b.redeem(v, tc.secret)
			if tc.err == nil {
				require.Zero(t, r.ExitCode, r.Message)
				require.True(t, b.channel().ToSend.LessThanEqual(b.channel().Balance))
				return
			}
			b.refused(r, tc.code, tc.err)
			require.Equal(t, before, b.channel(), "a refused voucher changes nothing")
		})
	}
}

// TestRedeemParties: rules 1 to 3 and 5: who may redeem, with whose signature, and until when.
func TestRedeemParties(t *testing.T) {
	b := newBench(t)
	v := b.voucher(0, 1, 10)
	b.refused(b.present(v, nil), exitArgument, pay.ErrNoSignature)
	require.NoError(t, pay.SignVoucher(b.payee, v))
	b.refused(b.present(v, nil), exitArgument, pay.ErrBadSignature)
	require.NoError(t, pay.SignVoucher(b.payer, v))
	v.Signature.Type = crypto.SigTypeBLS
	b.refused(b.present(v, nil), exitArgument, pay.ErrBadSignature)

	stranger := newKey(t)
	_, err := b.Faucet(t.Context(), stranger.Address)
	require.NoError(t, err)
	good := b.voucher(0, 1, 10)
	require.NoError(t, pay.SignVoucher(b.payer, good))
	params, err := (&redeemParams{paych.UpdateChannelStateParams{Sv: *good}}).encode()
	require.NoError(t, err)
	b.refused(b.do(stranger, KindRedeem, b.ch, 0, params), exitForbidden, pay.ErrNotParty)
	b.refused(b.do(stranger, KindSettle, b.ch, 0, nil), exitForbidden, pay.ErrNotParty)
	b.refused(b.do(stranger, KindCollect, b.ch, 0, nil), exitForbidden, pay.ErrNotParty)
	b.refused(b.do(b.payer, KindRedeem, b.ch, 0, params), exitArgument, pay.ErrBadSignature) // its own voucher
	require.Zero(t, b.present(good, nil).ExitCode)
}

// TestSettleAndCollect: scenarios 15, 28, 30 and 41 and the invariants I5, I6 and I9.
func TestSettleAndCollect(t *testing.T) {
	b := newBench(t)
	require.Zero(t, b.redeem(b.voucher(0, 1, 100), nil).ExitCode)
	b.refused(b.redeem(b.voucher(0, 1, 100), nil), exitArgument, pay.ErrStaleNonce)
	b.refused(b.do(b.payer, KindCollect, b.ch, 0, nil), exitForbidden, pay.ErrNotSettled)
	require.Zero(t, b.do(b.payer, KindSettle, b.ch, 0, nil).ExitCode)
	require.EqualValues(t, 110, b.channel().SettlingAt)
	b.refused(b.do(b.payee, KindSettle, b.ch, 0, nil), exitState, pay.ErrAlreadySettling)

	late := b.voucher(0, 2, 300)
	late.MinSettleHeight = 120
	require.Zero(t, b.redeem(late, nil).ExitCode, "a voucher is taken until the channel is settled")
	require.EqualValues(t, 120, b.channel().SettlingAt)
	b.clock = b.clock.Add(109 * time.Second) // epoch 119
	b.refused(b.do(b.payee, KindCollect, b.ch, 0, nil), exitForbidden, pay.ErrNotSettled)
	b.clock = b.clock.Add(time.Second)
	b.refused(b.redeem(b.voucher(0, 3, 400), nil), exitSettled, pay.ErrChannelSettled)
	require.Zero(t, b.do(b.payer, KindCollect, b.ch, 0, nil).ExitCode)
	require.EqualValues(t, -300, b.balance(b.payer.Address))
	require.EqualValues(t, 300, b.balance(b.payee.Address))
	for _, k := range []Kind{KindCollect, KindSettle, KindAddFunds} {
		b.refused(b.do(b.payer, k, b.ch, 1, nil), exitNotFound, pay.ErrUnknownChannel)
	}
	a, err := b.Audit()
	require.NoError(t, err)
	require.True(t, a.Conserved)
}

// TestScenario58RefusedTransactions: scenarios 58 and 59: nothing is applied and no seq is used.
func TestScenario58RefusedTransactions(t *testing.T) {
	b := newBench(t)
	intent := uuid.New()
	for name, tc := range map[string]struct {
		change func(*Tx)
		says   string
	}{
		"other network": {func(x *Tx) { x.Network = bytes.Repeat([]byte{7}, 32) }, "another ledger"},
		"expired":       {func(x *Tx) { x.ValidUntil = 9 }, "valid until"},
		"too far ahead": {func(x *Tx) { x.ValidUntil = 10 + maxAhead + 1 }, "valid until"},
		"wrong seq":     {func(x *Tx) { x.Seq++ }, "wrong seq"},
		"short intent":  {func(x *Tx) { x.Intent = intent[:8] }, "16 bytes"},
		"too large":     {func(x *Tx) { x.Params = make([]byte, maxTx) }, "limit"},
		"no account":    {nil, "does not exist"},
	} {
		t.Run(name, func(t *testing.T) {
			key := b.payer
			before := b.seq(key.Address)
			if tc.change == nil {
				key = newKey(t)
			}
			x := b.tx(key, KindTransfer, b.payee.Address, 1, nil)
			if tc.change != nil {
				tc.change(x)
			}
			_, err := b.send(key, x)
			require.ErrorIs(t, err, ErrRefused)
			require.ErrorContains(t, err, tc.says)
			require.Equal(t, before, b.seq(b.payer.Address))
		})
	}
	t.Run("bad signature", func(t *testing.T) {
		x := b.tx(b.payer, KindTransfer, b.payee.Address, 1, nil)
		require.NoError(t, x.Sign(b.payee))
		data, err := x.Encode()
		require.NoError(t, err)
		_, err = b.Submit(t.Context(), data)
		require.ErrorIs(t, err, pay.ErrBadSignature)
	})
	t.Run("replayed", func(t *testing.T) {
		x := b.tx(b.payer, KindTransfer, b.payee.Address, 1, nil)
		first, err := b.send(b.payer, x)
		require.NoError(t, err)
		again, err := b.send(b.payer, x)
		require.NoError(t, err)
		require.Equal(t, first, again, "the same transaction answers the same and is applied once")
		y := b.tx(b.payer, KindTransfer, b.payee.Address, 2, nil)
		y.Intent = x.Intent
		_, err = b.send(b.payer, y)
		require.ErrorIs(t, err, ErrIntentReused)
	})
	t.Run("mint by a normal key", func(t *testing.T) {
		b.refused(b.do(b.payer, KindMint, b.payer.Address, 1, nil), exitForbidden, errors.New("only the operator"))
	})
}

// TestScenario59Faucet: scenario 59.
func TestScenario59Faucet(t *testing.T) {
	b := newBench(t)
	_, err := b.Faucet(t.Context(), b.payer.Address)
	require.ErrorIs(t, err, ErrFaucet)
	b.clock = b.clock.Add(time.Hour)
	_, err = b.Faucet(t.Context(), b.payer.Address)
	require.NoError(t, err)

	home := t.TempDir()
	require.NoError(t, Init(home, Options{Epoch: time.Second, SettleDelay: 1}))
	l, err := Open(t.Context(), home)
	require.NoError(t, err)
	defer l.Close()
	_, err = l.Faucet(t.Context(), b.payer.Address)
	require.ErrorIs(t, err, ErrFaucet)
	require.ErrorContains(t, err, "--dev")
}
