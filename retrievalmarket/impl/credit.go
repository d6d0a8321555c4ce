package retrievalimpl

import (
	"context"
	"fmt"

	"github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/internal/accounting"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

// Who has never paid gets data on credit until the first payment: one interval, or the whole payload if that is smaller. All of
// these together are bounded, so that a thousand new names get no more than a few (T03).

func payerKey(p peer.ID) datastore.Key { return datastore.NewKey("/payers/" + p.String()) }

// creditFor is the bytes that a new deal gets before its first payment, 0 for somebody who has paid before. It refuses a deal
// that would be too much.
func (p *Provider) creditFor(ctx context.Context, who peer.ID, t accounting.Terms, size uint64) (uint64, error) {
	if t.Price.Sign() == 0 {
		return 0, nil
	}
	known, err := p.cfg.Store.Has(ctx, payerKey(who))
	if err != nil || known {
		return 0, err
	}
	want := min(t.CurrentInterval(0), size)
	var given uint64
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range p.deals {
		d.mu.Lock()
		given += d.credit
		d.mu.Unlock()
	}
	if given > p.cfg.MaxUnsecured || want > p.cfg.MaxUnsecured-given {
		return 0, refuse(rm.DealStatusRejected, "%d bytes are on credit with clients that have not paid yet: try again later", given)
	}
	return want, nil
}

// hasPaid ends the credit of a deal, and makes who paid known.
func (p *Provider) hasPaid(ctx context.Context, pd *providerDeal) error {
	pd.mu.Lock()
	fresh := pd.credit > 0
	pd.credit = 0
	pd.mu.Unlock()
	if !fresh {
		return nil
	}
	if err := p.cfg.Store.Put(ctx, payerKey(pd.id.Receiver), nil); err != nil {
		return fmt.Errorf("remember that %s has paid: %w", pd.id.Receiver, err)
	}
	return nil
}
