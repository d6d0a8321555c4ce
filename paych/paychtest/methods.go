package paychtest

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/paych/lotus"
)

// methods are the methods of the API.
type methods struct{ n *SimulatedLotus }

func (m *methods) tipset(h abi.ChainEpoch) *lotus.TipSet {
	at := time.Now().Add(-m.n.age)
	return &lotus.TipSet{Cids: m.n.tipset(h), Blocks: []lotus.Block{{Timestamp: uint64(at.Unix())}}, Height: h}
}

// ChainHead answers Filecoin.ChainHead.
func (m *methods) ChainHead(context.Context) (*lotus.TipSet, error) {
	m.n.mu.Lock()
	defer m.n.mu.Unlock()
	return m.tipset(m.n.height()), nil
}

// ChainGetTipSetByHeight answers Filecoin.ChainGetTipSetByHeight.
func (m *methods) ChainGetTipSetByHeight(_ context.Context, h abi.ChainEpoch, _ []cid.Cid) (*lotus.TipSet, error) {
	m.n.mu.Lock()
	defer m.n.mu.Unlock()
	if h < 0 || h > m.n.height() {
		return nil, fmt.Errorf("looking for tipset with height %d, the head is at %d", h, m.n.height())
	}
	return m.tipset(h), nil
}

// ChainGetMessage answers Filecoin.ChainGetMessage.
func (m *methods) ChainGetMessage(_ context.Context, c cid.Cid) (*lotus.Message, error) {
	m.n.mu.Lock()
	defer m.n.mu.Unlock()
	for _, p := range m.n.sent {
		if p.cid.Equals(c) {
			return &p.msg, nil
		}
	}
	return nil, fmt.Errorf("message %s not found", c)
}

// ChainReadObj answers Filecoin.ChainReadObj.
func (m *methods) ChainReadObj(_ context.Context, c cid.Cid) ([]byte, error) {
	m.n.mu.Lock()
	defer m.n.mu.Unlock()
	data, ok := m.n.objects[c]
	if !ok {
		return nil, fmt.Errorf("blockstore get: ipld: could not find %s", c)
	}
	return data, nil
}

// StateAccountKey answers Filecoin.StateAccountKey.
func (m *methods) StateAccountKey(_ context.Context, a address.Address, _ []cid.Cid) (address.Address, error) {
	m.n.mu.Lock()
	defer m.n.mu.Unlock()
	id, ok := m.n.ids[a]
	if !ok {
		return address.Undef, fmt.Errorf("resolution lookup failed (%s): resolve address %s: actor not found", a, a)
	}
	return m.n.keyOf(id), nil
}

// StateLookupID answers Filecoin.StateLookupID.
func (m *methods) StateLookupID(_ context.Context, a address.Address, at []cid.Cid) (address.Address, error) {
	m.n.mu.Lock()
	defer m.n.mu.Unlock()
	s, err := m.n.at(at)
	if err != nil {
		return address.Undef, err
	}
	if id, ok := s.made[a]; ok {
		return id, nil
	}
	if id, ok := m.n.ids[a]; ok {
		return id, nil
	}
	return address.Undef, fmt.Errorf("resolve address %s: actor not found", a)
}

// StateReadState answers Filecoin.StateReadState.
func (m *methods) StateReadState(ctx context.Context, a address.Address, at []cid.Cid) (*lotus.ActorState, error) {
	m.n.mu.Lock()
	defer m.n.mu.Unlock()
	s, err := m.n.at(at)
	if err != nil {
		return nil, err
	}
	c := s.channels[a]
	if c == nil {
		return nil, fmt.Errorf("getting actor: actor not found: %s", a)
	}
	root, err := m.n.laneTable(ctx, c)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(lotus.ChannelState{From: c.from, To: c.to, ToSend: c.toSend, SettlingAt: c.settlingAt, MinSettleHeight: c.minSettle, LaneStates: root})
	return &lotus.ActorState{Balance: c.balance, Code: m.n.code, State: raw}, err
}

