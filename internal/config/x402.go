package config

import (
	"math/big"
	"strings"

	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/money"
)

// X402 says how pieces are sold over HTTP for a token of an EVM chain, by the scheme batch-settlement. It has no meaning while Asset is empty.
type X402 struct {
	Asset       string   `toml:"asset" comment:"what is paid with: usdc@base, usdc@base-sepolia, or the name of the token below; empty: nothing is sold for a token"`
	Price       string   `toml:"price" comment:"for example 7USDC/TiB"`
	PayTo       string   `toml:"pay_to" comment:"0x address that is paid; it may be a cold one"`
	Authorizer  string   `toml:"authorizer" comment:"0x address whose key signs claims and refunds; empty: the first key of cartage wallet new --type evm"`
	Relay       string   `toml:"relay" choices:"facilitator direct" comment:"facilitator: it sends the transactions; direct: this node does, and pays for gas"`
	Facilitator string   `toml:"facilitator" comment:"URL of a facilitator of x402"`
	TokenFile   string   `toml:"token_file" comment:"file with the bearer token of the facilitator; empty: it wants none"`
	RPC         string   `toml:"rpc" comment:"URL of the JSON-RPC of a node of the chain; beside a facilitator it is read from: a deposit counts when the chain shows it"`
	Sender      string   `toml:"sender" comment:"0x address whose key sends transactions and pays for gas; empty: the authorizer"`
	MaxFee      string   `toml:"max_fee" comment:"largest fee for a unit of gas, for example 5gwei"`
	Confirms    int      `toml:"confirmations" comment:"blocks after which a transaction of this node counts" min:"1" max:"1000"`
	Delay       Duration `toml:"withdraw_delay" comment:"how long a withdrawal of a payer takes: 15m to 720h; a new one makes new channels"`
	Watch       Auto     `toml:"watch" comment:"how often channels with unclaimed money are looked at; auto: a sixth of the delay, at most 10m; never more than a quarter of it"`
	ClaimAt     string   `toml:"claim_at" comment:"unclaimed money at which all is claimed"`
	MaxAll      string   `toml:"max_unclaimed" comment:"unclaimed money at which nothing more is sold until it is claimed"`
	MaxChannel  string   `toml:"max_unclaimed_channel" comment:"the same, of one channel"`
	PerDay      int      `toml:"relay_per_day" comment:"transactions a day, a quarter of which is kept for claims" min:"4" max:"1000000"`
	// A token that is not built in.
	TokenName     string `toml:"token_name" comment:"a token that is not built in, for example tusd@local"`
	TokenSymbol   string `toml:"token_symbol" comment:"for example TUSD"`
	TokenNetwork  string `toml:"token_network" comment:"for example eip155:31337"`
	TokenAddress  string `toml:"token_address" comment:"0x address of the token"`
	TokenDecimals int    `toml:"token_decimals" comment:"digits that its unit has behind the point" max:"30"`
	TokenDomain   string `toml:"token_domain" comment:"name of its EIP-712 domain"`
	TokenVersion  string `toml:"token_version" comment:"version of its EIP-712 domain"`
}

// Token is a token with authorizations (ERC-3009).
type Token struct {
	Name, Symbol, Network, Address string
	Decimals                       int
	Domain, Version                string // of EIP-712
}

func defaultX402() X402 {
	return X402{Relay: "facilitator", MaxFee: "5gwei", Confirms: 1, Delay: Duration(dayLong), ClaimAt: "1.00", MaxAll: "50.00", MaxChannel: "5.00", PerDay: 1000}
}

// dayLong is a day in nanoseconds: outages last hours, and a client in a hurry can ask for a refund.
const dayLong = 24 * 3600 * 1e9

// builtIn are the tokens that everybody knows.
func builtIn() []Token {
	return []Token{
		{"usdc@base", "USDC", "eip155:8453", "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", 6, "USD Coin", "2"},
		{"usdc@base-sepolia", "USDC", "eip155:84532", "0x036CbD53842c5426634e7929541eC2318f3dCF7e", 6, "USDC", "2"},
	}
}

// Money is the asset of the token.
func (t Token) Money() money.Asset {
	return money.Asset{Name: t.Name, Symbol: t.Symbol, Decimals: t.Decimals}
}

// Selected is the token that is paid with.
func (x X402) Selected() (Token, error) {
	for _, t := range append(builtIn(), Token{x.TokenName, x.TokenSymbol, x.TokenNetwork, x.TokenAddress, x.TokenDecimals, x.TokenDomain, x.TokenVersion}) {
		if t.Name != x.Asset {
			continue
		}
		if t.Symbol == "" || t.Network == "" || t.Address == "" || t.Domain == "" || t.Version == "" || t.Decimals < 1 || t.Decimals > 30 {
			return t, reason.ConfigValue.Errorf("x402.token_name %s is not complete: token_symbol, token_network, token_address, token_decimals (1 to 30), token_domain and token_version belong to it", t.Name)
		}
		return t, nil
	}
	return Token{}, reason.ConfigValue.Errorf("x402.asset is %q, which is no token that is known", x.Asset).WithHint("Say usdc@base, or describe it with token_name and what belongs to it.")
}

// Check refuses what is not complete, and says what is missing.
func (x X402) Check() error {
	missing := func(key, why string) error {
		return reason.ConfigValue.Errorf("x402.%s is missing: %s", key, why)
	}
	switch {
	case x.Price == "":
		return missing("price", "what a TiB costs, for example 7USDC/TiB")
	case x.PayTo == "":
		return missing("pay_to", "the 0x address that is paid")
	case x.Relay != "facilitator" && x.Relay != "direct":
		return reason.ConfigValue.Errorf("x402.relay is %q: it is facilitator or direct", x.Relay)
	case x.Relay == "facilitator" && x.Facilitator == "":
		return missing("facilitator", "its URL; or relay = \"direct\" with rpc, to send transactions yourself")
	case x.Relay == "direct" && x.RPC == "":
		return missing("rpc", "the URL of a node of the chain, which relay = \"direct\" needs")
	}
	return nil
}

// Amount reads an amount of the token, without its name.
func (t Token) Amount(key, text string) (money.Amount, error) {
	a, err := money.Parse(text+t.Name, t.Money())
	if err != nil {
		return a, reason.ConfigValue.Errorf("x402.%s: %w", key, err)
	}
	return a, nil
}

// Fee is the largest fee in wei.
func (x X402) Fee() (*big.Int, error) {
	a, err := money.Parse(strings.TrimSuffix(x.MaxFee, "gwei")+"gwei", money.Asset{Name: "gwei", Symbol: "gwei", Decimals: 9})
	if err != nil || a.Units.Sign() == 0 {
		return nil, reason.ConfigValue.Errorf("x402.max_fee is %q: it looks like 5gwei", x.MaxFee)
	}
	return a.Units.Int, nil
}
