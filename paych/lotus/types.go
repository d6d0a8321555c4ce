package lotus

import (
	"context"
	"encoding/json"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/exitcode"
	"github.com/ipfs/go-cid"
)

// API are the methods of a Lotus node that are used here, with the shapes that they have on the wire (payments spec 3.9). A
// tipset key is a list of CIDs; none is the head.
type API struct {
	ChainHead              func(ctx context.Context) (*TipSet, error)
	ChainGetTipSetByHeight func(ctx context.Context, height abi.ChainEpoch, at []cid.Cid) (*TipSet, error)
	ChainGetMessage        func(ctx context.Context, msg cid.Cid) (*Message, error)
	ChainReadObj           func(ctx context.Context, c cid.Cid) ([]byte, error)
	StateAccountKey        func(ctx context.Context, a address.Address, at []cid.Cid) (address.Address, error)
	StateLookupID          func(ctx context.Context, a address.Address, at []cid.Cid) (address.Address, error)
	StateReadState         func(ctx context.Context, a address.Address, at []cid.Cid) (*ActorState, error)
	StateNetworkVersion    func(ctx context.Context, at []cid.Cid) (uint, error)
	StateActorCodeCIDs     func(ctx context.Context, version uint) (map[string]cid.Cid, error)
	StateWaitMsg           func(ctx context.Context, msg cid.Cid, confidence uint64, limit abi.ChainEpoch, replaced bool) (*MsgLookup, error)
	MpoolPushMessage       func(ctx context.Context, msg *Message, spec *SendSpec) (*SignedMessage, error)
	WalletBalance          func(ctx context.Context, a address.Address) (big.Int, error)
	WalletHas              func(ctx context.Context, a address.Address) (bool, error)
}

// Namespace of the methods.
const Namespace = "Filecoin"

// TipSet is the part of a tipset that is read here.
type TipSet struct {
	Cids   []cid.Cid
	Blocks []Block
	Height abi.ChainEpoch
}

// Block is the part of a block header that is read here: Unix seconds.
type Block struct{ Timestamp uint64 }

// ActorState is an actor with its state as JSON.
type ActorState struct {
	Balance big.Int
	Code    cid.Cid
	State   json.RawMessage
}

// ChannelState is the state of a payment channel actor as JSON. From and To are id addresses.
type ChannelState struct {
	From, To        address.Address
	ToSend          big.Int
	SettlingAt      abi.ChainEpoch
	MinSettleHeight abi.ChainEpoch
	LaneStates      cid.Cid
}

// Message is an unsigned message; the node fills in nonce and gas.
type Message struct {
	Version    uint64
	To, From   address.Address
	Nonce      uint64
	Value      big.Int
	GasLimit   int64
	GasFeeCap  big.Int
	GasPremium big.Int
	Method     abi.MethodNum
	Params     []byte
}

// SendSpec bounds what a message may cost; the same MsgUuid again is the same message.
type SendSpec struct {
	MaxFee  big.Int
	MsgUuid string
}

// SignedMessage is what became of a message.
type SignedMessage struct {
	Message Message
	CID     cid.Cid
}

// MsgLookup is a message with its receipt, at the height of the tipset that has the receipt.
type MsgLookup struct {
	Message cid.Cid
	Receipt Receipt
	TipSet  []cid.Cid
	Height  abi.ChainEpoch
}

// Receipt is the outcome of a message.
type Receipt struct {
	ExitCode exitcode.ExitCode
	Return   []byte
	GasUsed  int64
}
