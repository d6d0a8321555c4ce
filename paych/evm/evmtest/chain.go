// Package evmtest is a double of an EVM chain for tests: accounts, one token with authorizations, and the settlement contract of the scheme batch
// settlement, as the specification of the scheme describes them. It answers JSON-RPC and takes signed transactions; no code of a contract runs in it. A
// facilitator over it is here too.
package evmtest

import (
	"errors"
	"fmt"
	"math/big"
	"sync"
	"time"

	"github.com/cartage-dev/cartage/paych/evm"
)

// Channel is a channel as the contract has it.
type Channel struct {
	Balance, Claimed *big.Int
	Withdraw         *big.Int // that was asked for
	Since            time.Time
	Nonce            *big.Int
}

// pair is a receiver and a token.
type pair struct{ receiver, token evm.Address }

// total is what was claimed and settled for a receiver.
type total struct{ claimed, settled *big.Int }

// Chain is the double. It is safe for concurrent use.
type Chain struct {
	ID    uint64
	Token evm.TokenDomain

	mu        sync.Mutex
	now       time.Time
	height    uint64
	held      bool // transactions wait
	away      bool
	dropped   int // answers that are lost after their effect
	channels  map[evm.Hash]*Channel
	balances  map[evm.Address]*big.Int
	used      map[evm.Hash]bool // authorizations, by payer and nonce
	receivers map[pair]*total
	nonces    map[evm.Address]uint64
	waiting   []transaction
	receipts  map[evm.Hash]bool // whether it succeeded
	sent      map[string]int    // transactions that were mined, by function
}

// NewChain is a chain with no tokens.
func NewChain(id uint64, token evm.Address, now time.Time) *Chain {
	return &Chain{ID: id, Token: evm.TokenDomain{Name: "Token", Version: "2", ChainID: id, Token: token}, now: now, height: 1, channels: map[evm.Hash]*Channel{}, balances: map[evm.Address]*big.Int{},
		used: map[evm.Hash]bool{}, receivers: map[pair]*total{}, nonces: map[evm.Address]uint64{}, receipts: map[evm.Hash]bool{}, sent: map[string]int{}}
}

// Domain is that of the settlement contract.
func (c *Chain) Domain() evm.Domain { return evm.Domain{ChainID: c.ID, Contract: evm.Settlement()} }

// Network is the name of the chain in offers.
func (c *Chain) Network() string { return fmt.Sprintf("eip155:%d", c.ID) }

// Mint gives tokens to an account.
func (c *Chain) Mint(a evm.Address, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.move(nil, &a, big.NewInt(n))
}

// BalanceOf is what an account has.
func (c *Chain) BalanceOf(a evm.Address) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.balance(a).Int64()
}

func (c *Chain) balance(a evm.Address) *big.Int {
	if b := c.balances[a]; b != nil {
		return b
	}
	return new(big.Int)
}

// move moves tokens; from nil is nobody.
func (c *Chain) move(from, to *evm.Address, n *big.Int) {
	if from != nil {
		c.balances[*from] = new(big.Int).Sub(c.balance(*from), n)
	}
	c.balances[*to] = new(big.Int).Add(c.balance(*to), n)
}

// Advance lets time pass.
func (c *Chain) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Now is the time of the chain.
func (c *Chain) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Hold lets transactions wait, or mines those that did.
func (c *Chain) Hold(held bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held = held; !held {
		for _, t := range c.waiting {
			c.mine(t)
		}
		c.waiting = nil
	}
}

// Away lets the chain answer nobody.
func (c *Chain) Away(away bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = away
}

// DropAnswers loses the answers of the next n transactions or settlements, which have their effect.
func (c *Chain) DropAnswers(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropped = n
}

// drops reports whether the answer is to be lost.
func (c *Chain) drops() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dropped == 0 {
		return false
	}
	c.dropped--
	return true
}

// Sent is how many transactions of a function were mined.
func (c *Chain) Sent(function string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sent[function]
}

// Channel is a channel, and whether it is there.
func (c *Chain) Channel(id evm.Hash) (Channel, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch := c.channels[id]; ch != nil {
		return *ch, true
	}
	return Channel{Balance: new(big.Int), Claimed: new(big.Int), Withdraw: new(big.Int), Nonce: new(big.Int)}, false
}

func (c *Chain) channel(id evm.Hash) *Channel {
	ch := c.channels[id]
	if ch == nil {
		ch = &Channel{Balance: new(big.Int), Claimed: new(big.Int), Withdraw: new(big.Int), Nonce: new(big.Int)}
		c.channels[id] = ch
	}
	return ch
}

// errReverted is that of a call that the contract refuses.
var errReverted = errors.New("execution reverted")

func revert(why string) error { return fmt.Errorf("%w: %s", errReverted, why) }

