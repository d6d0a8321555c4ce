package paych_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/exitcode"
	"github.com/google/uuid"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	cpaych "github.com/cartage-dev/cartage/paych"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("go.opencensus.io/stats/view.(*worker).start"))
}

// fakeChain keeps accounts and channels in maps. Messages land when the test lets them, or at once.
type fakeChain struct {
	mu       sync.Mutex
	epoch    abi.ChainEpoch
	depth    abi.ChainEpoch
	balances map[address.Address]abi.TokenAmount
	channels map[address.Address]*cpaych.ChannelInfo
	intents  map[uuid.UUID]cid.Cid
	ops      []cpaych.Op
	receipts map[cid.Cid]*cpaych.Receipt
	gate     chan struct{}         // closed when messages may land; nil: at once
	refuse   func(cpaych.Op) error // an error before anything happened
	lose     func(cpaych.Op) error // the answer gets lost, the message does not
	code     func(cpaych.Op) exitcode.ExitCode
	away     error
	timing   cpaych.Timing
	reads    *int // counts the calls of Channel
}

func newFakeChain() *fakeChain {
	return &fakeChain{epoch: 100, timing: cpaych.Timing{Epoch: 30 * time.Second, SettleDelay: 1440}, balances: map[address.Address]abi.TokenAmount{}, channels: map[address.Address]*cpaych.ChannelInfo{},
		intents: map[uuid.UUID]cid.Cid{}, receipts: map[cid.Cid]*cpaych.Receipt{}}
}

func (c *fakeChain) Head(context.Context) ([]byte, abi.ChainEpoch, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return nil, c.epoch, c.away
}

func (c *fakeChain) Finality() abi.ChainEpoch { return c.depth }

func (c *fakeChain) Timing(context.Context) (cpaych.Timing, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.timing, c.away
}

func (c *fakeChain) ResolveKey(_ context.Context, a address.Address) (address.Address, error) {
	return a, nil
}

func (c *fakeChain) Channel(_ context.Context, ch address.Address) (*cpaych.ChannelInfo, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reads != nil {
		*c.reads++
	}
	if c.away != nil {
		return nil, c.away
	}
	i := c.channels[ch]
	if i == nil {
		return nil, fmt.Errorf("%w: %s", cpaych.ErrUnknownChannel, ch)
	}
	out := *i
	return &out, nil
}

func (c *fakeChain) Balance(_ context.Context, a address.Address) (abi.TokenAmount, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b, ok := c.balances[a]; ok {
		return b, c.away
	}
	return big.Zero(), c.away
}

func (c *fakeChain) Submit(_ context.Context, op cpaych.Op) (cid.Cid, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id, ok := c.intents[op.Intent]; ok {
		return id, nil
	}
	if c.away != nil {
		return cid.Undef, c.away
	}
	if c.refuse != nil {
		if err := c.refuse(op); err != nil {
			return cid.Undef, err
		}
	}
	id, err := cid.V1Builder{Codec: cid.DagCBOR, MhType: mh.SHA2_256}.Sum(op.Intent[:])
	if err != nil {
		return cid.Undef, err
	}
	c.intents[op.Intent] = id
	c.ops = append(c.ops, op)
	c.receipts[id] = c.apply(op)
	if c.lose != nil {
		if err := c.lose(op); err != nil {
			return cid.Undef, err
		}
	}
	return id, nil
}

func (c *fakeChain) apply(op cpaych.Op) *cpaych.Receipt {
	r := &cpaych.Receipt{Epoch: c.epoch, Channel: op.Channel}
	if c.code != nil {
		if r.ExitCode = c.code(op); r.ExitCode != 0 {
			r.Message = "as the test wishes"
			return r
		}
	}
	switch op.Kind {
	case cpaych.OpCreate:
		r.Channel, _ = address.NewActorAddress(binary.BigEndian.AppendUint64(nil, uint64(len(c.ops))))
		c.channels[r.Channel] = &cpaych.ChannelInfo{Address: r.Channel, From: op.From, To: op.To, Balance: op.Value, ToSend: big.Zero(),
			OpenedAt: c.epoch, Lanes: map[uint64]cpaych.LaneInfo{}}
		c.balances[op.From] = big.Sub(c.balances[op.From], op.Value)
	case cpaych.OpAddFunds:
		c.channels[op.Channel].Balance = big.Add(c.channels[op.Channel].Balance, op.Value)
		c.balances[op.From] = big.Sub(c.balances[op.From], op.Value)
	case cpaych.OpRedeem:
		i := c.channels[op.Channel]
		i.ToSend = big.Add(i.ToSend, big.Sub(op.Voucher.Amount, orZero(i.Lanes[op.Voucher.Lane].Redeemed)))
		lanes := map[uint64]cpaych.LaneInfo{op.Voucher.Lane: {Redeemed: op.Voucher.Amount, Nonce: op.Voucher.Nonce}}
		for n, l := range i.Lanes {
			if n != op.Voucher.Lane {
				lanes[n] = l
			}
		}
		i.Lanes = lanes
	case cpaych.OpSettle:
		c.channels[op.Channel].SettlingAt = c.epoch + 1440
	case cpaych.OpCollect:
		c.channels[op.Channel].Collected = true
	}
	return r
}

func orZero(a abi.TokenAmount) abi.TokenAmount {
	if a.Nil() {
		return big.Zero()
	}
	return a
}

func (c *fakeChain) Wait(ctx context.Context, msg cid.Cid) (*cpaych.Receipt, error) {
	c.mu.Lock()
	gate, r, away := c.gate, c.receipts[msg], c.away
	c.mu.Unlock()
	if away != nil {
		return nil, away
	}
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if r == nil {
		return nil, fmt.Errorf("message %s is unknown", msg)
	}
	return r, nil
}

func (c *fakeChain) Lookup(_ context.Context, _ address.Address, intent uuid.UUID) (cid.Cid, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.intents[intent], c.away
}

func (c *fakeChain) sent(kind cpaych.OpKind) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, op := range c.ops {
		if op.Kind == kind {
			n++
		}
	}
	return n
}

func (c *fakeChain) set(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// keyring is keys in memory.
type keyring map[address.Address]*cpaych.Key

func newKeyring(t testing.TB) (keyring, address.Address) {
	k, err := cpaych.NewKey()
	require.NoError(t, err)
	return keyring{k.Address: k}, k.Address
}

func (r keyring) Has(a address.Address) bool { return r[a] != nil }

func (r keyring) Key(a address.Address) (*cpaych.Key, error) {
	if k := r[a]; k != nil {
		return k, nil
	}
	return nil, fmt.Errorf("%w: %s", cpaych.ErrNoKey, a)
}
