package evm_test

import (
	"testing"
	"time"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/paych/book"
	"github.com/cartage-dev/cartage/paych/evm"
)

// fixture is a channel with 10,000 units of an offer.
type fixture struct {
	t       require.TestingT
	batch   evm.Batch
	payer   *evm.Key
	config  evm.ChannelConfig
	have    book.Entry
	now     time.Time
	channel evm.Hash
}

func newFixture(t require.TestingT) *fixture {
	payer, receiver := key(t, 1), key(t, 2)
	f := &fixture{t: t, payer: payer, now: time.Unix(1_800_000_000, 0)}
	f.batch = evm.Batch{Domain: evm.Domain{ChainID: 8453, Contract: evm.Settlement()}, Token: evm.Address{1}, Receiver: receiver.Address(), Authorizer: receiver.Address(), Delay: 86400}
	f.config = evm.ChannelConfig{Payer: payer.Address(), PayerAuthorizer: payer.Address(), Receiver: receiver.Address(), ReceiverAuthorizer: receiver.Address(), Token: evm.Address{1}, WithdrawDelay: 86400}
	f.channel = f.batch.Domain.ChannelID(f.config)
	zero := big.Zero()
	f.have = book.Entry{Key: book.ChannelKey{Kind: evm.Kind, Network: "eip155:8453", Asset: "0x01", Channel: f.channel.String()}, Secured: zero, Earned: zero, Redeemed: zero, Lost: zero, Refund: zero,
		Balance: book.Balance{Deposit: big.NewInt(10_000), Claimed: zero, SeenAt: f.now}}
	return f
}

func (f *fixture) payment(c evm.ChannelConfig, maximum int64) book.Payment {
	id := f.batch.Domain.ChannelID(c)
	digest, err := f.batch.Domain.VoucherDigest(id, big.NewInt(maximum).Int)
	require.NoError(f.t, err)
	return book.Payment{Key: book.ChannelKey{Kind: evm.Kind, Network: "eip155:8453", Asset: "0x01", Channel: id.String()}, Config: c.Encode(), Maximum: big.NewInt(maximum), Raw: f.payer.Sign(digest)}
}

func want(n int64) book.Want { return book.Want{Amount: big.NewInt(n), Charge: big.NewInt(n)} }

