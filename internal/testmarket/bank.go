// Package testmarket runs retrieval clients and providers on one data-transfer manager each, over real graphsync and with
// simulated money, without a node around them. It is lighter than testnet: a thousand deals fit into one test.
package testmarket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/filecoin-project/go-state-types/crypto"
	"github.com/ipfs/go-cid"
	ma "github.com/multiformats/go-multiaddr"
	mh "github.com/multiformats/go-multihash"

	vouchers "github.com/cartage-dev/cartage/paych"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/shared"
)

// SimulatedBank is a payment node for both sides, in memory: channels, lanes and vouchers without keys or a chain. It outlives
// the peers that use it. It keeps vouchers as the reference does, and as a book that knows which deal they are for.
type SimulatedBank struct {
	mu       sync.Mutex
	channels map[address.Address]*account
	pending  map[cid.Cid]address.Address
	books    map[string]*rm.DealVoucher
	wallets  map[address.Address]abi.TokenAmount
	head     error           // of GetChainHead
	short    abi.TokenAmount // what is missing in every channel
	forge    bool            // vouchers are made with the wrong key
}

type account struct {
	from, to address.Address
	deposit  abi.TokenAmount
	reserved map[string]abi.TokenAmount
	lanes    []*lane
}

type lane struct {
	deal     string // on the payee's side
	made     abi.TokenAmount
	nonce    uint64
	taken    abi.TokenAmount
	accepted int
}

// NewBank makes a bank in which every address has the same money.
func NewBank() *SimulatedBank {
	return &SimulatedBank{channels: map[address.Address]*account{}, pending: map[cid.Cid]address.Address{}, books: map[string]*rm.DealVoucher{},
		wallets: map[address.Address]abi.TokenAmount{}, short: big.Zero()}
}

// Short makes that much of each channel's money unavailable.
func (b *SimulatedBank) Short(amount abi.TokenAmount) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.short = amount
}

// Forge makes vouchers that no payee takes.
func (b *SimulatedBank) Forge(yes bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forge = yes
}

// Limit sets what an address may still put into channels; without a limit there is no end to it.
func (b *SimulatedBank) Limit(a address.Address, amount abi.TokenAmount) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wallets[a] = amount
}

// FailHead makes the chain head unknown until it is called with nil.
func (b *SimulatedBank) FailHead(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.head = err
}

// Totals are the sums over all lanes: what payers signed and what payees took.
func (b *SimulatedBank) Totals() (made, taken abi.TokenAmount) {
	b.mu.Lock()
	defer b.mu.Unlock()
	made, taken = big.Zero(), big.Zero()
	for _, c := range b.channels {
		for _, l := range c.lanes {
			made, taken = big.Add(made, l.made), big.Add(taken, l.taken)
		}
	}
	return made, taken
}

// Accepted counts the vouchers that a payee took and that were worth something.
func (b *SimulatedBank) Accepted() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.channels {
		for _, l := range c.lanes {
			n += l.accepted
		}
	}
	return n
}

func (b *SimulatedBank) channel(a address.Address) (*account, error) {
	c := b.channels[a]
	if c == nil {
		return nil, fmt.Errorf("payment channel %s: %w", a, rm.ErrNotFound)
	}
	return c, nil
}

func (b *SimulatedBank) chainHead() (shared.TipSetToken, abi.ChainEpoch, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return shared.TipSetToken("head"), 10, b.head
}

// deposit makes money available between two addresses; mu is held.
func (b *SimulatedBank) deposit(from, to address.Address, amount abi.TokenAmount) (ch address.Address, fresh bool, err error) {
	if left, limited := b.wallets[from]; limited {
		if left.LessThan(amount) {
			return address.Undef, false, errors.New("the wallet has too little money")
		}
		b.wallets[from] = big.Sub(left, amount)
	}
	ch, err = address.NewActorAddress([]byte(from.String() + to.String()))
	if err != nil {
		return address.Undef, false, err
	}
	c := b.channels[ch]
	if fresh = c == nil; fresh {
		c = &account{from: from, to: to, deposit: big.Zero(), reserved: map[string]abi.TokenAmount{}}
		b.channels[ch] = c
	}
	c.deposit = big.Add(c.deposit, amount)
	return ch, fresh, nil
}

func sentinel(ch address.Address) cid.Cid {
	c, err := cid.V1Builder{Codec: cid.DagCBOR, MhType: mh.IDENTITY}.Sum(ch.Bytes())
	if err != nil {
		return cid.Undef
	}
	return c
}

// Client is the bank as the node of a client.
type Client struct{ *SimulatedBank }

var _ rm.RetrievalClientNode = Client{}

// GetChainHead implements retrievalmarket.RetrievalClientNode.
func (c Client) GetChainHead(context.Context) (shared.TipSetToken, abi.ChainEpoch, error) {
	return c.chainHead()
}

// GetOrCreatePaymentChannel implements retrievalmarket.RetrievalClientNode: a new channel has to be waited for, money for one
// that exists is on the way.
func (c Client) GetOrCreatePaymentChannel(_ context.Context, from, to address.Address, amount abi.TokenAmount, _ shared.TipSetToken) (address.Address, cid.Cid, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch, fresh, err := c.deposit(from, to, amount)
	if err != nil {
		return address.Undef, cid.Undef, err
	}
	c.pending[sentinel(ch)] = ch
	if fresh {
		return address.Undef, sentinel(ch), nil
	}
	return ch, sentinel(ch), nil
}

