package paych

import (
	"context"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/filecoin-project/go-state-types/exitcode"
	"github.com/google/uuid"
	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/internal/reason"
)

// Chain is what the manager needs of a ledger. All methods are safe for concurrent use.
type Chain interface {
	Head
	Reader
	Submitter
}

// Head tells where the chain is.
type Head interface {
	// Head returns an opaque token of the present state and the epoch.
	Head(ctx context.Context) (token []byte, epoch abi.ChainEpoch, err error)
	// Finality is how many epochs deep a message must be to count.
	Finality() abi.ChainEpoch
	// Timing is the pace of the chain: it never changes.
	Timing(ctx context.Context) (Timing, error)
}

// Reader reads the state.
type Reader interface {
	// ResolveKey returns the f1 or f3 form of an address.
	ResolveKey(ctx context.Context, addr address.Address) (address.Address, error)
	// Channel returns a payment channel, or an error that wraps ErrUnknownChannel.
	Channel(ctx context.Context, ch address.Address) (*ChannelInfo, error)
	// Balance is what an account can spend; an unknown account has none.
	Balance(ctx context.Context, addr address.Address) (abi.TokenAmount, error)
}

// Submitter changes the state. The same intent submitted twice is one change.
type Submitter interface {
	Submit(ctx context.Context, op Op) (cid.Cid, error)
	// Wait returns the receipt once the message is final.
	Wait(ctx context.Context, msg cid.Cid) (*Receipt, error)
	// Lookup returns what an intent became, or undefined when it never arrived.
	Lookup(ctx context.Context, from address.Address, intent uuid.UUID) (cid.Cid, error)
}

// OpKind is a kind of change.
type OpKind uint64

// The kinds of changes.
const (
	OpCreate OpKind = iota + 1
	OpAddFunds
	OpRedeem
	OpSettle
	OpCollect
)

// Op is a change: create a channel from From to To with Value, or one on Channel by From.
type Op struct {
	Kind    OpKind
	From    address.Address
	To      address.Address
	Channel address.Address
	Value   abi.TokenAmount
	Voucher *paych.SignedVoucher
	Secret  []byte
	Intent  uuid.UUID
	MaxFee  abi.TokenAmount // that the message may cost; zero or nil: what the chain wants
}

// Receipt is the outcome of a change.
type Receipt struct {
	ExitCode exitcode.ExitCode
	Message  string
	Channel  address.Address // of a create
	Epoch    abi.ChainEpoch
}

// failureOf is the error of a change that was applied and failed.
func (r *Receipt) failureOf(msg cid.Cid) error {
	if r.ExitCode == 0 {
		return nil
	}
	why := r.Message
	if why == "" {
		why = r.ExitCode.String()
	}
	return reason.LedgerRefused.Errorf("the ledger refused message %s: %s", msg, why)
}

// ChannelInfo is the state of a payment channel on the chain. From and To are key addresses.
type ChannelInfo struct {
	Address         address.Address
	From, To        address.Address
	Balance         abi.TokenAmount
	ToSend          abi.TokenAmount
	SettlingAt      abi.ChainEpoch
	MinSettleHeight abi.ChainEpoch
	OpenedAt        abi.ChainEpoch
	Collected       bool
	Lanes           map[uint64]LaneInfo
}

// LaneInfo is what was redeemed on a lane.
type LaneInfo struct {
	Redeemed abi.TokenAmount
	Nonce    uint64
}

// Signer signs for the addresses of a wallet.
type Signer interface {
	Has(addr address.Address) bool
	Key(addr address.Address) (*Key, error)
}
