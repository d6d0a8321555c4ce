package storagedeal

import (
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/builtin/v9/market"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/wire"
)

// Push is what a client keeps of an online deal.
type Push struct {
	Proposal      cid.Cid
	Deal          market.ClientDealProposal
	Ref           DataRef
	FastRetrieval bool
	Wallet        address.Address // that signed the proposal
	Peer          peer.ID
	// State is StartDataTransfer until the provider waits for the data, then Transferring; CheckForAcceptance when all was sent, and Error,
	// with a message, when it does not go on by itself.
	State   State
	Message string
	Created time.Time
	Channel dt.TransferID // of the last channel; 0 before there is one
	Sent    uint64        // bytes of blocks on it; not stored
}

// Miner is the provider.
func (p *Push) Miner() address.Address { return p.Deal.Proposal.Provider }

// Pushing tells whether the data is on its way.
func (s State) Pushing() bool {
	return s == StorageDealStartDataTransfer || s == StorageDealTransferring
}

func (p *Push) fields(created *uint64) []wire.Field {
	return []wire.Field{
		wire.Cid("proposal", &p.Proposal), wire.Object("deal", &p.Deal), wire.Tuple("ref", p.Ref.fields(asMaps)), wire.Bool("fastRetrieval", &p.FastRetrieval),
		wire.Address("wallet", &p.Wallet), wire.Peer("peer", &p.Peer),
		wire.Uint("state", &p.State), wire.Text("message", &p.Message), wire.Uint("created", created),
		wire.Uint("channel", &p.Channel),
	}
}

func (p *Push) proposal() cid.Cid     { return p.Proposal }
func (p *Push) createdAt() *time.Time { return &p.Created }
func (p *Push) isUnfinished() bool    { return p.State.Pushing() }

// newPushStore is the store of a client's online deals.
func newPushStore(ds datastore.Batching) recordStore[Push, *Push] {
	return recordStore[Push, *Push]{ds, "/pushes", "/running"}
}
