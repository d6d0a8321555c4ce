package retrievalimpl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/peer"

	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/providerstates"
)

// debtMemory is how long a provider remembers what a peer has not paid (M-32).
const debtMemory = 24 * time.Hour

// debt is what a peer got and did not pay.
type debt struct {
	Bytes uint64
	Ends  int // deals that ended without any payment for what was sent
	Until time.Time
}

// debts are remembered in the store, so that a restart of the provider forgives nothing. The bounds are those of the provider's
// configuration.
type debts struct {
	ds       datastore.Batching
	maxBytes uint64
	maxEnds  int
	mu       sync.Mutex
}

func debtKey(p peer.ID) datastore.Key { return datastore.NewKey("/debts/" + p.String()) }

// of reads what a peer owes; what is too old is nothing.
func (d *debts) of(ctx context.Context, p peer.ID) (out debt, err error) {
	data, err := d.ds.Get(ctx, debtKey(p))
	if errors.Is(err, datastore.ErrNotFound) {
		return debt{}, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &out)
	}
	if err != nil {
		return debt{}, fmt.Errorf("debts of peer %s: %w", p, err)
	}
	if time.Now().After(out.Until) {
		return debt{}, nil
	}
	return out, nil
}

// refuse answers whether a peer has to be refused a deal.
func (d *debts) refuse(ctx context.Context, p peer.ID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	o, err := d.of(ctx, p)
	switch {
	case err != nil:
		return err
	case o.Bytes > d.maxBytes:
		return refuse(rm.DealStatusRejected, "%d bytes of earlier deals are not paid: try again after %s", o.Bytes, o.Until.UTC().Format(time.RFC3339))
	case o.Ends >= d.maxEnds:
		return refuse(rm.DealStatusRejected, "%d earlier deals ended without payment: try again after %s", o.Ends, o.Until.UTC().Format(time.RFC3339))
	}
	return nil
}

// ended adds what a deal leaves unpaid to a batch, which commit then stores: the deal's end and its debt are one fact. A caller does
// it once for each deal.
func (d *debts) ended(ctx context.Context, b datastore.Batch, s rm.ProviderDealState, sent uint64, commit func() error) error {
	paid := providerstates.Terms(&s).PaidBytes(s.FundsReceived)
	if !priced(s.PricePerByte) || sent <= paid {
		return commit()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	o, err := d.of(ctx, s.Receiver)
	if err != nil {
		o = debt{} // what cannot be read counts from now on
	}
	o.Bytes += sent - paid
	if paid == 0 {
		o.Ends++
	}
	o.Until = time.Now().Add(debtMemory)
	data, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if err := b.Put(ctx, debtKey(s.Receiver), data); err != nil {
		return err
	}
	return commit()
}
