package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/ipfs/go-datastore"

	"github.com/cartage-dev/cartage/paych/book"
	"github.com/cartage-dev/cartage/paych/evm"
)

// Keys finds the key of an address.
type Keys func(evm.Address) (*evm.Key, error)

// DirectConfig is what a Direct is made of.
type DirectConfig struct {
	Chain         *Chain
	Sender        *evm.Key // pays for gas
	Authorizers   Keys
	Store         datastore.Batching // of the transactions
	MaxFee        *big.Int           // wei for a unit of gas
	Confirmations uint64             // 0: 1
	Poll          time.Duration      // how often a transaction is looked for; 0: a second
	Patience      time.Duration      // before a higher fee is offered; 0: a minute
}

// Direct sends transactions of its own. It implements book.Escrow.
type Direct struct {
	chain  *Chain
	keys   Keys
	sender *sender
}

var _ book.Escrow = (*Direct)(nil)

// NewDirect makes a Direct.
func NewDirect(cfg DirectConfig) *Direct {
	if cfg.Poll == 0 {
		cfg.Poll = time.Second
	}
	if cfg.Patience == 0 {
		cfg.Patience = time.Minute
	}
	return &Direct{chain: cfg.Chain, keys: cfg.Authorizers, sender: &sender{chain: cfg.Chain, key: cfg.Sender, ds: cfg.Store, maxFee: cfg.MaxFee, confirmations: cfg.Confirmations, poll: cfg.Poll, patience: cfg.Patience}}
}

// envelope is a payment as x402 sends it, of which only the payload is for this package.
type envelope struct {
	Version  int             `json:"x402Version"`
	Accepted json.RawMessage `json:"accepted"`
	Payload  json.RawMessage `json:"payload"`
}

// protocol is the version of x402.
const protocol = 2

// readPayload reads a payment of the scheme.
func readPayload(data []byte) (envelope, evm.Payload, error) {
	var payment envelope
	var p evm.Payload
	if err := json.Unmarshal(data, &payment); err != nil {
		return payment, p, err
	}
	err := json.Unmarshal(payment.Payload, &p)
	if err == nil && p.Deposit == nil {
		err = errors.New("it is no deposit")
	}
	return payment, p, err
}

// Fund implements book.Escrow.
func (d *Direct) Fund(ctx context.Context, f book.Intent) (book.Balance, string, error) {
	_, p, err := readPayload(f.Payload)
	if err != nil {
		return book.Balance{}, "", fmt.Errorf("deposit of channel %s: %w", f.Key.Channel, err)
	}
	nonce, err := evm.DepositNonce(p.Voucher.Channel, p.Deposit.Salt)
	if err != nil {
		return book.Balance{}, "", err
	}
	d.sender.mu.Lock()
	defer d.sender.mu.Unlock()
	if err := d.sender.flush(ctx); err != nil {
		return book.Balance{}, "", err
	}
	used, err := d.chain.reads(ctx, []read{{p.Config.Token, evm.PackAuthorizationState(p.Config.Payer, nonce), 1}})
	if err != nil {
		return book.Balance{}, "", err
	}
	tx := ""
	if used[0][0].Sign() == 0 {
		call, err := evm.PackDeposit(p.Config, *p.Deposit)
		if err != nil {
			return book.Balance{}, "", err
		}
		hash, err := d.sender.send(ctx, call)
		if err != nil {
			return book.Balance{}, "", err
		}
		tx = hash.String()
	}
	b, err := d.chain.States(ctx, []evm.Hash{p.Voucher.Channel})
	if err != nil {
		return book.Balance{}, tx, err
	}
	return b[0], tx, nil
}

// State implements book.Escrow.
func (d *Direct) State(ctx context.Context, entries []book.Entry) ([]book.Balance, error) {
	return d.chain.StatesOf(ctx, entries)
}

// StatesOf reads the channels of entries.
func (c *Chain) StatesOf(ctx context.Context, entries []book.Entry) ([]book.Balance, error) {
	ids := make([]evm.Hash, len(entries))
	for i, e := range entries {
		var err error
		if ids[i], err = evm.ParseHash(e.Key.Channel); err != nil {
			return nil, err
		}
	}
	return c.States(ctx, ids)
}

// batchOf is what of entries has to be claimed, and the signature of their authorizer; nil if nothing has.
func batchOf(domain evm.Domain, keys Keys, entries []book.Entry) ([]evm.Claim, []byte, error) {
	var claims []evm.Claim
	for _, e := range entries {
		if e.Earned.LessThanEqual(e.Claimed) {
			continue
		}
		c, err := evm.ClaimOf(e)
		if err != nil {
			return nil, nil, err
		}
		claims = append(claims, c)
	}
	if len(claims) == 0 {
		return nil, nil, nil
	}
	key, err := keys(claims[0].Config.ReceiverAuthorizer)
	if err != nil {
		return nil, nil, err
	}
	digest, err := domain.ClaimDigest(domain.Entries(claims))
	if err != nil {
		return nil, nil, err
	}
	return claims, key.Sign(digest), nil
}

