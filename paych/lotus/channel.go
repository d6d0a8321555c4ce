package lotus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/filecoin-project/go-address"
	amt "github.com/filecoin-project/go-amt-ipld/v4"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	cbor "github.com/ipfs/go-ipld-cbor"
	cbg "github.com/whyrusleeping/cbor-gen"

	pay "github.com/cartage-dev/cartage/paych"
)

// errNothing is an answer of null where there has to be something.
var errNothing = errors.New("the Lotus node answers nothing")

// gone tells whether an error says that there is no actor.
func gone(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "actor not found") || strings.Contains(err.Error(), "actor code is not account"))
}

func (c *Chain) actor(ctx context.Context, ch address.Address, at []cid.Cid) (*ActorState, error) {
	a, err := read(ctx, c, func(ctx context.Context) (*ActorState, error) { return c.api.StateReadState(ctx, ch, at) })
	if err == nil && a == nil {
		err = errNothing
	}
	return a, err
}

// Channel implements paych.Reader. An actor that is gone although its address is known to the chain was collected.
func (c *Chain) Channel(ctx context.Context, ch address.Address) (*pay.ChannelInfo, error) {
	h, err := c.head(ctx)
	if err != nil {
		return nil, err
	}
	a, err := c.actor(ctx, ch, h.Cids)
	if gone(err) {
		_, lerr := read(ctx, c, func(ctx context.Context) (address.Address, error) { return c.api.StateLookupID(ctx, ch, h.Cids) })
		if lerr == nil {
			return &pay.ChannelInfo{Address: ch, Balance: big.Zero(), ToSend: big.Zero(), Collected: true, Lanes: map[uint64]pay.LaneInfo{}}, nil
		}
		if gone(lerr) {
			return nil, fmt.Errorf("%w: %s", pay.ErrUnknownChannel, ch)
		}
		err = lerr
	}
	if err != nil {
		return nil, err
	}
	var s ChannelState
	if err := json.Unmarshal(a.State, &s); err != nil {
		return nil, fmt.Errorf("%w: the state of %s is none of a payment channel: %w", pay.ErrUnknownChannel, ch, err)
	}
	if !s.LaneStates.Defined() {
		return nil, fmt.Errorf("%w: the state of %s is none of a payment channel", pay.ErrUnknownChannel, ch)
	}
	info := &pay.ChannelInfo{Address: ch, Balance: a.Balance, ToSend: s.ToSend, SettlingAt: s.SettlingAt, MinSettleHeight: s.MinSettleHeight}
	if info.From, err = c.ResolveKey(ctx, s.From); err != nil {
		return nil, err
	}
	if info.To, err = c.ResolveKey(ctx, s.To); err != nil {
		return nil, err
	}
	if info.Lanes, err = c.lanes(ctx, s.LaneStates); err != nil {
		return nil, fmt.Errorf("lanes of %s: %w", ch, err)
	}
	deep, err := c.isDeep(ctx, ch, h.Height)
	if !deep {
		info.OpenedAt = h.Height
	}
	return info, err
}

// isDeep tells whether a channel was there already as many epochs ago as a message needs to count.
func (c *Chain) isDeep(ctx context.Context, ch address.Address, height abi.ChainEpoch) (bool, error) {
	c.mu.Lock()
	deep := c.deep[ch]
	c.mu.Unlock()
	if deep || height <= confidence {
		return deep, nil
	}
	t, err := read(ctx, c, func(ctx context.Context) (*TipSet, error) {
		return c.api.ChainGetTipSetByHeight(ctx, height-confidence, nil)
	})
	if err == nil && t == nil {
		err = errNothing
	}
	if err != nil {
		return false, err
	}
	switch _, err := c.actor(ctx, ch, t.Cids); {
	case gone(err):
		return false, nil
	case err != nil:
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deep[ch] = true
	return true, nil
}

// objects reads the nodes of an AMT out of the chain.
type objects struct {
	ctx context.Context
	c   *Chain
}

// Get implements the blockstore of an IPLD store.
func (o objects) Get(ctx context.Context, k cid.Cid) (blocks.Block, error) {
	data, err := read(ctx, o.c, func(ctx context.Context) ([]byte, error) { return o.c.api.ChainReadObj(ctx, k) })
	if err != nil {
		return nil, err
	}
	got, err := k.Prefix().Sum(data)
	if err != nil || !got.Equals(k) {
		return nil, fmt.Errorf("the Lotus node answers other bytes for %s (%w)", k, errors.Join(err, errWrongObject))
	}
	return blocks.NewBlockWithCid(data, k)
}

var errWrongObject = errors.New("the object is not what its CID says")

// Put implements the blockstore of an IPLD store.
func (objects) Put(context.Context, blocks.Block) error { return errors.New("the chain is read only") }

// maxLanes bounds what is read of a channel.
const maxLanes = 1 << 16

func (c *Chain) lanes(ctx context.Context, root cid.Cid) (map[uint64]pay.LaneInfo, error) {
	store := cbor.NewCborStore(objects{ctx, c})
	arr, err := amt.LoadAMT(ctx, store, root, amt.UseTreeBitWidth(paych.LaneStatesAmtBitwidth))
	if err != nil {
		return nil, err
	}
	if arr.Len() > maxLanes {
		return nil, fmt.Errorf("%w: %d lanes", pay.ErrLaneLimit, arr.Len())
	}
	out := map[uint64]pay.LaneInfo{}
	err = arr.ForEach(ctx, func(i uint64, v *cbg.Deferred) error {
		var l paych.LaneState
		if err := l.UnmarshalCBOR(bytes.NewReader(v.Raw)); err != nil {
			return err
		}
		out[i] = pay.LaneInfo{Redeemed: l.Redeemed, Nonce: l.Nonce}
		return nil
	})
	return out, err
}
