package batch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"

	"github.com/cartage-dev/cartage/gateway"
	"github.com/cartage-dev/cartage/gateway/x402"
	"github.com/cartage-dev/cartage/paych/book"
	"github.com/cartage-dev/cartage/paych/evm"
)

// draft is a payment that was read.
type draft struct {
	c        *Cashier
	accepted x402.Offer
	in       evm.Payload
	raw      []byte // the payment as it came
}

// Channel implements gateway.Draft.
func (d *draft) Channel() string { return d.in.Voucher.Channel.String() }

// Buys implements gateway.Draft.
func (d *draft) Buys() bool { return d.in.Type != evm.TypeRefund }

func (d *draft) key() book.ChannelKey {
	return book.ChannelKey{Kind: evm.Kind, Network: d.c.network, Asset: d.c.cfg.Token.Token.String(), Channel: d.Channel()}
}

func (d *draft) payment() book.Payment {
	return book.Payment{Key: d.key(), Config: d.in.Config.Encode(), Maximum: big.NewFromGo(d.in.Voucher.Maximum), Raw: d.in.Voucher.Signature}
}

// lastKey is the same for the same payment of the same bytes.
func (d *draft) lastKey(p gateway.Purchase) []byte {
	h := sha256.New()
	h.Write(p.Key[:])
	fmt.Fprintf(h, "%s\x00%s\x00", d.in.Type, d.in.Voucher.Maximum)
	h.Write(d.in.Voucher.Signature)
	if d.in.Deposit != nil {
		h.Write(d.in.Deposit.Signature)
	}
	if d.in.Amount != nil {
		h.Write([]byte(d.in.Amount.String()))
	}
	return h.Sum(nil)
}

// Check implements gateway.Draft.
func (d *draft) Check(ctx context.Context, p gateway.Purchase) (gateway.Sale, error) {
	rate, ok := d.c.rate(d.accepted, p.Bytes)
	if !ok && d.Buys() {
		return gateway.Sale{}, refuseTerms()
	}
	e, err := d.c.cfg.Book.Get(ctx, d.key())
	if err != nil {
		return gateway.Sale{}, err
	}
	if sale, err := d.replay(e, p); err != nil || sale.Replayed {
		return sale, err
	}
	if e.Version == 0 {
		e.Config = d.in.Config.Encode()
		e.Proof = append(d.in.Voucher.Maximum.FillBytes(make([]byte, 16)), d.in.Voucher.Signature...)
	}
	if !d.Buys() {
		return d.refund(ctx, e, p)
	}
	charge, spare := rate.Charge(p.Bytes, e.Spare)
	w := book.Want{Amount: big.NewFromGo(d.accepted.Amount.Int()), Charge: charge, Spare: spare, Bytes: p.Bytes}
	if d.in.Type == evm.TypeDeposit {
		return d.deposit(ctx, e, w, p)
	}
	e, next, err := d.checked(ctx, e, w)
	if err != nil {
		return gateway.Sale{}, err
	}
	return d.sale(e, next, p, sold{charge: charge})
}

// checked checks a payment against an entry, which is refreshed once if the chain has to be asked. It returns the entry that was
// checked, and the next one.
func (d *draft) checked(ctx context.Context, e book.Entry, w book.Want) (have, next book.Entry, err error) {
	now := d.c.cfg.Now()
	next, outcome, cause := d.c.check.Check(d.payment(), w, e, now)
	again := outcome == book.Unproven || outcome == book.Short && now.Sub(e.SeenAt) > shortAgain && e.State != book.Refunding
	if again {
		if e, err = d.c.cfg.Desk.Refresh(ctx, e); err != nil {
			return e, next, d.refusal(e, err)
		}
		next, outcome, cause = d.c.check.Check(d.payment(), w, e, now)
	}
	if outcome != book.Applied {
		return e, next, d.refusal(e, cause)
	}
	return e, next, d.capped(e, next)
}

// shortAgain is how old what is known of a channel may be for it to be called too small.
const shortAgain = 10 * time.Second

