package paychtest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"

	"github.com/filecoin-project/go-address"
	amt "github.com/filecoin-project/go-amt-ipld/v4"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	initactor "github.com/filecoin-project/go-state-types/builtin/v8/init"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/filecoin-project/go-state-types/exitcode"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	cbor "github.com/ipfs/go-ipld-cbor"
	mh "github.com/multiformats/go-multihash"

	"github.com/cartage-dev/cartage/internal/wire"
	pay "github.com/cartage-dev/cartage/paych"
	"github.com/cartage-dev/cartage/paych/lotus"
)

// channel is the state of a payment channel actor. States of the chain share what did not change: it is copied before a change.
type channel struct {
	id, robust      address.Address
	from, to        address.Address // ids
	balance, toSend big.Int
	settlingAt      abi.ChainEpoch
	minSettle       abi.ChainEpoch
	lanes           map[uint64]paych.LaneState
}

// state is the state of the chain after a tipset.
type state struct {
	balances map[address.Address]big.Int // by id
	channels map[address.Address]*channel
	made     map[address.Address]address.Address // robust to id of all channels that ever were; shared, copied before a change
	next     uint64                              // id
	nonces   map[address.Address]uint64
	receipts map[cid.Cid]lotus.MsgLookup // of messages in this tipset
}

func (s *state) child() *state {
	return &state{maps.Clone(s.balances), maps.Clone(s.channels), s.made, s.next, maps.Clone(s.nonces), map[cid.Cid]lotus.MsgLookup{}}
}

// pending is a message in the pool.
type pending struct {
	cid  cid.Cid
	msg  lotus.Message
	uuid string
}

// SettleDelay is how many epochs the other side of a channel has after a settle.
const SettleDelay = 1440

// hashed is the CID of some bytes, as the chain makes them.
func hashed(codec uint64, data []byte) cid.Cid {
	c, _ := cid.V1Builder{Codec: codec, MhType: mh.BLAKE2B_MIN + 31}.Sum(data)
	return c
}

// tipset is the key of the tipset at a height; a reorganisation makes others.
func (n *SimulatedLotus) tipset(h abi.ChainEpoch) []cid.Cid {
	return []cid.Cid{hashed(cid.DagCBOR, binary.BigEndian.AppendUint64([]byte(fmt.Sprint("tipset ", n.forks[h])), uint64(h)))}
}

// at returns the state of a tipset; none is the head. mu is held.
func (n *SimulatedLotus) at(key []cid.Cid) (*state, error) {
	if len(key) == 0 {
		return n.states[len(n.states)-1], nil
	}
	for h := len(n.states) - 1; h >= 0; h-- { // mostly one of the last
		if k := n.tipset(abi.ChainEpoch(h)); len(key) == 1 && k[0].Equals(key[0]) {
			return n.states[h], nil
		}
	}
	return nil, fmt.Errorf("failed to load tipset %s", key)
}

func (n *SimulatedLotus) height() abi.ChainEpoch { return abi.ChainEpoch(len(n.states) - 1) }

// Advance makes so many tipsets; the first takes all messages of the pool.
func (n *SimulatedLotus) Advance(epochs int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for range epochs {
		s := n.states[len(n.states)-1].child()
		h := abi.ChainEpoch(len(n.states))
		n.states = append(n.states, s)
		for _, p := range n.pool {
			l := lotus.MsgLookup{Message: p.cid, TipSet: n.tipset(h), Height: h}
			l.Receipt = n.apply(s, p.msg, h)
			s.receipts[p.cid] = l
		}
		n.pool = nil
	}
	n.news.Broadcast()
}

// Reorganise takes back so many tipsets, and puts the messages in them back into the pool, or forgets them.
func (n *SimulatedLotus) Reorganise(depth int, forget bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	keep := max(len(n.states)-depth, 1)
	for h := keep; h < len(n.states); h++ {
		n.forks[abi.ChainEpoch(h)]++
		for _, p := range n.sent {
			if _, ok := n.states[h].receipts[p.cid]; ok && !forget {
				n.pool = append(n.pool, p)
			}
		}
	}
	n.states = n.states[:keep]
	n.news.Broadcast()
}

// apply runs a message.
func (n *SimulatedLotus) apply(s *state, m lotus.Message, h abi.ChainEpoch) lotus.Receipt {
	if n.outOfGas > 0 {
		n.outOfGas--
		return lotus.Receipt{ExitCode: exitcode.SysErrOutOfGas, GasUsed: 9}
	}
	from := n.ids[m.From]
	s.nonces[from]++
	if s.balances[from].LessThan(m.Value) {
		return lotus.Receipt{ExitCode: exitcode.SysErrInsufficientFunds, GasUsed: 9}
	}
	trial := s.child()
	trial.balances[from] = big.Sub(trial.balances[from], m.Value)
	ret, code := n.call(trial, from, m, h)
	if code == exitcode.Ok {
		s.balances, s.channels, s.made, s.next = trial.balances, trial.channels, trial.made, trial.next
	}
	return lotus.Receipt{ExitCode: code, Return: ret, GasUsed: 9}
}