// WaitForPaymentChannelReady implements retrievalmarket.RetrievalClientNode.
func (c Client) WaitForPaymentChannelReady(_ context.Context, w cid.Cid) (address.Address, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch, ok := c.pending[w]
	if !ok {
		return address.Undef, errors.New("nothing is pending")
	}
	return ch, nil
}

// CheckAvailableFunds implements retrievalmarket.RetrievalClientNode.
func (c Client) CheckAvailableFunds(_ context.Context, ch address.Address) (rm.ChannelAvailableFunds, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, err := c.channel(ch)
	if err != nil {
		return rm.ChannelAvailableFunds{}, err
	}
	return rm.ChannelAvailableFunds{ConfirmedAmt: big.Sub(a.deposit, c.short), PendingAmt: big.Zero(), QueuedAmt: big.Zero(), VoucherReedeemedAmt: a.made()}, nil
}

func (a *account) made() abi.TokenAmount {
	sum := big.Zero()
	for _, l := range a.lanes {
		sum = big.Add(sum, l.made)
	}
	return sum
}

// AllocateLane implements retrievalmarket.RetrievalClientNode.
func (c Client) AllocateLane(_ context.Context, ch address.Address) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, err := c.channel(ch)
	if err != nil {
		return 0, err
	}
	a.lanes = append(a.lanes, &lane{made: big.Zero(), taken: big.Zero()})
	return uint64(len(a.lanes) - 1), nil
}

// CreatePaymentVoucher implements retrievalmarket.RetrievalClientNode.
func (c Client) CreatePaymentVoucher(_ context.Context, ch address.Address, amount abi.TokenAmount, n uint64, _ shared.TipSetToken) (*paych.SignedVoucher, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, err := c.channel(ch)
	if err != nil {
		return nil, err
	}
	if n >= uint64(len(a.lanes)) {
		return nil, fmt.Errorf("lane %d of %s: %w", n, ch, rm.ErrNotFound)
	}
	l := a.lanes[n]
	if more := big.Sub(amount, l.made); more.Sign() > 0 {
		if short := big.Sub(big.Add(a.made(), more), big.Sub(a.deposit, c.short)); short.Sign() > 0 {
			return nil, rm.NewShortfallError(short)
		}
		l.made, l.nonce = amount, l.nonce+1
	}
	by := a.from
	if c.forge {
		by = a.to
	}
	return &paych.SignedVoucher{ChannelAddr: ch, Lane: n, Nonce: l.nonce, Amount: amount, Signature: signature(by)}, nil
}

func signature(by address.Address) *crypto.Signature {
	return &crypto.Signature{Type: crypto.SigTypeSecp256k1, Data: append(make([]byte, 65), by.Bytes()...)[len(by.Bytes()):]}
}

// GetKnownAddresses implements retrievalmarket.RetrievalClientNode.
func (c Client) GetKnownAddresses(context.Context, rm.RetrievalPeer, shared.TipSetToken) ([]ma.Multiaddr, error) {
	return nil, nil
}

// Provider is the bank as the node of a provider.
type Provider struct{ *SimulatedBank }

var _ rm.RetrievalProviderNode = Provider{}

// GetChainHead implements retrievalmarket.RetrievalProviderNode.
func (p Provider) GetChainHead(context.Context) (shared.TipSetToken, abi.ChainEpoch, error) {
	return p.chainHead()
}

// GetMinerWorkerAddress implements retrievalmarket.RetrievalProviderNode.
func (p Provider) GetMinerWorkerAddress(_ context.Context, miner address.Address, _ shared.TipSetToken) (address.Address, error) {
	return miner, nil
}

// UnsealSector implements retrievalmarket.RetrievalProviderNode: there are none.
func (p Provider) UnsealSector(context.Context, abi.SectorNumber, abi.UnpaddedPieceSize, abi.UnpaddedPieceSize) (io.ReadCloser, error) {
	return nil, errors.New("no sectors")
}

// SavePaymentVoucher implements retrievalmarket.RetrievalProviderNode.
func (p Provider) SavePaymentVoucher(_ context.Context, ch address.Address, v *paych.SignedVoucher, _ []byte, _ abi.TokenAmount, _ shared.TipSetToken) (abi.TokenAmount, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, err := p.checked(ch, v)
	if err != nil {
		return big.Zero(), err
	}
	return l.take(v), nil
}

// checked finds the lane of a voucher that is genuine; mu is held.
func (p Provider) checked(ch address.Address, v *paych.SignedVoucher) (*lane, error) {
	a, err := p.channel(ch)
	if err != nil {
		return nil, err
	}
	if v.Lane >= uint64(len(a.lanes)) {
		return nil, vouchers.ErrLaneLimit
	}
	if l := a.lanes[v.Lane]; !v.Signature.Equals(signature(a.from)) || v.Amount.GreaterThan(l.made) {
		return nil, vouchers.ErrBadSignature
	}
	return a.lanes[v.Lane], nil
}

func (l *lane) take(v *paych.SignedVoucher) abi.TokenAmount {
	grown := big.Max(big.Zero(), big.Sub(v.Amount, l.taken))
	if grown.Sign() > 0 {
		l.taken, l.accepted = v.Amount, l.accepted+1
	}
	return grown
}
