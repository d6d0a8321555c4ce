package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"

	"github.com/cartage-dev/cartage/gateway"
	"github.com/cartage-dev/cartage/gateway/batch"
	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/money"
	"github.com/cartage-dev/cartage/paych"
	chbook "github.com/cartage-dev/cartage/paych/book"
	"github.com/cartage-dev/cartage/paych/evm"
	"github.com/cartage-dev/cartage/paych/evm/relay"
)

// EVM is what a node earns on EVM chains. Without a configured asset it earns nothing, and answers so.
type EVM struct {
	n    *Node
	keys *paych.Wallet // nil: there are none

	book   *chbook.Book // nil: nothing is sold for a token
	desk   *relay.Desk
	asset  money.Asset
	config batch.Config
	chain  *relay.Chain       // nil: it is not read
	helper *relay.Facilitator // nil: transactions are sent by this node
}

// evmSpace is where the book of EVM channels is in the store.
const evmSpace = "/evm"

// openEVM opens the book of EVM channels and looks after them, if a token is configured.
func openEVM(ctx context.Context, n *Node) (*EVM, error) {
	t := &EVM{n: n, keys: n.parts.EVMKeys}
	cfg := n.parts.Config.X402
	if cfg.Asset == "" || n.parts.Reading {
		return t, nil
	}
	if err := t.open(ctx, cfg); err != nil {
		t.close()
		return t, err
	}
	n.wg.Go(func() {
		t.desk.Run(n.ctx)
		t.close()
	})
	return t, nil
}

// close ends idle connections.
func (t *EVM) close() {
	if t.chain != nil {
		t.chain.Close()
	}
	if t.helper != nil {
		t.helper.Close()
	}
}

// open makes the parts of a configuration, and asks the chain whether they fit.
func (t *EVM) open(ctx context.Context, cfg config.X402) error {
	if err := cfg.Check(); err != nil {
		return err
	}
	token, err := cfg.Selected()
	if err != nil {
		return err
	}
	t.asset = token.Money()
	if err := t.readTerms(cfg, token); err != nil {
		return err
	}
	escrow, err := t.escrow(cfg)
	if err != nil {
		return err
	}
	if err := t.reach(ctx); err != nil {
		return err
	}
	if t.book, err = chbook.Open(ctx, t.n.space(evmSpace), t.n.parts.Now); err != nil {
		return err
	}
	watch, err := relay.WatchPeriod(time.Duration(cfg.Delay), time.Duration(cfg.Watch))
	if err != nil {
		return reason.ConfigValue.Errorf("x402.watch is %s and withdraw_delay %s: %w", time.Duration(cfg.Watch), time.Duration(cfg.Delay), err)
	}
	claimAt, err := token.Amount("claim_at", cfg.ClaimAt)
	if err != nil {
		return err
	}
	now := t.n.parts.Now
	if now == nil {
		now = time.Now
	}
	t.desk = relay.NewDesk(relay.DeskConfig{Book: t.book, Escrow: escrow, Network: token.Network, Watch: watch, ClaimAt: claimAt.Units, MaxChannel: t.config.MaxChannel, PerDay: cfg.PerDay, Now: now, Log: t.n.log})
	t.config.Book, t.config.Desk, t.config.Now = t.book, t.desk, now
	return nil
}

// readTerms reads what is sold for what to whom.
func (t *EVM) readTerms(cfg config.X402, token config.Token) error {
	id, err := strconv.ParseUint(strings.TrimPrefix(token.Network, "eip155:"), 10, 63)
	if err != nil || !strings.HasPrefix(token.Network, "eip155:") {
		return reason.ConfigValue.Errorf("x402.token_network is %q: it looks like eip155:8453", token.Network)
	}
	c := batch.Config{Token: evm.TokenDomain{Name: token.Domain, Version: token.Version, ChainID: id}, TokenDecimals: token.Decimals, Delay: uint64(time.Duration(cfg.Delay) / time.Second)}
	if c.Delay < evm.MinDelay || c.Delay > evm.MaxDelay {
		return reason.ConfigValue.Errorf("x402.withdraw_delay is %s: it is from 15m to 720h", time.Duration(cfg.Delay))
	}
	price, err := money.ParsePrice(cfg.Price, token.Money())
	if err != nil || price.Asset != token.Money() {
		return reason.ConfigValue.Errorf("x402.price is %q: it looks like 7%s/TiB", cfg.Price, token.Symbol)
	}
	perTiB := price.For(1 << 40).Units
	c.PerTiB = func() abi.TokenAmount { return perTiB }
	for key, to := range map[string]*abi.TokenAmount{"max_unclaimed": &c.MaxAsset, "max_unclaimed_channel": &c.MaxChannel} {
		a, err := token.Amount(key, map[string]string{"max_unclaimed": cfg.MaxAll, "max_unclaimed_channel": cfg.MaxChannel}[key])
		if err != nil {
			return err
		}
		*to = a.Units
	}
	for key, a := range map[string]struct {
		text string
		to   *evm.Address
	}{"pay_to": {cfg.PayTo, &c.PayTo}, "token_address": {token.Address, &c.Token.Token}} {
		if *a.to, err = evm.ParseAddress(a.text); err != nil {
			return reason.ConfigValue.Errorf("x402.%s: %w", key, err)
		}
	}
	t.config = c
	return nil
}

