package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	fbig "github.com/filecoin-project/go-state-types/big"

	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/paych/book"
	"github.com/cartage-dev/cartage/paych/evm"
)

// FacilitatorConfig is what a Facilitator is made of.
type FacilitatorConfig struct {
	URL, Token  string // Token is sent as bearer; empty: none
	ChainID     uint64
	Authorizers Keys
	// Reader is where the chain is read; nil: the facilitator is believed.
	Reader *Chain
	Now    func() time.Time // nil: time.Now
}

// Facilitator has the transactions sent by a facilitator of x402. It implements book.Escrow.
type Facilitator struct {
	endpoint
	cfg FacilitatorConfig
}

var _ book.Escrow = (*Facilitator)(nil)

// NewFacilitator makes a Facilitator.
func NewFacilitator(cfg FacilitatorConfig) *Facilitator {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Facilitator{newEndpoint(strings.TrimSuffix(cfg.URL, "/"), cfg.Token), cfg}
}

// Close ends idle connections.
func (f *Facilitator) Close() { f.close() }

func (f *Facilitator) network() string { return fmt.Sprintf("eip155:%d", f.cfg.ChainID) }

func (f *Facilitator) domain() evm.Domain {
	return evm.Domain{ChainID: f.cfg.ChainID, Contract: evm.Settlement()}
}

// request is what facilitators are sent.
type request struct {
	Version      int             `json:"x402Version"`
	Payment      envelope        `json:"paymentPayload"`
	Requirements json.RawMessage `json:"paymentRequirements"`
}

// stateOf is a channel as facilitators tell of it.
type stateOf struct {
	Balance     string      `json:"balance"`
	Claimed     string      `json:"totalClaimed"`
	WithdrawAt  json.Number `json:"withdrawRequestedAt"`
	RefundNonce string      `json:"refundNonce"`
}

type verified struct {
	Valid   *bool   `json:"isValid"`
	Reason  string  `json:"invalidReason"`
	Message string  `json:"invalidMessage"`
	Extra   stateOf `json:"extra"`
}

type settled struct {
	Success     *bool  `json:"success"`
	Reason      string `json:"errorReason"`
	Message     string `json:"errorMessage"`
	Transaction string `json:"transaction"`
}

// Reasons of facilitators that are no refusals.
const (
	reasonPending  = "settlement_pending"
	reasonNothing  = "invalid_batch_settlement_evm_nothing_to_settle"
	reasonNoMoney  = "invalid_batch_settlement_evm_channel_not_found"
	reasonRPCFails = "invalid_batch_settlement_evm_rpc_read_failed"
)

// refusal is what a facilitator says.
func refusal(reason, message string) error {
	err := &book.RefusedError{Code: limited(reason), Text: limited(message)}
	if reason == reasonPending || reason == reasonRPCFails {
		return fmt.Errorf("%w: %w", book.ErrUnavailable, err)
	}
	return err
}

// Check looks whether the facilitator serves the scheme on the network.
func (f *Facilitator) Check(ctx context.Context) error {
	var out struct {
		Kinds []struct {
			Version int    `json:"x402Version"`
			Scheme  string `json:"scheme"`
			Network string `json:"network"`
		} `json:"kinds"`
	}
	if err := f.exchange(ctx, http.MethodGet, "/supported", nil, &out); err != nil {
		return err
	}
	for _, k := range out.Kinds {
		if k.Version == protocol && k.Scheme == evm.Scheme && (k.Network == f.network() || k.Network == "eip155:*") {
			return nil
		}
	}
	return fmt.Errorf("the facilitator %s does not serve %s on %s", f.url, evm.Scheme, f.network())
}

func (f *Facilitator) verify(ctx context.Context, p envelope) (book.Balance, error) {
	var out verified
	if err := f.post(ctx, "/verify", request{protocol, p, p.Accepted}, &out); err != nil {
		return book.Balance{}, err
	}
	switch {
	case out.Valid == nil:
		return book.Balance{}, fmt.Errorf("%w: the facilitator does not answer /verify", book.ErrUnavailable)
	case !*out.Valid && out.Reason == reasonNoMoney:
		return book.Balance{Deposit: fbig.Zero(), Claimed: fbig.Zero(), SeenAt: f.cfg.Now()}, nil
	case !*out.Valid:
		return book.Balance{}, refusal(out.Reason, out.Message)
	}
	return out.Extra.balance(f.cfg.Now())
}