// StateNetworkVersion answers Filecoin.StateNetworkVersion.
func (m *methods) StateNetworkVersion(context.Context, []cid.Cid) (uint, error) { return 25, nil }

// StateActorCodeCIDs answers Filecoin.StateActorCodeCIDs.
func (m *methods) StateActorCodeCIDs(_ context.Context, v uint) (map[string]cid.Cid, error) {
	if v != 25 {
		return nil, fmt.Errorf("unknown network version %d", v)
	}
	return map[string]cid.Cid{"paymentchannel": m.n.code}, nil
}

// WalletBalance answers Filecoin.WalletBalance.
func (m *methods) WalletBalance(_ context.Context, a address.Address) (big.Int, error) {
	m.n.mu.Lock()
	defer m.n.mu.Unlock()
	b, ok := m.n.states[len(m.n.states)-1].balances[m.n.ids[a]]
	if !ok {
		return big.Zero(), nil
	}
	return b, nil
}

// WalletHas answers Filecoin.WalletHas.
func (m *methods) WalletHas(_ context.Context, a address.Address) (bool, error) {
	m.n.mu.Lock()
	defer m.n.mu.Unlock()
	return m.n.wallet[a], nil
}

// MpoolPushMessage answers Filecoin.MpoolPushMessage: the same uuid is the same message.
func (m *methods) MpoolPushMessage(_ context.Context, msg *lotus.Message, spec *lotus.SendSpec) (*lotus.SignedMessage, error) {
	n := m.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if spec == nil || spec.MsgUuid == "" {
		return nil, fmt.Errorf("this node wants a MsgUuid")
	}
	if p, ok := n.sent[spec.MsgUuid]; ok {
		return &lotus.SignedMessage{Message: p.msg, CID: p.cid}, nil
	}
	if !n.wallet[msg.From] {
		return nil, fmt.Errorf("mpool push: failed to sign message: failed to find key to sign with: wallet does not have key for address %s", msg.From)
	}
	s := n.states[len(n.states)-1]
	if s.balances[n.ids[msg.From]].LessThan(msg.Value) {
		return nil, fmt.Errorf("mpool push: not enough funds: %s < %s", s.balances[n.ids[msg.From]], msg.Value)
	}
	if !n.fee.Nil() && spec.MaxFee.Sign() > 0 && spec.MaxFee.LessThan(n.fee) {
		return nil, fmt.Errorf("mpool push: message will not be included in a block: 'GasFeeCap' less than base fee: MaxFee %s, needed %s", spec.MaxFee, n.fee)
	}
	p := pending{msg: *msg, uuid: spec.MsgUuid}
	p.msg.Nonce = s.nonces[n.ids[msg.From]] + uint64(len(n.pool))
	p.msg.GasLimit = 1
	data, err := json.Marshal(p.msg)
	if err != nil {
		return nil, err
	}
	p.cid = hashed(cid.DagCBOR, binary.BigEndian.AppendUint64(data, uint64(len(n.sent))))
	n.sent[p.uuid] = p
	n.pool = append(n.pool, p)
	n.news.Broadcast()
	return &lotus.SignedMessage{Message: p.msg, CID: p.cid}, nil
}

// StateWaitMsg answers Filecoin.StateWaitMsg when the message is deep enough.
func (m *methods) StateWaitMsg(ctx context.Context, msg cid.Cid, confidence uint64, _ abi.ChainEpoch, _ bool) (*lotus.MsgLookup, error) {
	n := m.n
	stop := context.AfterFunc(ctx, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.news.Broadcast()
	})
	defer stop()
	n.mu.Lock()
	defer n.mu.Unlock()
	for ctx.Err() == nil && !n.away {
		for h, s := range n.states {
			if l, ok := s.receipts[msg]; ok && n.height() >= abi.ChainEpoch(h)+abi.ChainEpoch(confidence) {
				return &l, nil
			}
		}
		n.news.Wait()
	}
	return nil, fmt.Errorf("sendRequest failed: the node went away: EOF")
}
