package sim

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/exitcode"
	"github.com/google/uuid"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/cartage-dev/cartage/paych"
)

// chain is a ledger in memory by virtual time, with the rules of the payment channel actor: a message is applied some epochs after it was
// submitted, and known to be when it is deep enough. It outlives the nodes.
type chain struct {
	start       time.Time
	epoch       time.Duration
	settleDelay abi.ChainEpoch
	finality    abi.ChainEpoch

	mu       sync.Mutex // never held across a wait
	balances map[address.Address]abi.TokenAmount
	channels map[address.Address]*paych.ChannelInfo
	intents  map[uuid.UUID]cid.Cid
	messages map[cid.Cid]*message
	pool     []*message // not applied yet, in their order
	made     uint64
}

// message is a change on its way, and then its receipt.
type message struct {
	op      paych.Op
	at      abi.ChainEpoch // that applies it
	receipt *paych.Receipt
}

func newChain(epoch time.Duration) *chain {
	return &chain{start: time.Now(), epoch: epoch, settleDelay: 30, finality: 1, balances: map[address.Address]abi.TokenAmount{},
		channels: map[address.Address]*paych.ChannelInfo{}, intents: map[uuid.UUID]cid.Cid{}, messages: map[cid.Cid]*message{}}
}

func (c *chain) fund(a address.Address, amount abi.TokenAmount) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.balances[a] = big.Add(c.balance(a), amount)
}

// balance is what an account has; mu is held.
func (c *chain) balance(a address.Address) abi.TokenAmount {
	if b, ok := c.balances[a]; ok {
		return b
	}
	return big.Zero()
}

// advance applies what is due and returns the present epoch; mu is held.
func (c *chain) advance() abi.ChainEpoch {
	now := abi.ChainEpoch(time.Since(c.start)/c.epoch) + firstEpoch
	for len(c.pool) > 0 && c.pool[0].at <= now {
		m := c.pool[0]
		c.pool = c.pool[1:]
		m.receipt = &paych.Receipt{Epoch: m.at, Channel: m.op.Channel}
		if code, text := c.apply(m.op, m.at, m.receipt); code != exitcode.Ok {
			m.receipt.ExitCode, m.receipt.Message = code, text
		}
	}
	return now
}

// firstEpoch is the epoch at the start of the chain.
const firstEpoch = 100

// timeOf is when an epoch begins.
func (c *chain) timeOf(e abi.ChainEpoch) time.Time {
	return c.start.Add(time.Duration(e-firstEpoch) * c.epoch)
}

// apply runs a message by the rules of the actor; mu is held.
func (c *chain) apply(op paych.Op, at abi.ChainEpoch, r *paych.Receipt) (exitcode.ExitCode, string) {
	if op.Kind == paych.OpCreate || op.Kind == paych.OpAddFunds {
		return c.deposit(op, at, r)
	}
	info := c.channels[op.Channel]
	switch {
	case info == nil || info.Collected:
		return exitcode.SysErrInvalidReceiver, "no such channel"
	case op.From != info.From && op.From != info.To:
		return exitcode.ErrForbidden, "not a party"
	}
	switch op.Kind {
	case paych.OpRedeem:
		return redeem(info, op, at)
	case paych.OpSettle:
		if info.SettlingAt != 0 {
			return exitcode.ErrIllegalState, "already settling"
		}
		info.SettlingAt = max(at+c.settleDelay, info.MinSettleHeight)
	case paych.OpCollect:
		if info.SettlingAt == 0 || at < info.SettlingAt {
			return exitcode.ErrForbidden, "not settled"
		}
		c.balances[info.To] = big.Add(c.balance(info.To), info.ToSend)
		c.balances[info.From] = big.Add(c.balance(info.From), big.Sub(info.Balance, info.ToSend))
		info.Collected = true
	default:
		return exitcode.SysErrInvalidMethod, "no such method"
	}
	return exitcode.Ok, ""
}

func (c *chain) deposit(op paych.Op, at abi.ChainEpoch, r *paych.Receipt) (exitcode.ExitCode, string) {
	if c.balance(op.From).LessThan(op.Value) {
		return exitcode.SysErrInsufficientFunds, "not enough funds"
	}
	info := c.channels[op.Channel]
	if op.Kind == paych.OpCreate {
		c.made++
		ch, err := address.NewActorAddress(binary.BigEndian.AppendUint64([]byte("channel"), c.made))
		if err != nil {
			return exitcode.ErrSerialization, err.Error()
		}
		info = &paych.ChannelInfo{Address: ch, From: op.From, To: op.To, Balance: big.Zero(), ToSend: big.Zero(), OpenedAt: at, Lanes: map[uint64]paych.LaneInfo{}}
		c.channels[ch], r.Channel = info, ch
	}
	if info == nil || info.Collected {
		return exitcode.SysErrInvalidReceiver, "no such channel"
	}
	c.balances[op.From] = big.Sub(c.balance(op.From), op.Value)
	info.Balance = big.Add(info.Balance, op.Value)
	return exitcode.Ok, ""
}

