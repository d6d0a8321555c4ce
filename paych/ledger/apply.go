package ledger

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/filecoin-project/go-state-types/exitcode"
	"golang.org/x/crypto/blake2b"

	"github.com/cartage-dev/cartage/internal/wire"
	pay "github.com/cartage-dev/cartage/paych"
)

// Limits of the ledger.
const (
	maxLanes      = 65536
	maxSecret     = 256
	maxAmountBits = 128
	minDeposit    = 1
	exitFunds     = exitcode.SysErrInsufficientFunds // 6
	exitArgument  = exitcode.ErrIllegalArgument      // 16
	exitNotFound  = exitcode.ErrNotFound             // 17
	exitForbidden = exitcode.ErrForbidden            // 18
	exitState     = exitcode.ErrIllegalState         // 20
	exitSettled   = exitcode.FirstActorErrorCode     // 32
)

// failure is the outcome of a transaction that was applied with an error.
type failure struct {
	code exitcode.ExitCode
	err  error
}

func (f *failure) Error() string { return f.err.Error() }

func fail(code exitcode.ExitCode, err error) error { return &failure{code, err} }

// change carries out the effect of a transaction; a failure leaves v as it was, except for seq and receipt.
func (l *Ledger) change(v *view, m *meta, t *Tx, epoch uint64) (address.Address, error) {
	switch t.Kind {
	case KindTransfer:
		if err := debit(v, t.From, t.Value, m); err != nil {
			return address.Undef, err
		}
		// Loaded after the debit: both may be one account.
		to, err := v.account(t.To, true, m)
		if err != nil {
			return address.Undef, fail(exitArgument, err)
		}
		to.Balance = big.Add(to.Balance, t.Value)
		return address.Undef, v.putAccount(to)
	case KindMint:
		return address.Undef, l.mint(v, m, t)
	case KindCreate:
		return create(v, m, t, epoch, l.net.ID)
	}
	c, err := v.channel(t.To)
	if err != nil {
		return address.Undef, err
	}
	if c == nil || c.Collected {
		return address.Undef, fail(exitNotFound, fmt.Errorf("%w: %s", pay.ErrUnknownChannel, t.To))
	}
	switch t.Kind {
	case KindAddFunds:
		if err := debit(v, t.From, t.Value, m); err != nil {
			return address.Undef, err
		}
		c.Balance = big.Add(c.Balance, t.Value)
		return c.Address, v.putChannel(c)
	case KindRedeem:
		return c.Address, redeem(v, c, t, epoch)
	case KindSettle:
		return c.Address, l.settle(v, c, t, epoch)
	case KindCollect:
		return c.Address, collect(v, m, c, t, epoch)
	}
	return address.Undef, fail(exitArgument, fmt.Errorf("transaction kind %d is unknown", t.Kind))
}

func debit(v *view, from address.Address, value abi.TokenAmount, m *meta) error {
	a, err := v.account(from, false, m)
	if err != nil {
		return err
	}
	if a == nil || a.Balance.LessThan(value) {
		have := big.Zero()
		if a != nil {
			have = a.Balance
		}
		return fail(exitFunds, fmt.Errorf("%w: %s has %s, needs %s", pay.ErrWalletFunds, from, have, value))
	}
	a.Balance = big.Sub(a.Balance, value)
	return v.putAccount(a)
}

func (l *Ledger) mint(v *view, m *meta, t *Tx) error {
	if t.From != l.net.Operator {
		return fail(exitForbidden, errors.New("only the operator of the ledger can mint"))
	}
	to, err := v.account(t.To, true, m)
	if err != nil {
		return fail(exitArgument, err)
	}
	to.Balance = big.Add(to.Balance, t.Value)
	m.Minted = big.Add(m.Minted, t.Value)
	if m.Minted.BitLen() > maxAmountBits {
		return fail(exitArgument, fmt.Errorf("supply would be above 2^%d", maxAmountBits))
	}
	return v.putAccount(to)
}