func (s stateOf) balance(now time.Time) (book.Balance, error) {
	var numbers [4]*big.Int
	for i, text := range []string{s.Balance, s.Claimed, s.WithdrawAt.String(), s.RefundNonce} {
		n, ok := new(big.Int).SetString(text, 10)
		if !ok || n.Sign() < 0 || n.BitLen() > 128 {
			return book.Balance{}, fmt.Errorf("%w: the facilitator says %.60q of a channel", book.ErrUnavailable, text)
		}
		numbers[i] = n
	}
	return balanceOf(numbers[0], numbers[1], numbers[2], numbers[3], now), nil
}

// settle has the facilitator send a transaction, once: whether one whose answer is lost was sent is seen on the chain.
func (f *Facilitator) settle(ctx context.Context, p envelope) (string, error) {
	body, err := json.Marshal(request{protocol, p, p.Accepted})
	if err != nil {
		return "", err
	}
	var out settled
	if err := f.once(ctx, http.MethodPost, "/settle", body, &out); err != nil {
		return "", err
	}
	switch {
	case out.Success == nil:
		return "", fmt.Errorf("%w: the facilitator does not answer /settle", book.ErrUnavailable)
	case !*out.Success:
		return "", refusal(out.Reason, out.Message)
	}
	return limited(out.Transaction), nil
}

// Fund implements book.Escrow. A deposit that was settled before is seen by what the channel holds.
func (f *Facilitator) Fund(ctx context.Context, in book.Intent) (b book.Balance, tx string, err error) {
	err = patiently(ctx, func() error {
		b, tx, err = f.fundOnce(ctx, in)
		return err
	})
	return b, tx, err
}

func (f *Facilitator) fundOnce(ctx context.Context, in book.Intent) (book.Balance, string, error) {
	payment, p, err := readPayload(in.Payload)
	if err != nil {
		return book.Balance{}, "", fmt.Errorf("deposit of channel %s: %w", in.Key.Channel, err)
	}
	voucher := append(p.Voucher.Maximum.FillBytes(make([]byte, 16)), p.Voucher.Signature...)
	entry := book.Entry{Key: in.Key, Config: in.Config, Proof: voucher}
	wanted := fbig.Add(in.Before, fbig.NewFromGo(p.Deposit.Amount))
	tx, serr := f.settle(ctx, payment)
	for {
		b, err := f.State(ctx, []book.Entry{entry})
		switch {
		case err == nil && b[0].Deposit.GreaterThanEqual(wanted):
			return b[0], tx, nil
		case serr != nil:
			return book.Balance{}, tx, serr
		case passing(err) != nil && !errors.Is(err, book.ErrUnavailable):
			return book.Balance{}, tx, err
		}
		if !lifecycle.Sleep(ctx, time.Second) {
			return book.Balance{}, tx, fmt.Errorf("%w: the chain does not show the deposit yet", book.ErrUnavailable)
		}
	}
}

// requirements are an offer as the channel of an entry takes it: facilitators compare them.
type requirements struct {
	Scheme  string      `json:"scheme"`
	Network string      `json:"network"`
	Amount  string      `json:"amount"`
	Asset   evm.Address `json:"asset"`
	PayTo   evm.Address `json:"payTo"`
	Timeout int         `json:"maxTimeoutSeconds"`
	Extra   struct {
		Authorizer evm.Address `json:"receiverAuthorizer"`
		Delay      uint64      `json:"withdrawDelay"`
	} `json:"extra"`
}

// payment is a payment of a channel with any payload.
func (f *Facilitator) payment(c evm.ChannelConfig, payload any) (envelope, error) {
	o := requirements{Scheme: evm.Scheme, Network: f.network(), Amount: "0", Asset: c.Token, PayTo: c.Receiver, Timeout: int(requestTime / time.Second)}
	o.Extra.Authorizer, o.Extra.Delay = c.ReceiverAuthorizer, c.WithdrawDelay
	offer, err := json.Marshal(o)
	if err != nil {
		return envelope{}, err
	}
	data, err := json.Marshal(payload)
	return envelope{Version: protocol, Accepted: offer, Payload: data}, err
}