// TestCheck: each fault of a payment has its outcome and its error, in the order of the specification.
func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		name    string
		change  func(f *fixture, c *evm.ChannelConfig)
		maximum int64
		outcome book.Outcome
		err     error
	}{
		{"good", nil, 100, book.Applied, nil},
		{"receiver", func(_ *fixture, c *evm.ChannelConfig) { c.Receiver[0]++ }, 100, book.Foreign, evm.ErrReceiver},
		{"authorizer", func(_ *fixture, c *evm.ChannelConfig) { c.ReceiverAuthorizer[0]++ }, 100, book.Foreign, evm.ErrReceiverAuthorizer},
		{"token", func(_ *fixture, c *evm.ChannelConfig) { c.Token[0]++ }, 100, book.Foreign, evm.ErrToken},
		{"delay", func(_ *fixture, c *evm.ChannelConfig) { c.WithdrawDelay-- }, 100, book.Foreign, evm.ErrDelay},
		{"another signer", func(_ *fixture, c *evm.ChannelConfig) { c.PayerAuthorizer[0]++ }, 100, book.Foreign, evm.ErrVoucherSignature},
		{"contract wallet", func(_ *fixture, c *evm.ChannelConfig) { c.PayerAuthorizer = evm.Address{} }, 100, book.Foreign, evm.ErrVoucherSignature},
		{"never seen", func(f *fixture, _ *evm.ChannelConfig) { f.have.SeenAt = time.Time{} }, 100, book.Unproven, evm.ErrUnproven},
		{"below claimed", func(f *fixture, _ *evm.ChannelConfig) { f.have.Claimed = big.NewInt(100) }, 100, book.Stale, evm.ErrBelowClaimed},
		{"too little", nil, 99, book.Stale, evm.ErrMismatch},
		{"too much", nil, 101, book.Stale, evm.ErrMismatch},
		{"base is what was claimed", func(f *fixture, _ *evm.ChannelConfig) { f.have.Claimed = big.NewInt(50) }, 150, book.Applied, nil},
		{"withdrawal", func(f *fixture, _ *evm.ChannelConfig) { f.have.WithdrawAt = f.now }, 100, book.Short, evm.ErrWithdrawing},
		{"refunding", func(f *fixture, _ *evm.ChannelConfig) { f.have.State = book.Refunding }, 100, book.Short, evm.ErrRefunding},
		{"empty", func(f *fixture, _ *evm.ChannelConfig) { f.have.Deposit = big.Zero() }, 100, book.Short, evm.ErrNoChannel},
		{"short", func(f *fixture, _ *evm.ChannelConfig) { f.have.Deposit = big.NewInt(99) }, 100, book.Short, evm.ErrExceedsBalance},
		{"old mirror", func(f *fixture, _ *evm.ChannelConfig) { f.now = f.now.Add(8*time.Hour + 1) }, 100, book.Unproven, evm.ErrUnproven},
		{"a mirror of a third of the delay", func(f *fixture, _ *evm.ChannelConfig) { f.now = f.now.Add(8 * time.Hour) }, 100, book.Applied, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t)
			c := f.config
			if tc.change != nil {
				tc.change(f, &c)
			}
			next, outcome, err := f.batch.Check(f.payment(c, tc.maximum), want(100), f.have, f.now)
			require.Equal(t, tc.outcome, outcome)
			require.ErrorIs(t, err, tc.err)
			if outcome != book.Applied {
				require.Equal(t, f.have, next)
			}
		})
	}
	f := newFixture(t)
	p := f.payment(f.config, 100)
	p.Key.Channel = f.batch.Domain.ChannelID(evm.ChannelConfig{}).String()
	_, outcome, err := f.batch.Check(p, want(100), f.have, f.now)
	require.Equal(t, book.Foreign, outcome)
	require.ErrorIs(t, err, evm.ErrChannelID)
}

// TestSplits (G-31): the charges of any split into windows, at any sequence of prices, add up to the ceiling of the exact sum; each voucher is exact, and the
// proof is always enough for what was earned.
func TestSplits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := newFixture(t)
		f.have.Deposit = big.NewInt(1 << 60)
		exact := big.Zero()
		for range rapid.IntRange(1, 12).Draw(t, "windows") {
			n, rate := rapid.Uint64Range(0, 8<<20).Draw(t, "bytes"), accounting.Rate{PerTiB: big.NewInt(rapid.Int64Range(1, 1e12).Draw(t, "price"))}
			amount := rate.Ceiling(n)
			charge, spare := rate.Charge(n, f.have.Spare)
			exact = big.Add(exact, big.Mul(rate.PerTiB, big.NewIntUnsigned(n)))
			p := f.payment(f.config, big.Add(f.have.Earned, amount).Int64())
			next, outcome, err := f.batch.Check(p, book.Want{Amount: amount, Charge: charge, Spare: spare, Bytes: n}, f.have, f.now)
			require.NoError(t, err)
			require.Equal(t, book.Applied, outcome)
			c, err := evm.ClaimOf(next)
			require.NoError(t, err)
			require.LessOrEqual(t, c.TotalClaimed.Cmp(c.Maximum), 0)
			require.NoError(t, f.batch.Domain.VerifyVoucher(c.Config, evm.Voucher{Channel: f.channel, Maximum: c.Maximum, Signature: c.Signature}))
			next.Version++
			f.have = next
		}
		one := big.NewInt(1 << 40)
		require.Equal(t, big.Div(big.Add(exact, big.Sub(one, big.NewInt(1))), one).String(), f.have.Earned.String())
	})
}

// BenchmarkCheck (G-45): a voucher checked, without its commit.
func BenchmarkCheck(b *testing.B) {
	f := newFixture(b)
	p := f.payment(f.config, 100)
	b.ReportAllocs()
	for b.Loop() {
		_, outcome, _ := f.batch.Check(p, want(100), f.have, f.now)
		require.Equal(b, book.Applied, outcome)
	}
}