func create(v *view, m *meta, t *Tx, epoch uint64, network []byte) (address.Address, error) {
	if t.Value.LessThan(big.NewInt(minDeposit)) {
		return address.Undef, fail(exitArgument, fmt.Errorf("deposit %s is below the minimum of %d", t.Value, minDeposit))
	}
	if _, err := v.account(t.To, true, m); err != nil {
		return address.Undef, fail(exitArgument, err)
	}
	if err := debit(v, t.From, t.Value, m); err != nil {
		return address.Undef, err
	}
	seed := append(append(append([]byte("channel"), network...), t.From.Bytes()...), u64(t.Seq)...)
	robust, err := address.NewActorAddress(seed)
	if err != nil {
		return address.Undef, err
	}
	c := &channel{ID: m.NextID, Address: robust, From: t.From, To: t.To, Balance: t.Value, ToSend: big.Zero(), OpenedAt: epoch}
	m.NextID++
	return robust, v.putChannel(c)
}

// redeem applies the rules of the payment channel actor in their order (1.5).
func redeem(v *view, c *channel, t *Tx, epoch uint64) error {
	p, err := decodeRedeem(t.Params)
	if err != nil {
		return fail(exitArgument, fmt.Errorf("%w: %w", pay.ErrDecode, err))
	}
	sv := &p.Sv
	other := c.From
	switch t.From {
	case c.From:
		other = c.To
	case c.To:
	default:
		return fail(exitForbidden, pay.ErrNotParty)
	}
	if err := checkVoucher(c, sv, p.Secret, other, epoch); err != nil {
		return err
	}
	ln, err := v.lane(c.Address, sv.Lane)
	if err != nil {
		return err
	}
	if ln != nil && ln.Nonce >= sv.Nonce {
		return fail(exitArgument, fmt.Errorf("%w: lane %d has nonce %d, voucher %d", pay.ErrStaleNonce, sv.Lane, ln.Nonce, sv.Nonce))
	}
	if ln == nil {
		if c.Lanes >= maxLanes {
			return fail(exitArgument, fmt.Errorf("%w: channel has %d lanes", pay.ErrLaneLimit, c.Lanes))
		}
		ln = &lane{Redeemed: big.Zero()}
		c.Lanes++
	}
	deduct, err := merge(v, c, sv)
	if err != nil {
		return err
	}
	toSend := big.Sub(big.Add(c.ToSend, sv.Amount), big.Add(deduct, ln.Redeemed))
	if toSend.LessThan(big.Zero()) {
		return fail(exitArgument, pay.ErrNegativeBalance)
	}
	if toSend.GreaterThan(c.Balance) {
		return fail(exitArgument, fmt.Errorf("%w: short by %s", pay.ErrInsufficientChannel, big.Sub(toSend, c.Balance)))
	}
	c.ToSend = toSend
	if h := uint64(max(sv.MinSettleHeight, 0)); h != 0 {
		c.MinSettleHeight = max(c.MinSettleHeight, h)
		if c.SettlingAt != 0 {
			c.SettlingAt = max(c.SettlingAt, h)
		}
	}
	if err := v.putLane(c.Address, sv.Lane, &lane{Redeemed: sv.Amount, Nonce: sv.Nonce}); err != nil {
		return err
	}
	return v.putChannel(c)
}

// decodeRedeem reads the parameters strictly: nothing behind them, and only in their canonical form.
func decodeRedeem(data []byte) (p paych.UpdateChannelStateParams, err error) {
	if err := wire.CheckClaims(data); err != nil {
		return p, err
	}
	if err := wire.Decode(data, &p); err != nil {
		return p, err
	}
	if again, err := wire.Encode(&p); err != nil || !bytes.Equal(again, data) {
		return p, errors.New("not in canonical form")
	}
	return p, nil
}

