// Package paychannel takes payments of an HTTP gateway out of our own payment channels: the second binding of the protocol of package x402.
//
// An offer has the scheme cartage-paych, the network of the ledger, the asset FIL, and the amount for a window in attoFIL. A payment is a
// voucher of a payment channel to the address of the offer, whose lane grows by exactly that amount. Voucher, receipt and the key of what was
// bought are one synced commit in the book that libp2p deals use too: one that comes again with the same key is answered again and not
// charged again, three times within ten minutes.
//
// A payment that does not fit the book is refused with what the book has: the total of the lane, and the voucher that it was taken from, which the
// payer has signed. A payer that lost its own book goes on from there.
package paychannel

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	spaych "github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/ipfs/go-datastore"

	"github.com/cartage-dev/cartage/gateway"
	"github.com/cartage-dev/cartage/gateway/x402"
	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/paych"
)

// Scheme is the name of the binding, and Asset what is paid with.
const (
	Scheme = "cartage-paych"
	Asset  = "FIL"
)

// Config is what a Cashier is made of.
type Config struct {
	Manager *paych.Manager // nil: there is no chain, and what has a price cannot be bought
	// Store is that of the manager: what is written with a voucher is read from it.
	Store datastore.Batching
	// Network is the name of the chain that offers are for; empty while it is not known.
	Network func() string
	// PayTo is the address that is paid.
	PayTo func() (address.Address, error)
	// Price is the price of a byte now, in attoFIL.
	Price func() abi.TokenAmount
	// Window is the size of a window in bytes, of which a channel should hold a hundred.
	Window uint64
	Now    func() time.Time // nil: time.Now
}

// Bounds of time and number.
const (
	timeout    = 600 // seconds, of an offer
	replayTime = 10 * time.Minute
	maxReplays = 3
)

// Cashier implements gateway.Cashier. It is safe for concurrent use.
type Cashier struct {
	cfg    Config
	prices *gateway.Prices
}

var (
	_ gateway.Cashier = (*Cashier)(nil)
	_ gateway.Draft   = (*draft)(nil)
)

// New makes a cashier.
func New(cfg Config) *Cashier {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Cashier{cfg: cfg, prices: gateway.NewPrices(cfg.Price, cfg.Now)}
}

func amountOf(price abi.TokenAmount, n uint64) x402.Amount {
	ceiling := accounting.Terms{Price: price}.Rate().Ceiling(n)
	a, err := x402.NewAmount(ceiling.Int)
	if err != nil { // above 2^128: nobody can pay it, and nobody is offered it
		return x402.Amount{}
	}
	return a
}

// Offers implements gateway.Cashier.
func (c *Cashier) Offers(n uint64) []x402.Offer {
	price := c.prices.Taken()[0]
	if price.Sign() == 0 {
		return nil
	}
	to, err := c.cfg.PayTo()
	if err != nil {
		to = address.Undef
	}
	return []x402.Offer{{Scheme: Scheme, Network: c.cfg.Network(), Amount: amountOf(price, n), Asset: Asset, PayTo: to.String(), MaxTimeoutSeconds: timeout,
		Extra: map[string]any{"minDeposit": amountOf(price, 100*c.cfg.Window).String()}}}
}

// payload is what a payment of this scheme holds.
type payload struct {
	Type    string `json:"type"`
	Channel string `json:"channel"`
	Voucher string `json:"voucher"` // base64url of its CBOR
}

// Payload is the payload of a payment with a voucher.
func Payload(v *spaych.SignedVoucher) (json.RawMessage, error) {
	data, err := paych.EncodeVoucher(v)
	if err != nil {
		return nil, err
	}
	return json.Marshal(payload{"voucher", v.ChannelAddr.String(), base64.RawURLEncoding.EncodeToString(data)})
}

func refuse(code string, format string, args ...any) *x402.Refusal {
	return &x402.Refusal{Code: code, Message: fmt.Sprintf(format, args...), Status: http.StatusPaymentRequired}
}

// Read implements gateway.Cashier.
func (c *Cashier) Read(p x402.Payment) (gateway.Draft, error) {
	if p.Accepted.Scheme != Scheme {
		return nil, nil
	}
	if network := c.cfg.Network(); network == "" {
		return nil, away()
	} else if p.Accepted.Network != network {
		return nil, refuse(codePrefix+"network_mismatch", "this gateway is paid on %s", network)
	}
	var in payload
	if err := json.Unmarshal(p.Payload, &in); err != nil || in.Type != "voucher" {
		return nil, refuse(codePrefix+"payload", "the payload is no voucher")
	}
	data, err := base64.RawURLEncoding.Strict().DecodeString(in.Voucher)
	if err != nil {
		return nil, refuse(codePrefix+"decode", "the voucher is no base64url")
	}
	v, err := paych.DecodeVoucher(data)
	if err != nil {
		return nil, refusal(err)
	}
	ch, err := address.NewFromString(in.Channel)
	if err != nil || v.ChannelAddr != ch {
		return nil, refuse(codePrefix+"wrong_channel", "the voucher is not for the channel of the payload")
	}
	return &draft{c: c, accepted: p.Accepted, voucher: v}, nil
}