func (n *SimulatedLotus) call(s *state, from address.Address, m lotus.Message, h abi.ChainEpoch) ([]byte, exitcode.ExitCode) {
	if m.To == initID() && m.Method == 2 {
		return n.exec(s, from, m)
	}
	old := s.channels[m.To]
	if old == nil {
		if id, ok := n.ids[m.To]; ok && m.Method == 0 {
			s.balances[id] = big.Add(s.balances[id], m.Value)
			return nil, exitcode.Ok
		}
		return nil, exitcode.SysErrInvalidReceiver
	}
	c := *old
	c.lanes = maps.Clone(old.lanes)
	c.balance = big.Add(c.balance, m.Value)
	code := exitcode.Ok
	switch m.Method {
	case 0:
	case 2:
		code = n.update(&c, from, m, h)
	case 3:
		switch {
		case from != c.from && from != c.to:
			return nil, exitcode.ErrForbidden
		case c.settlingAt != 0:
			return nil, exitcode.ErrIllegalState
		}
		c.settlingAt = max(h+SettleDelay, c.minSettle)
	case 4:
		switch {
		case from != c.from && from != c.to, c.settlingAt == 0 || h < c.settlingAt:
			return nil, exitcode.ErrForbidden
		}
		s.balances[c.to] = big.Add(s.balances[c.to], c.toSend)
		s.balances[c.from] = big.Add(s.balances[c.from], big.Sub(c.balance, c.toSend))
		delete(s.channels, m.To)
		return nil, exitcode.Ok
	default:
		return nil, exitcode.SysErrInvalidMethod
	}
	if code == exitcode.Ok {
		s.channels[m.To] = &c
	}
	return nil, code
}

func initID() address.Address {
	a, _ := address.NewIDAddress(1)
	return a
}

// exec makes a payment channel actor.
func (n *SimulatedLotus) exec(s *state, from address.Address, m lotus.Message) ([]byte, exitcode.ExitCode) {
	var p initactor.ExecParams
	var ctor paych.ConstructorParams
	if wire.Decode(m.Params, &p) != nil || wire.Decode(p.ConstructorParams, &ctor) != nil || !p.CodeCID.Equals(n.code) {
		return nil, exitcode.ErrIllegalArgument
	}
	to, ok := n.ids[ctor.To]
	if !ok || n.ids[ctor.From] != from {
		return nil, exitcode.ErrIllegalArgument
	}
	id, _ := address.NewIDAddress(s.next)
	robust, _ := address.NewActorAddress(binary.BigEndian.AppendUint64([]byte("channel"), s.next<<16|s.nonces[from]))
	s.next++
	s.channels[robust] = &channel{id: id, robust: robust, from: from, to: to, balance: m.Value, toSend: big.Zero(), lanes: map[uint64]paych.LaneState{}}
	s.made = maps.Clone(s.made)
	s.made[robust] = id
	ret, err := wire.Encode(&initactor.ExecReturn{IDAddress: id, RobustAddress: robust})
	if err != nil {
		return nil, exitcode.ErrSerialization
	}
	return ret, exitcode.Ok
}

// update redeems a voucher, by the rules of the actor (payments spec 1.5) without secrets, locks and merges.
func (n *SimulatedLotus) update(c *channel, from address.Address, m lotus.Message, h abi.ChainEpoch) exitcode.ExitCode {
	var p paych.UpdateChannelStateParams
	if wire.Decode(m.Params, &p) != nil {
		return exitcode.ErrSerialization
	}
	v := p.Sv
	signer := c.from
	if from == c.from {
		signer = c.to
	} else if from != c.to {
		return exitcode.ErrForbidden
	}
	lane, known := c.lanes[v.Lane]
	if !known {
		lane = paych.LaneState{Redeemed: big.Zero()}
	}
	switch {
	case v.Signature == nil, pay.VerifyVoucher(&v, n.keyOf(signer)) != nil, v.ChannelAddr != c.robust, len(v.Merges) > 0, v.Lane > pay.MaxLane:
		return exitcode.ErrIllegalArgument
	case c.settlingAt != 0 && h >= c.settlingAt:
		return exitcode.FirstActorErrorCode
	case known && lane.Nonce >= v.Nonce:
		return exitcode.ErrIllegalArgument
	}
	toSend := big.Add(c.toSend, big.Sub(v.Amount, lane.Redeemed))
	if toSend.Sign() < 0 || toSend.GreaterThan(c.balance) {
		return exitcode.ErrIllegalArgument
	}
	c.toSend = toSend
	c.lanes[v.Lane] = paych.LaneState{Redeemed: v.Amount, Nonce: v.Nonce}
	return exitcode.Ok
}

func (n *SimulatedLotus) keyOf(id address.Address) address.Address {
	for k, i := range n.ids {
		if i == id && k.Protocol() != address.ID {
			return k
		}
	}
	return address.Undef
}

// nodes is where the nodes of lane tables lie.
type nodes struct{ m map[cid.Cid][]byte }

// Get implements the blockstore of an IPLD store.
func (o nodes) Get(_ context.Context, k cid.Cid) (blocks.Block, error) {
	data, ok := o.m[k]
	if !ok {
		return nil, errors.New("blockstore: block not found")
	}
	return blocks.NewBlockWithCid(data, k)
}

// Put implements the blockstore of an IPLD store.
func (o nodes) Put(_ context.Context, b blocks.Block) error {
	o.m[b.Cid()] = b.RawData()
	return nil
}

// laneTable is the root of the lanes of a channel. mu is held.
func (n *SimulatedLotus) laneTable(ctx context.Context, c *channel) (cid.Cid, error) {
	arr, err := amt.NewAMT(cbor.NewCborStore(nodes{n.objects}), amt.UseTreeBitWidth(paych.LaneStatesAmtBitwidth))
	if err != nil {
		return cid.Undef, err
	}
	for i, l := range c.lanes {
		if err := arr.Set(ctx, i, &l); err != nil {
			return cid.Undef, err
		}
	}
	return arr.Flush(ctx)
}
