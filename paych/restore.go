package paych

import (
	"context"
	"fmt"
	"time"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-datastore"

	"github.com/cartage-dev/cartage/internal/store"
)

// restoreSkip is by how much nonces and lanes jump after a restore: no voucher and no lane that was used since the backup is used again.
const restoreSkip = 1 << 20

func restoredKey() datastore.Key { return datastore.NewKey("/o/restored") }

// MarkRestored notes that a store was put back from a backup: what was signed since then is not known any more. The next Open lets nonces
// and lanes jump before anything is paid. It is called while no manager is open on the store.
func MarkRestored(ctx context.Context, ds datastore.Batching) error {
	b, err := ds.Batch(ctx)
	if err == nil {
		err = b.Put(ctx, restoredKey(), []byte{1})
	}
	if err != nil {
		return err
	}
	return store.Commit(ctx, ds, b)
}

// restoredAskLimit bounds how long the chain is asked about a channel that was restored.
const restoredAskLimit = 10 * time.Second

// skipNoncesAfterRestore does what MarkRestored asks for, before deals start. It may be repeated.
func (o *outChannels) skipNoncesAfterRestore(ctx context.Context) error {
	has, err := o.ds.Has(ctx, restoredKey())
	if err != nil || !has {
		return err
	}
	for _, p := range o.byAddr {
		if err := o.skipNoncesOf(ctx, p); err != nil {
			return fmt.Errorf("payment channel %s after a restore: %w", p.rec.Address, err)
		}
	}
	b, err := o.ds.Batch(ctx)
	if err == nil {
		err = b.Delete(ctx, restoredKey())
	}
	if err != nil {
		return err
	}
	return store.Commit(ctx, o.ds, b)
}

func (o *outChannels) skipNoncesOf(ctx context.Context, p *outChannel) error {
	lctx, cancel := context.WithTimeout(ctx, restoredAskLimit)
	info, err := o.chain.Channel(lctx, p.rec.Address)
	cancel()
	if err != nil {
		info = &ChannelInfo{} // what was redeemed is learned no more: a voucher below it is refused, and nothing is lost
	}
	b, err := o.ds.Batch(ctx)
	if err != nil {
		return err
	}
	for n, l := range p.lanes {
		l.Nonce += restoreSkip
		if c, ok := info.Lanes[n]; ok && c.Redeemed.GreaterThan(l.Amount) {
			p.rec.Promised = big.Add(p.rec.Promised, big.Sub(c.Redeemed, l.Amount))
			l.Amount, l.Voucher = c.Redeemed, nil
			if over := big.Sub(l.Amount, l.Reserved); over.Sign() > 0 {
				p.rec.Reserved, l.Reserved = big.Add(p.rec.Reserved, over), l.Amount
			}
		}
		if err := putRecord(ctx, b, laneKey("o", l.Channel, l.Lane), l); err != nil {
			return err
		}
	}
	p.rec.NextLane += restoreSkip
	if err := putRecord(ctx, b, p.rec.recordKey(), &p.rec); err != nil {
		return err
	}
	return store.Commit(ctx, o.ds, b)
}