// seen are entries with what the chain has of them now.
func seen(ctx context.Context, s book.Escrow, entries []book.Entry) ([]book.Entry, error) {
	states, err := s.State(ctx, entries)
	if err != nil {
		return nil, err
	}
	out := make([]book.Entry, len(entries))
	for i := range entries {
		out[i] = entries[i].Seen(states[i])
	}
	return out, nil
}

// Redeem implements book.Escrow. A batch that the contract refuses is claimed row by row: what cannot be claimed is left out.
func (d *Direct) Redeem(ctx context.Context, entries []book.Entry) (book.Settled, error) {
	d.sender.mu.Lock()
	defer d.sender.mu.Unlock()
	if err := d.sender.flush(ctx); err != nil {
		return book.Settled{}, err
	}
	entries, err := seen(ctx, d, entries)
	if err != nil {
		return book.Settled{}, err
	}
	out := book.Settled{}
	refusals := d.claim(ctx, entries, &out)
	if err := passing(refusals); err != nil {
		return out, err
	}
	if err := d.settle(ctx, entries[0], &out); err != nil {
		return out, err
	}
	out.Balances, err = d.State(ctx, entries)
	return out, errors.Join(err, refusals)
}

// passing is an error if it passes, else nil.
func passing(err error) error {
	var refused *book.RefusedError
	if err == nil || errors.As(err, &refused) && !errors.Is(err, book.ErrUnavailable) {
		return nil
	}
	return err
}

func (d *Direct) claim(ctx context.Context, entries []book.Entry, out *book.Settled) error {
	claims, signature, err := batchOf(d.chain.Domain(), d.keys, entries)
	if err != nil || claims == nil {
		return err
	}
	call, err := evm.PackClaim(claims, signature)
	if err != nil {
		return err
	}
	hash, err := d.sender.send(ctx, call)
	if err == nil {
		out.Tx = append(out.Tx, hash.String())
		return nil
	}
	if passing(err) != nil || len(entries) == 1 {
		return err
	}
	var errs []error
	for i := range entries {
		err := d.claim(ctx, entries[i:i+1], out)
		if passing(err) != nil {
			return err
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// settle has what was claimed paid to the receiver.
func (d *Direct) settle(ctx context.Context, e book.Entry, out *book.Settled) error {
	c, err := evm.DecodeConfig(e.Config)
	if err != nil {
		return err
	}
	totals, err := d.chain.reads(ctx, []read{{evm.Settlement(), evm.PackReceivers(c.Receiver, c.Token), 2}})
	if err != nil || totals[0][0].Cmp(totals[0][1]) <= 0 {
		return err
	}
	hash, err := d.sender.send(ctx, evm.PackSettle(c.Receiver, c.Token))
	if err == nil {
		out.Tx = append(out.Tx, hash.String())
	}
	return err
}

// refundSignature is that of the authorizer of a channel.
func refundSignature(domain evm.Domain, keys Keys, e book.Entry, amount abi.TokenAmount) (evm.ChannelConfig, []byte, error) {
	c, err := evm.DecodeConfig(e.Config)
	if err != nil {
		return c, nil, err
	}
	key, err := keys(c.ReceiverAuthorizer)
	if err != nil {
		return c, nil, err
	}
	digest, err := domain.RefundDigest(domain.ChannelID(c), new(big.Int).SetUint64(e.RefundNonce), amount.Int)
	if err != nil {
		return c, nil, err
	}
	return c, key.Sign(digest), nil
}

// Release implements book.Escrow.
func (d *Direct) Release(ctx context.Context, e book.Entry, amount abi.TokenAmount) (string, error) {
	c, signature, err := refundSignature(d.chain.Domain(), d.keys, e, amount)
	if err != nil {
		return "", err
	}
	d.sender.mu.Lock()
	defer d.sender.mu.Unlock()
	if err := d.sender.flush(ctx); err != nil {
		return "", err
	}
	now, err := seen(ctx, d, []book.Entry{e})
	if err != nil || now[0].RefundNonce > e.RefundNonce {
		return "", err
	}
	if err := d.claim(ctx, now, &book.Settled{}); err != nil {
		return "", err
	}
	call, err := evm.PackRefund(c, amount.Int, new(big.Int).SetUint64(e.RefundNonce), signature)
	if err != nil {
		return "", err
	}
	hash, err := d.sender.send(ctx, call)
	return hash.String(), err
}