// draft is a payment that was read.
type draft struct {
	c        *Cashier
	accepted x402.Offer
	voucher  *spaych.SignedVoucher
}

// Channel implements gateway.Draft. Lanes are paid side by side.
func (d *draft) Channel() string { return fmt.Sprintf("%s/%d", d.voucher.ChannelAddr, d.voucher.Lane) }

// Buys implements gateway.Draft.
func (d *draft) Buys() bool { return true }

// deal is what the lane is bound to in the book.
func (d *draft) deal() string { return "http/" + d.Channel() }

// honours reports whether the offer that was accepted is one for so many bytes.
func (d *draft) honours(n uint64) bool {
	to, err := d.c.cfg.PayTo()
	if err != nil || d.accepted.Asset != Asset || d.accepted.PayTo != to.String() {
		return false
	}
	for _, price := range d.c.prices.Taken() {
		if price.Sign() > 0 && amountOf(price, n).Cmp(d.accepted.Amount) == 0 {
			return true
		}
	}
	return false
}

// Check implements gateway.Draft.
func (d *draft) Check(ctx context.Context, p gateway.Purchase) (gateway.Sale, error) {
	if d.c.cfg.Manager == nil {
		return gateway.Sale{}, away()
	}
	if !d.honours(p.Bytes) {
		return gateway.Sale{}, refuse(x402.CodeTerms, "the terms that were accepted are not those of these bytes")
	}
	sale, err := d.replay(ctx, p)
	if err != nil || sale.Replayed {
		return sale, err
	}
	checked, err := d.c.cfg.Manager.CheckExact(ctx, d.voucher.ChannelAddr, d.voucher)
	if err != nil {
		return gateway.Sale{}, refusal(err)
	}
	lane := checked.Lane()
	switch amount := big.NewFromGo(d.accepted.Amount.Int()); {
	case lane.Voucher != nil && lane.Deal != d.deal():
		return gateway.Sale{}, refusal(paych.ErrLaneBound)
	case d.voucher.Nonce <= lane.Nonce, !d.voucher.Amount.Equals(big.Add(lane.Amount, amount)):
		return gateway.Sale{}, d.mismatch(checked)
	}
	return d.sale(checked, p)
}

// sale is what a payment that fits comes to.
func (d *draft) sale(checked *paych.Checked, p gateway.Purchase) (gateway.Sale, error) {
	charge := d.accepted.Amount
	r := x402.Receipt{Success: true, Payer: checked.From().String(), Network: d.c.cfg.Network(), Extra: map[string]any{
		"chargedAmount": charge.String(),
		"channelState":  map[string]any{"channel": d.voucher.ChannelAddr.String(), "lane": d.voucher.Lane, "balance": checked.Deposit().String(), "chargedCumulativeAmount": d.voucher.Amount.String()},
	}}
	text, err := json.Marshal(r)
	if err != nil {
		return gateway.Sale{}, err
	}
	rec := &record{Key: p.Key[:], Nonce: d.voucher.Nonce, Charge: big.NewFromGo(charge.Int()), Receipt: text, At: uint64(d.c.cfg.Now().Unix())}
	return gateway.Sale{Receipt: r, Charge: charge, Asset: Asset, Commit: func(ctx context.Context) error {
		err := d.c.cfg.Manager.AcceptExact(ctx, checked, paych.Exact{Deal: d.deal(), Amount: rec.Charge, Bytes: p.Bytes, Also: func(ctx context.Context, w datastore.Write) error {
			return rec.put(ctx, w, d.recordKey())
		}})
		if err != nil {
			return d.refused(checked, err)
		}
		return nil
	}}, nil
}

// replay answers a payment that was taken already, for the same bytes: with its receipt, uncharged.
func (d *draft) replay(ctx context.Context, p gateway.Purchase) (gateway.Sale, error) {
	rec, err := readRecord(ctx, d.c.cfg.Store, d.recordKey())
	if err != nil || rec == nil || rec.Nonce != d.voucher.Nonce || !bytes.Equal(rec.Key, p.Key[:]) {
		return gateway.Sale{}, err
	}
	last, ok := d.c.cfg.Manager.LaneEntry(d.voucher.ChannelAddr, d.voucher.Lane)
	if !ok || !paych.SameVoucher(d.voucher, last.Voucher) || rec.Replays >= maxReplays || d.c.cfg.Now().Sub(time.Unix(int64(rec.At), 0)) > replayTime {
		return gateway.Sale{}, nil // the checks say what is wrong with it
	}
	sale := gateway.Sale{Asset: Asset, Replayed: true}
	if err := json.Unmarshal(rec.Receipt, &sale.Receipt); err != nil {
		return gateway.Sale{}, fmt.Errorf("receipt of %s: %w", d.recordKey(), err)
	}
	if sale.Charge, err = x402.NewAmount(rec.Charge.Int); err != nil {
		return gateway.Sale{}, err
	}
	sale.Commit = func(ctx context.Context) error {
		rec.Replays++
		return rec.store(ctx, d.c.cfg.Store, d.recordKey())
	}
	return sale, nil
}