// key is the key of an address, or the first one if the text is empty.
func (t *EVM) key(name, text string) (*evm.Key, error) {
	list, err := t.list()
	if err != nil {
		return nil, err
	}
	for _, k := range list {
		if text == "" || strings.EqualFold(k.Address().String(), text) {
			return k, nil
		}
	}
	if text == "" {
		return nil, reason.ConfigValue.Errorf("x402.%s: the wallet has no key of an EVM chain", name).WithHint("Make one with cartage wallet new --type evm.")
	}
	return nil, reason.ConfigValue.Errorf("x402.%s is %q, whose key is not in the wallet", name, text).WithHint("cartage wallet list shows what is there.")
}

// list are the keys of EVM chains, the default one first.
func (t *EVM) list() (out []*evm.Key, err error) {
	if t.keys == nil {
		return nil, nil
	}
	addresses := t.keys.List()
	if first, err := t.keys.Default(); err == nil {
		addresses = append([]address.Address{first}, slices.DeleteFunc(addresses, func(a address.Address) bool { return a == first })...)
	}
	for _, a := range addresses {
		k, err := t.keys.Key(a)
		if err != nil {
			return nil, err
		}
		e, err := k.EVM()
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// escrow is how the chain is reached.
func (t *EVM) escrow(cfg config.X402) (chbook.Escrow, error) {
	for key, at := range map[string]string{"rpc": cfg.RPC, "facilitator": cfg.Facilitator} {
		if at == "" {
			continue
		}
		if err := relay.CheckURL(at); err != nil {
			return nil, reason.ConfigValue.Errorf("x402.%s: %w", key, err)
		}
	}
	authorizer, err := t.key("authorizer", cfg.Authorizer)
	if err != nil {
		return nil, err
	}
	t.config.Authorizer = authorizer.Address()
	keys := func(a evm.Address) (*evm.Key, error) { return t.key("authorizer", a.String()) }
	if cfg.RPC != "" {
		t.chain = relay.NewChain(cfg.RPC, t.config.Token.ChainID, t.n.parts.Now)
	}
	if cfg.Relay == "facilitator" {
		token := ""
		if cfg.TokenFile != "" {
			if token, err = ReadToken(cfg.TokenFile); err != nil {
				return nil, reason.ConfigValue.Errorf("x402.token_file: %w", err)
			}
		}
		t.helper = relay.NewFacilitator(relay.FacilitatorConfig{URL: cfg.Facilitator, Token: token, ChainID: t.config.Token.ChainID, Authorizers: keys, Reader: t.chain, Now: t.n.parts.Now})
		return t.helper, nil
	}
	sender, err := t.key("sender", cfg.Sender)
	if cfg.Sender == "" {
		sender, err = authorizer, nil
	}
	if err != nil {
		return nil, err
	}
	fee, err := cfg.Fee()
	if err != nil {
		return nil, err
	}
	return relay.NewDirect(relay.DirectConfig{Chain: t.chain, Sender: sender, Authorizers: keys, Store: t.n.space(evmSpace), MaxFee: fee, Confirmations: uint64(cfg.Confirms)}), nil
}

// reachTime is how long the chain may take to say whether the configuration fits.
const reachTime = 5 * time.Second

// reach asks the chain and the facilitator whether they are those that were named. One that is away is waited for while the node runs.
func (t *EVM) reach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	var errs []error
	if t.chain != nil {
		errs = append(errs, t.chain.Check(ctx, t.config.Token.Token))
	}
	if t.helper != nil {
		errs = append(errs, t.helper.Check(ctx))
	}
	for _, err := range errs {
		switch {
		case err == nil:
		case errors.Is(err, chbook.ErrUnavailable) || ctx.Err() != nil:
			t.n.log.Warn("what is sold over HTTP for a token cannot be paid at present", "error", err)
		default:
			return reason.ConfigValue.Errorf("x402: %w", err)
		}
	}
	return nil
}

// cashier takes payments of the token; nil if there is none.
func (t *EVM) cashier(window uint64) []gateway.Cashier {
	if t.book == nil {
		return nil
	}
	c := t.config
	c.Window = window
	return []gateway.Cashier{batch.New(c)}
}

// table is an amount of the asset of a channel for people: in its units if it is not the asset that is configured.
func (t *EVM) table(k chbook.ChannelKey, units abi.TokenAmount) string {
	if k.Asset == t.config.Token.Token.String() && k.Network == fmt.Sprintf("eip155:%d", t.config.Token.ChainID) {
		return money.Amount{Units: units, Asset: t.asset}.Table()
	}
	return units.String() + " units of " + k.Asset
}

// sortedEntries are all channels, those with the most unclaimed first.
func (t *EVM) sortedEntries(ctx context.Context) (out []chbook.Entry, err error) {
	err = t.book.Each(ctx, func(e chbook.Entry) error {
		out = append(out, e)
		return nil
	})
	slices.SortFunc(out, func(a, b chbook.Entry) int { return big.Cmp(b.Unclaimed(), a.Unclaimed()) })
	return out, err
}
