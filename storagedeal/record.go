package storagedeal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/builtin/v9/market"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/internal/wire"
)

// ErrUnknownDeal means that a provider has no deal of a proposal.
var ErrUnknownDeal = errors.New("storage deal not found")

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

// records is the store of a provider's deals: all under /deals, and the names of those that a start has to finish under /unfinished.
type records struct{ ds datastore.Batching }

func dealKey(c cid.Cid) datastore.Key       { return datastore.NewKey("/deals/" + c.String()) }
func unfinishedKey(c cid.Cid) datastore.Key { return datastore.NewKey("/unfinished/" + c.String()) }

// put stores a deal durably.
func (r records) put(ctx context.Context, d Deal) error {
	created := uint64(d.Created.Unix())
	data, err := wire.EncodeTuple(d.fields(&created))
	if err != nil {
		return err
	}
	b, err := r.ds.Batch(ctx)
	if err != nil {
		return err
	}
	err = b.Put(ctx, dealKey(d.ProposalCid), data)
	if d.State.onItsWay() {
		err = errors.Join(err, b.Put(ctx, unfinishedKey(d.ProposalCid), nil))
	} else {
		err = errors.Join(err, b.Delete(ctx, unfinishedKey(d.ProposalCid)))
	}
	if err = errors.Join(err, b.Commit(ctx)); err != nil {
		return fmt.Errorf("store deal %s: %w", d.ProposalCid, err)
	}
	return r.ds.Sync(ctx, datastore.NewKey("/"))
}

func decodeDeal(data []byte) (d Deal, err error) {
	var created uint64
	if err := wire.DecodeTuple(data, "storage deal", d.fields(&created)); err != nil {
		return d, err
	}
	d.Created = time.Unix(int64(created), 0)
	return d, nil
}

func (r records) get(ctx context.Context, c cid.Cid) (Deal, error) {
	data, err := r.ds.Get(ctx, dealKey(c))
	if errors.Is(err, datastore.ErrNotFound) {
		return Deal{}, fmt.Errorf("%w: proposal %s", ErrUnknownDeal, c)
	}
	if err != nil {
		return Deal{}, err
	}
	return decodeDeal(data)
}

func (r records) list(ctx context.Context) (out []Deal, err error) {
	err = store.Each(ctx, r.ds, "/deals", func(key string, value []byte) error {
		d, err := decodeDeal(value)
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		out = append(out, d)
		return nil
	})
	return out, err
}

// onItsWay tells whether a start has to go on with a deal: its data was arriving, was looked at, or was there and not published.
func (s State) onItsWay() bool {
	return s == StorageDealTransferring || s == StorageDealVerifyData || s == StorageDealPublish
}

// unfinished are the deals that a crash stopped on their way.
func (r records) unfinished(ctx context.Context) (out []Deal, err error) {
	names, err := names(ctx, r.ds, "/unfinished")
	for _, c := range names {
		d, gerr := r.get(ctx, c)
		if err = errors.Join(err, gerr); gerr == nil {
			out = append(out, d)
		}
	}
	return out, err
}

// names are the proposals whose CIDs are the keys below a prefix.
func names(ctx context.Context, ds datastore.Batching, prefix string) (out []cid.Cid, err error) {
	err = store.Each(ctx, ds, prefix, func(key string, _ []byte) error {
		c, err := cid.Decode(datastore.RawKey(key).BaseNamespace())
		out = append(out, c)
		return err
	})
	return out, err
}
