package storagedeal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/builtin/v9/market"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/store"
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

// pushes is the store of a client's online deals: all under /pushes, and the names of those that a start goes on with under /running.
type pushes struct{ ds datastore.Batching }

func pushKey(c cid.Cid) datastore.Key    { return datastore.NewKey("/pushes/" + c.String()) }
func runningKey(c cid.Cid) datastore.Key { return datastore.NewKey("/running/" + c.String()) }

// put stores a push durably.
func (p pushes) put(ctx context.Context, r Push) error {
	created := uint64(r.Created.Unix())
	data, err := wire.EncodeTuple(r.fields(&created))
	if err != nil {
		return err
	}
	b, err := p.ds.Batch(ctx)
	if err != nil {
		return err
	}
	err = b.Put(ctx, pushKey(r.Proposal), data)
	if r.State.Pushing() {
		err = errors.Join(err, b.Put(ctx, runningKey(r.Proposal), nil))
	} else {
		err = errors.Join(err, b.Delete(ctx, runningKey(r.Proposal)))
	}
	if err = errors.Join(err, b.Commit(ctx)); err != nil {
		return fmt.Errorf("store push of deal %s: %w", r.Proposal, err)
	}
	return p.ds.Sync(ctx, datastore.NewKey("/"))
}

func decodePush(data []byte) (p Push, err error) {
	var created uint64
	if err := wire.DecodeTuple(data, "push of a storage deal", p.fields(&created)); err != nil {
		return p, err
	}
	p.Created = time.Unix(int64(created), 0)
	return p, nil
}

func (p pushes) get(ctx context.Context, c cid.Cid) (Push, error) {
	data, err := p.ds.Get(ctx, pushKey(c))
	if errors.Is(err, datastore.ErrNotFound) {
		return Push{}, fmt.Errorf("%w: no data is pushed for proposal %s", ErrUnknownDeal, c)
	}
	if err != nil {
		return Push{}, err
	}
	return decodePush(data)
}

func (p pushes) list(ctx context.Context) (out []Push, err error) {
	err = store.Each(ctx, p.ds, "/pushes", func(key string, value []byte) error {
		r, err := decodePush(value)
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		out = append(out, r)
		return nil
	})
	return out, err
}

// running are the pushes that a stop interrupted.
func (p pushes) running(ctx context.Context) (out []Push, err error) {
	names, err := names(ctx, p.ds, "/running")
	for _, c := range names {
		r, gerr := p.get(ctx, c)
		if err = errors.Join(err, gerr); gerr == nil {
			out = append(out, r)
		}
	}
	return out, err
}