// deposit pays into a channel; dry changes nothing.
func (c *Chain) deposit(cfg evm.ChannelConfig, d evm.Deposit, dry bool) error {
	id := c.Domain().ChannelID(cfg)
	if cfg.WithdrawDelay < evm.MinDelay || cfg.WithdrawDelay > evm.MaxDelay {
		return revert("WithdrawDelayOutOfRange")
	}
	nonce, err := evm.DepositNonce(id, d.Salt)
	if err != nil {
		return err
	}
	used := evm.Keccak(cfg.Payer[:], nonce[:])
	now := uint64(c.now.Unix())
	digest, err := c.Token.AuthorizationDigest(evm.Authorization{From: cfg.Payer, To: evm.Collector(), Value: d.Amount, ValidAfter: d.ValidAfter, ValidBefore: d.ValidBefore, Nonce: nonce})
	if err != nil {
		return err
	}
	who, err := evm.Recover(digest, d.Signature)
	switch {
	case err != nil || who != cfg.Payer:
		return revert("InvalidSignature")
	case c.used[used]:
		return revert("AuthorizationUsed")
	case now >= d.ValidBefore || now <= d.ValidAfter:
		return revert("AuthorizationExpired")
	case cfg.Token != c.Token.Token || c.balance(cfg.Payer).Cmp(d.Amount) < 0:
		return revert("InsufficientBalance")
	}
	if !dry {
		c.used[used] = true
		contract := evm.Settlement()
		c.move(&cfg.Payer, &contract, d.Amount)
		ch := c.channel(id)
		ch.Balance = new(big.Int).Add(ch.Balance, d.Amount)
	}
	return nil
}

// claim claims a batch, all of it or nothing.
func (c *Chain) claim(claims []evm.Claim, signature []byte, dry bool) error {
	if len(claims) == 0 {
		return revert("EmptyBatch")
	}
	digest, err := c.Domain().ClaimDigest(c.Domain().Entries(claims))
	if err != nil {
		return err
	}
	who, err := evm.Recover(digest, signature)
	for _, row := range claims {
		id := c.Domain().ChannelID(row.Config)
		switch {
		case err != nil || who != row.Config.ReceiverAuthorizer:
			return revert("InvalidSignature")
		case c.Domain().VerifyVoucher(row.Config, evm.Voucher{Channel: id, Maximum: row.Maximum, Signature: row.Signature}) != nil:
			return revert("InvalidVoucher")
		case row.TotalClaimed.Cmp(row.Maximum) > 0:
			return revert("ClaimExceedsCeiling")
		case row.TotalClaimed.Cmp(c.channel(id).Balance) > 0 && row.TotalClaimed.Cmp(c.channel(id).Claimed) > 0:
			return revert("ClaimExceedsBalance")
		}
	}
	if dry {
		return nil
	}
	for _, row := range claims {
		ch := c.channel(c.Domain().ChannelID(row.Config))
		if row.TotalClaimed.Cmp(ch.Claimed) > 0 {
			k := pair{row.Config.Receiver, row.Config.Token}
			t := c.totals(k)
			t.claimed = new(big.Int).Add(t.claimed, new(big.Int).Sub(row.TotalClaimed, ch.Claimed))
			ch.Claimed = new(big.Int).Set(row.TotalClaimed)
		}
	}
	return nil
}

func (c *Chain) totals(k pair) *total {
	t := c.receivers[k]
	if t == nil {
		t = &total{new(big.Int), new(big.Int)}
		c.receivers[k] = t
	}
	return t
}

func (c *Chain) settle(receiver, token evm.Address, dry bool) {
	t := c.totals(pair{receiver, token})
	if n := new(big.Int).Sub(t.claimed, t.settled); !dry && n.Sign() > 0 {
		contract := evm.Settlement()
		c.move(&contract, &receiver, n)
		t.settled = new(big.Int).Set(t.claimed)
	}
}

func (c *Chain) refund(cfg evm.ChannelConfig, amount, nonce *big.Int, signature []byte, dry bool) error {
	id := c.Domain().ChannelID(cfg)
	digest, err := c.Domain().RefundDigest(id, nonce, amount)
	if err != nil {
		return err
	}
	who, err := evm.Recover(digest, signature)
	ch := c.channel(id)
	switch {
	case err != nil || who != cfg.ReceiverAuthorizer:
		return revert("InvalidSignature")
	case ch.Nonce.Cmp(nonce) != 0:
		return revert("InvalidNonce")
	case dry:
		return nil
	}
	ch.Nonce = new(big.Int).Add(ch.Nonce, big.NewInt(1))
	c.payBack(cfg, ch, amount)
	if ch.Withdraw.Sign() > 0 {
		left := new(big.Int).Sub(ch.Balance, ch.Claimed)
		if ch.Withdraw.Cmp(left) > 0 {
			ch.Withdraw = left
		}
		if ch.Withdraw.Sign() == 0 {
			ch.Since = time.Time{}
		}
	}
	return nil
}

// payBack gives the payer at most what is not claimed.
func (c *Chain) payBack(cfg evm.ChannelConfig, ch *Channel, amount *big.Int) {
	left := new(big.Int).Sub(ch.Balance, ch.Claimed)
	if amount.Cmp(left) < 0 {
		left = amount
	}
	contract := evm.Settlement()
	c.move(&contract, &cfg.Payer, left)
	ch.Balance = new(big.Int).Sub(ch.Balance, left)
}

// Withdraw begins a withdrawal, as the payer can.
func (c *Chain) Withdraw(cfg evm.ChannelConfig, amount int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := c.channel(c.Domain().ChannelID(cfg))
	ch.Withdraw, ch.Since = big.NewInt(amount), c.now
}

// Finalize ends a withdrawal, and reports whether its delay was over.
func (c *Chain) Finalize(cfg evm.ChannelConfig) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := c.channel(c.Domain().ChannelID(cfg))
	if ch.Since.IsZero() || c.now.Before(ch.Since.Add(time.Duration(cfg.WithdrawDelay)*time.Second)) {
		return false
	}
	c.payBack(cfg, ch, ch.Withdraw)
	ch.Withdraw, ch.Since = new(big.Int), time.Time{}
	return true
}