// State implements book.Escrow. Facilitators tell of a channel who shows a voucher of it; one for a refund may be claimed already.
func (f *Facilitator) State(ctx context.Context, entries []book.Entry) ([]book.Balance, error) {
	if f.cfg.Reader != nil {
		return f.cfg.Reader.StatesOf(ctx, entries)
	}
	out := make([]book.Balance, len(entries))
	for i, e := range entries {
		c, err := evm.DecodeConfig(e.Config)
		if err != nil {
			return nil, err
		}
		v, err := evm.ProofOf(e)
		if err != nil {
			return nil, err
		}
		p, err := f.payment(c, evm.Payload{Type: evm.TypeRefund, Config: c, Voucher: v})
		if err != nil {
			return nil, err
		}
		if out[i], err = f.verify(ctx, p); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// order sends a payload for the channel of a configuration.
func (f *Facilitator) order(ctx context.Context, c evm.ChannelConfig, payload any) (string, error) {
	p, err := f.payment(c, payload)
	if err != nil {
		return "", err
	}
	return f.settle(ctx, p)
}

// Redeem implements book.Escrow. A batch that is refused is claimed row by row.
func (f *Facilitator) Redeem(ctx context.Context, entries []book.Entry) (out book.Settled, err error) {
	err = patiently(ctx, func() error {
		out, err = f.redeemOnce(ctx, entries)
		return err
	})
	return out, err
}

func (f *Facilitator) redeemOnce(ctx context.Context, entries []book.Entry) (book.Settled, error) {
	entries, err := seen(ctx, f, entries)
	if err != nil {
		return book.Settled{}, err
	}
	out := book.Settled{}
	refusals := f.claim(ctx, entries, &out)
	if err := passing(refusals); err != nil {
		return out, err
	}
	c, err := evm.DecodeConfig(entries[0].Config)
	if err != nil {
		return out, err
	}
	tx, err := f.order(ctx, c, settleOrder{evm.TypeSettle, c.Receiver, c.Token})
	var refused *book.RefusedError
	switch {
	case err == nil:
		out.Tx = append(out.Tx, tx)
	case !errors.As(err, &refused) || refused.Code != reasonNothing:
		return out, err
	}
	out.Balances, err = f.State(ctx, entries)
	return out, errors.Join(err, refusals)
}

func (f *Facilitator) claim(ctx context.Context, entries []book.Entry, out *book.Settled) error {
	claims, signature, err := batchOf(f.domain(), f.cfg.Authorizers, entries)
	if err != nil || claims == nil {
		return err
	}
	tx, err := f.order(ctx, claims[0].Config, claimOrder{evm.TypeClaim, claimsJSON(claims), hexOf(signature)})
	if err == nil {
		out.Tx = append(out.Tx, tx)
		return nil
	}
	if passing(err) != nil || len(entries) == 1 {
		return err
	}
	var errs []error
	for i := range entries {
		err := f.claim(ctx, entries[i:i+1], out)
		if passing(err) != nil {
			return err
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Release implements book.Escrow.
func (f *Facilitator) Release(ctx context.Context, e book.Entry, amount abi.TokenAmount) (tx string, err error) {
	err = patiently(ctx, func() error {
		tx, err = f.releaseOnce(ctx, e, amount)
		return err
	})
	return tx, err
}

func (f *Facilitator) releaseOnce(ctx context.Context, e book.Entry, amount abi.TokenAmount) (string, error) {
	c, signature, err := refundSignature(f.domain(), f.cfg.Authorizers, e, amount)
	if err != nil {
		return "", err
	}
	now, err := seen(ctx, f, []book.Entry{e})
	if err != nil || now[0].RefundNonce > e.RefundNonce {
		return "", err
	}
	claims, claimed, err := batchOf(f.domain(), f.cfg.Authorizers, now)
	if err != nil {
		return "", err
	}
	in := refundOrder{claimOrder: claimOrder{Type: evm.TypeRefund, Claims: claimsJSON(claims)}, Config: c, Amount: amount.String(), RefundNonce: fmt.Sprint(e.RefundNonce), RefundSignature: hexOf(signature)}
	if claimed != nil {
		in.Signature = hexOf(claimed)
	}
	v, err := evm.ProofOf(e)
	if err != nil {
		return "", err
	}
	if in.Voucher, err = json.Marshal(v); err != nil {
		return "", err
	}
	return f.order(ctx, c, in)
}