func redeem(info *paych.ChannelInfo, op paych.Op, at abi.ChainEpoch) (exitcode.ExitCode, string) {
	v := op.Voucher
	lane, known := info.Lanes[v.Lane]
	if !known {
		lane.Redeemed = big.Zero()
	}
	switch {
	case op.From != info.To, v.ChannelAddr != info.Address, v.Signature == nil, len(v.Merges) > 0:
		return exitcode.ErrIllegalArgument, "not a voucher of the channel"
	case info.SettlingAt != 0 && at >= info.SettlingAt:
		return exitcode.FirstActorErrorCode, "settled"
	case known && lane.Nonce >= v.Nonce:
		return exitcode.ErrIllegalArgument, "old nonce"
	}
	if err := paych.VerifyVoucher(v, info.From); err != nil {
		return exitcode.ErrIllegalArgument, err.Error()
	}
	toSend := big.Add(info.ToSend, big.Sub(v.Amount, lane.Redeemed))
	if toSend.Sign() < 0 || toSend.GreaterThan(info.Balance) {
		return exitcode.ErrIllegalArgument, "more than the channel has"
	}
	info.ToSend, info.Lanes[v.Lane] = toSend, paych.LaneInfo{Redeemed: v.Amount, Nonce: v.Nonce}
	return exitcode.Ok, ""
}

// money is the sum of all accounts and channels: it never changes.
func (c *chain) money() abi.TokenAmount {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advance()
	sum := big.Zero()
	for _, b := range c.balances {
		sum = big.Add(sum, b)
	}
	for _, info := range c.channels {
		if !info.Collected {
			sum = big.Add(sum, info.Balance)
		}
	}
	return sum
}

// all lists the channels.
func (c *chain) all() (out []paych.ChannelInfo) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advance()
	for _, info := range c.channels {
		out = append(out, copied(info))
	}
	return out
}

func copied(info *paych.ChannelInfo) paych.ChannelInfo {
	out := *info
	out.Lanes = maps.Clone(info.Lanes)
	return out
}

// view is the chain as one run of a node sees it: down is why it cannot be reached now.
type view struct {
	*chain
	down func() error
}

var _ paych.Chain = view{}

// Head implements paych.Head.
func (v view) Head(context.Context) ([]byte, abi.ChainEpoch, error) {
	if err := v.down(); err != nil {
		return nil, 0, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return nil, v.advance(), nil
}

// Finality implements paych.Head.
func (v view) Finality() abi.ChainEpoch { return v.finality }

// Timing implements paych.Head.
func (v view) Timing(context.Context) (paych.Timing, error) {
	return paych.Timing{Epoch: v.epoch, SettleDelay: v.settleDelay, Dev: true}, nil
}

// ResolveKey implements paych.Reader.
func (v view) ResolveKey(_ context.Context, a address.Address) (address.Address, error) {
	return a, nil
}

// Channel implements paych.Reader.
func (v view) Channel(_ context.Context, ch address.Address) (*paych.ChannelInfo, error) {
	if err := v.down(); err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.advance()
	info := v.channels[ch]
	if info == nil {
		return nil, fmt.Errorf("%w: %s", paych.ErrUnknownChannel, ch)
	}
	out := copied(info)
	return &out, nil
}

// Balance implements paych.Reader.
func (v view) Balance(_ context.Context, a address.Address) (abi.TokenAmount, error) {
	if err := v.down(); err != nil {
		return big.Zero(), err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.advance()
	return v.balance(a), nil
}

// Submit implements paych.Submitter.
func (v view) Submit(_ context.Context, op paych.Op) (cid.Cid, error) {
	if err := v.down(); err != nil {
		return cid.Undef, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.advance()
	if msg, ok := v.intents[op.Intent]; ok {
		return msg, nil
	}
	msg, err := cid.V1Builder{Codec: cid.DagCBOR, MhType: mh.SHA2_256}.Sum(op.Intent[:])
	if err != nil {
		return cid.Undef, err
	}
	m := &message{op: op, at: now + 1}
	v.intents[op.Intent], v.messages[msg] = msg, m
	v.pool = append(v.pool, m)
	return msg, nil
}

// receipt is that of a final message, nil before.
func (v view) receipt(msg cid.Cid) (*paych.Receipt, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now, m := v.advance(), v.messages[msg]
	switch {
	case m == nil:
		return nil, fmt.Errorf("message %s is unknown", msg)
	case m.receipt == nil || now < m.at+v.finality:
		return nil, nil
	default:
		return m.receipt, nil
	}
}

// Wait implements paych.Submitter.
func (v view) Wait(ctx context.Context, msg cid.Cid) (*paych.Receipt, error) {
	for {
		if err := v.down(); err != nil {
			return nil, err
		}
		receipt, err := v.receipt(msg)
		if err != nil || receipt != nil {
			return receipt, err
		}
		t := time.NewTimer(v.epoch)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		}
	}
}

// Lookup implements paych.Submitter.
func (v view) Lookup(_ context.Context, _ address.Address, intent uuid.UUID) (cid.Cid, error) {
	if err := v.down(); err != nil {
		return cid.Undef, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.intents[intent], nil
}