// capped refuses what would leave too much unclaimed: what a chain that cannot be reached may cost.
func (d *draft) capped(e, next book.Entry) error {
	cfg := d.c.cfg
	all, ok := cfg.Book.Unclaimed()[book.AssetKey{Network: d.c.network, Asset: e.Key.Asset}]
	if !ok {
		all = big.Zero()
	}
	added := big.Sub(next.Earned, e.Earned)
	of := next.Unclaimed()
	switch {
	case of.GreaterThan(cfg.MaxChannel), big.Add(all, added).GreaterThan(cfg.MaxAsset):
		cfg.Desk.Hurry()
		return passes(codePrefix+"verification_state_unavailable", "too much was not claimed yet", 10)
	case big.Mul(of, big.NewInt(2)).GreaterThan(cfg.MaxChannel), big.Mul(all, big.NewInt(2)).GreaterThan(cfg.MaxAsset):
		cfg.Desk.Hurry()
	}
	return nil
}

// sold is what a sale comes to, beyond its entries.
type sold struct {
	charge      abi.TokenAmount
	transaction string
	amount      string // that was deposited or refunded
	intents     []book.Intent
	isRefund    bool
}

// sale is what a payment that fits comes to.
func (d *draft) sale(have, next book.Entry, p gateway.Purchase, s sold) (gateway.Sale, error) {
	charge, ok := amountOf(s.charge)
	if !ok {
		return gateway.Sale{}, refuseTerms()
	}
	r := d.receipt(next, s)
	text, err := json.Marshal(r)
	if err != nil {
		return gateway.Sale{}, err
	}
	next.LastKey, next.LastReceipt, next.LastAt, next.Replays = d.lastKey(p), text, d.c.cfg.Now(), 0
	out := gateway.Sale{Receipt: r, Charge: charge, Asset: d.accepted.Asset}
	out.Commit = func(ctx context.Context) error {
		return d.committed(d.c.cfg.Book.Apply(ctx, have, next, s.intents...))
	}
	if len(s.intents) > 0 {
		out.Spoiled = func(ctx context.Context) (*x402.Receipt, error) {
			s.charge = big.Zero()
			r := d.receipt(have, s)
			return &r, d.c.cfg.Book.Apply(ctx, have, have, s.intents...)
		}
	}
	return out, nil
}

// receipt says what was taken, and how the channel stands.
func (d *draft) receipt(e book.Entry, s sold) x402.Receipt {
	extra := map[string]any{"channelState": channelState(e)}
	if !s.isRefund {
		extra["chargedAmount"] = s.charge.String()
	}
	return x402.Receipt{Success: true, Payer: d.in.Config.Payer.String(), Transaction: s.transaction, Network: d.c.network, Amount: s.amount, Extra: extra}
}

// channelState is a channel as clients are told of it.
func channelState(e book.Entry) map[string]any {
	since := int64(0)
	if !e.WithdrawAt.IsZero() {
		since = e.WithdrawAt.Unix()
	}
	return map[string]any{"channelId": e.Key.Channel, "balance": e.Deposit.String(), "totalClaimed": e.Claimed.String(), "withdrawRequestedAt": since,
		"refundNonce": fmt.Sprint(e.RefundNonce), "chargedCumulativeAmount": big.Max(e.Earned, e.Claimed).String()}
}

// voucherState is the last voucher of a channel, by which its payer sees that the rest is true; nil if there is none.
func voucherState(e book.Entry) map[string]any {
	v, err := evm.ProofOf(e)
	if err != nil || e.Version == 0 {
		return nil
	}
	return map[string]any{"signedMaxClaimable": v.Maximum.String(), "signature": "0x" + hex.EncodeToString(v.Signature)}
}

// replay answers a payment that was taken already, for the same bytes: with its receipt, uncharged.
func (d *draft) replay(e book.Entry, p gateway.Purchase) (gateway.Sale, error) {
	if e.Version == 0 || !bytes.Equal(e.LastKey, d.lastKey(p)) || e.Replays >= maxReplays || d.c.cfg.Now().Sub(e.LastAt) > replayTime || e.State == book.Refunding {
		return gateway.Sale{}, nil
	}
	out := gateway.Sale{Asset: d.accepted.Asset, Replayed: true}
	if len(e.LastReceipt) == 0 { // of a refund that a crash cut
		out.Receipt = d.receipt(e, sold{amount: e.Refund.String(), isRefund: true})
	} else if err := json.Unmarshal(e.LastReceipt, &out.Receipt); err != nil {
		return gateway.Sale{}, fmt.Errorf("receipt of channel %s: %w", e.Key.Channel, err)
	}
	next := e
	next.Replays++
	out.Commit = func(ctx context.Context) error { return d.committed(d.c.cfg.Book.Apply(ctx, e, next)) }
	return out, nil
}
