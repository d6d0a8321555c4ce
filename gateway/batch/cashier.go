// Package batch takes payments of an HTTP gateway by the x402 scheme batch-settlement: vouchers of EVM channels, which stock clients of x402 sign.
//
// A payer deposits once, and then signs for each window the most that may be claimed in all: what was charged so far, and the amount of the window. What
// is charged may be less by the parts of units that earlier windows overpaid. Voucher, charge, receipt and the key of what was bought are one synced commit
// in paych/book; a payment that comes again with the same key is answered again and not charged again, three times within ten minutes. Deposits, refunds
// and claims go through relay.Desk.
package batch

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"

	"github.com/cartage-dev/cartage/gateway"
	"github.com/cartage-dev/cartage/gateway/x402"
	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/paych/book"
	"github.com/cartage-dev/cartage/paych/evm"
	"github.com/cartage-dev/cartage/paych/evm/relay"
)

// Config is what a Cashier is made of.
type Config struct {
	Book *book.Book
	Desk *relay.Desk
	// Token is what is paid with, and TokenDecimals how many digits its unit has behind the point.
	Token         evm.TokenDomain
	TokenDecimals int
	// PayTo is paid, and Authorizer signs claims and refunds.
	PayTo, Authorizer evm.Address
	Delay             uint64                 // seconds, of a withdrawal
	PerTiB            func() abi.TokenAmount // the price of 2^40 bytes now, in units; 0: nothing costs anything
	Window            uint64                 // bytes, of which a deposit should pay for a hundred
	MaxChannel        abi.TokenAmount        // that is left unclaimed of one channel
	MaxAsset          abi.TokenAmount        // that is left unclaimed of all
	Now               func() time.Time       // nil: time.Now
}

// Bounds of offers and replays.
const (
	timeout    = 600 // seconds, of an offer
	replayTime = 10 * time.Minute
	maxReplays = 3
	minWindows = 100 // that a deposit pays for
)

// Cashier implements gateway.Cashier. It is safe for concurrent use.
type Cashier struct {
	cfg     Config
	network string
	prices  *gateway.Prices
	check   evm.Batch
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
	return &Cashier{cfg: cfg, network: fmt.Sprintf("eip155:%d", cfg.Token.ChainID), prices: gateway.NewPrices(cfg.PerTiB, cfg.Now),
		check: evm.Batch{Domain: evm.Domain{ChainID: cfg.Token.ChainID, Contract: evm.Settlement()}, Token: cfg.Token.Token, Receiver: cfg.PayTo, Authorizer: cfg.Authorizer, Delay: cfg.Delay}}
}

// amountOf is a number of units; of one above 2^128, which nobody can pay, ok is false.
func amountOf(units abi.TokenAmount) (a x402.Amount, ok bool) {
	a, err := x402.NewAmount(units.Int)
	return a, err == nil
}

// minDeposit is the least that is relayed: a hundred windows, and a tenth of the asset. The gas of less costs more than the data.
func (c *Cashier) minDeposit(price abi.TokenAmount) abi.TokenAmount {
	tenth := big.NewInt(1)
	for range c.cfg.TokenDecimals - 1 {
		tenth = big.Mul(tenth, big.NewInt(10))
	}
	return big.Max(tenth, accounting.Rate{PerTiB: price}.Ceiling(minWindows*c.cfg.Window))
}

// Offers implements gateway.Cashier.
func (c *Cashier) Offers(n uint64) []x402.Offer {
	price := c.prices.Taken()[0]
	amount, ok := amountOf(accounting.Rate{PerTiB: price}.Ceiling(n))
	if price.Sign() == 0 || !ok {
		return nil
	}
	return []x402.Offer{{Scheme: evm.Scheme, Network: c.network, Amount: amount, Asset: c.cfg.Token.Token.String(), PayTo: c.cfg.PayTo.String(), MaxTimeoutSeconds: timeout,
		Extra: map[string]any{"receiverAuthorizer": c.cfg.Authorizer.String(), "withdrawDelay": c.cfg.Delay, "name": c.cfg.Token.Name, "version": c.cfg.Token.Version,
			"assetTransferMethod": "eip3009", "minDeposit": c.minDeposit(price).String()}}}
}

// Read implements gateway.Cashier.
func (c *Cashier) Read(p x402.Payment) (gateway.Draft, error) {
	if p.Accepted.Scheme != evm.Scheme {
		return nil, nil
	}
	if p.Accepted.Network != c.network {
		return nil, refuse("network_mismatch", "this gateway is paid on %s", c.network)
	}
	var in evm.Payload
	if err := json.Unmarshal(p.Payload, &in); err != nil {
		return nil, malformed(err)
	}
	raw, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	return &draft{c: c, accepted: p.Accepted, in: in, raw: raw}, nil
}

// malformed names what of a payload cannot be read.
func malformed(err error) error {
	code := "voucher_payload"
	for is, name := range map[error]string{evm.ErrPayloadType: "payload_type", evm.ErrDepositPayload: "deposit_payload", evm.ErrRefundPayload: "refund_payload", evm.ErrNoERC3009: "erc3009_authorization_required"} {
		if errors.Is(err, is) {
			code = name
		}
	}
	return refuse(code, "%v", err)
}

// rate is the price at which an offer for n bytes was made, if it is one that is taken now.
func (c *Cashier) rate(o x402.Offer, n uint64) (accounting.Rate, bool) {
	if o.Asset != c.cfg.Token.Token.String() || o.PayTo != c.cfg.PayTo.String() {
		return accounting.Rate{}, false
	}
	for _, price := range c.prices.Taken() {
		r := accounting.Rate{PerTiB: price}
		if amount, ok := amountOf(r.Ceiling(n)); ok && price.Sign() > 0 && amount.Cmp(o.Amount) == 0 {
			return r, true
		}
	}
	return accounting.Rate{}, false
}

// codePrefix begins the codes of the scheme.
const codePrefix = "invalid_batch_settlement_evm_"

func refuse(code, format string, args ...any) *x402.Refusal {
	return &x402.Refusal{Code: codePrefix + code, Message: fmt.Sprintf(format, args...), Status: http.StatusPaymentRequired}
}

// passes is a refusal of something that may be taken later.
func passes(code, message string, after int) *x402.Refusal {
	return &x402.Refusal{Code: code, Message: message, Status: http.StatusServiceUnavailable, RetryAfter: after}
}