func checkVoucher(c *channel, sv *paych.SignedVoucher, secret []byte, signer address.Address, epoch uint64) error {
	now := abi.ChainEpoch(epoch)
	switch {
	case sv.Signature == nil:
		return fail(exitArgument, pay.ErrNoSignature)
	case c.SettlingAt != 0 && epoch >= c.SettlingAt:
		return fail(exitSettled, pay.ErrChannelSettled)
	case len(secret) > maxSecret:
		return fail(exitArgument, pay.ErrSecretTooLong)
	}
	if err := pay.VerifyVoucher(sv, signer); err != nil {
		return fail(exitArgument, err)
	}
	switch {
	case sv.ChannelAddr != c.Address:
		return fail(exitArgument, pay.ErrWrongChannel)
	case now < sv.TimeLockMin:
		return fail(exitArgument, pay.ErrTooEarly)
	case sv.TimeLockMax != 0 && now > sv.TimeLockMax:
		return fail(exitArgument, pay.ErrExpired)
	case sv.Amount.Nil() || sv.Amount.LessThan(big.Zero()):
		return fail(exitArgument, pay.ErrNegativeAmount)
	}
	if len(sv.SecretHash) > 0 {
		if h := blake2b.Sum256(secret); !bytes.Equal(h[:], sv.SecretHash) {
			return fail(exitArgument, pay.ErrBadSecret)
		}
	}
	switch {
	case sv.Extra != nil:
		return fail(exitArgument, pay.ErrExtraUnsupported)
	case sv.Lane > pay.MaxLane:
		return fail(exitArgument, pay.ErrLaneLimit)
	}
	for _, mg := range sv.Merges {
		if mg.Lane > pay.MaxLane {
			return fail(exitArgument, pay.ErrLaneLimit)
		}
	}
	return nil
}

// merge folds other lanes into the voucher's; their redeemed sums stay as they are (rules 14 to 16).
func merge(v *view, c *channel, sv *paych.SignedVoucher) (abi.TokenAmount, error) {
	deduct := big.Zero()
	for _, mg := range sv.Merges {
		if mg.Lane == sv.Lane {
			return deduct, fail(exitArgument, pay.ErrMergeSelf)
		}
		other, err := v.lane(c.Address, mg.Lane)
		if err != nil {
			return deduct, err
		}
		if other == nil {
			return deduct, fail(exitArgument, pay.ErrMergeUnknownLane)
		}
		if other.Nonce >= mg.Nonce {
			return deduct, fail(exitArgument, pay.ErrMergeStale)
		}
		deduct = big.Add(deduct, other.Redeemed)
		other.Nonce = mg.Nonce
		if err := v.putLane(c.Address, mg.Lane, other); err != nil {
			return deduct, err
		}
	}
	return deduct, nil
}

func (l *Ledger) settle(v *view, c *channel, t *Tx, epoch uint64) error {
	if t.From != c.From && t.From != c.To {
		return fail(exitForbidden, pay.ErrNotParty)
	}
	if c.SettlingAt != 0 {
		return fail(exitState, pay.ErrAlreadySettling)
	}
	c.SettlingAt = max(epoch+l.net.SettleDelay, c.MinSettleHeight)
	return v.putChannel(c)
}

func collect(v *view, m *meta, c *channel, t *Tx, epoch uint64) error {
	if t.From != c.From && t.From != c.To {
		return fail(exitForbidden, pay.ErrNotParty)
	}
	if c.SettlingAt == 0 || epoch < c.SettlingAt {
		return fail(exitForbidden, fmt.Errorf("%w: now %d, settles at %d", pay.ErrNotSettled, epoch, c.SettlingAt))
	}
	for _, pay := range []struct {
		to     address.Address
		amount abi.TokenAmount
	}{{c.To, c.ToSend}, {c.From, big.Sub(c.Balance, c.ToSend)}} {
		a, err := v.account(pay.to, true, m)
		if err != nil {
			return err
		}
		a.Balance = big.Add(a.Balance, pay.amount)
		if err := v.putAccount(a); err != nil {
			return err
		}
	}
	c.Balance, c.Collected = big.Zero(), true
	return v.putChannel(c)
}
