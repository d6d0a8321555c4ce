package storagedeal

import (
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/builtin/v9/market"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/internal/wire"
)

// Deal is what a provider keeps of a deal.
type Deal struct {
	ProposalCid   cid.Cid
	Proposal      market.ClientDealProposal
	Ref           DataRef
	FastRetrieval bool
	Client        peer.ID
	State         State
	Message       string
	DealID        abi.DealID // after publishing
	Created       time.Time
}

func (d *Deal) fields(created *uint64) []wire.Field {
	return []wire.Field{
		wire.Cid("proposalCid", &d.ProposalCid), wire.Object("proposal", &d.Proposal), wire.Tuple("ref", d.Ref.fields(asMaps)),
		wire.Bool("fastRetrieval", &d.FastRetrieval), wire.Peer("client", &d.Client), wire.Uint("state", &d.State),
		wire.Text("message", &d.Message), wire.Uint("dealId", &d.DealID), wire.Uint("created", created),
	}
}

func (d *Deal) proposal() cid.Cid     { return d.ProposalCid }
func (d *Deal) createdAt() *time.Time { return &d.Created }

// isUnfinished tells of a deal whose data was arriving, was looked at, or was there and not published.
func (d *Deal) isUnfinished() bool {
	return d.State == StorageDealTransferring || d.State == StorageDealVerifyData || d.State == StorageDealPublish
}

// newDealStore is the store of a provider's deals.
func newDealStore(ds datastore.Batching) recordStore[Deal, *Deal] {
	return recordStore[Deal, *Deal]{ds, "/deals", "/unfinished"}
}
