package accounting

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-datastore"
)

// AdvanceLimits bound what a client pays for before it is verified.
type AdvanceLimits struct {
	// Bytes is what may be outstanding and lost over all payees within Memory; 0 pays nobody in advance.
	Bytes  uint64
	Memory time.Duration
}

// Advance is what one deal may pay for before it is verified, and what became of it.
type Advance struct {
	Deal  string    `json:"deal"`
	Order string    `json:"order"` // what is wanted: its deals share one advance
	Payee string    `json:"payee"`
	Bytes uint64    `json:"bytes"`
	Since time.Time `json:"since"`
	Ended bool      `json:"ended,omitempty"`
	Lost  uint64    `json:"lost,omitempty"` // bytes that were paid and never came
}

// exposed is what counts against the limit.
func (a *Advance) exposed() uint64 {
	if a.Ended {
		return a.Lost
	}
	return a.Bytes
}

// Advances is the account of what a client pays in advance: with the sides exchanged it is what Payers is to a provider. It is durable and safe for
// concurrent use.
type Advances struct {
	ds     datastore.Batching
	limits AdvanceLimits
	now    func() time.Time

	mu    sync.Mutex
	deals map[string]*Advance
}

const advancePrefix = "/advance/1"

// OpenAdvances reads the account of ds.
func OpenAdvances(ctx context.Context, ds datastore.Batching, limits AdvanceLimits, now func() time.Time) (*Advances, error) {
	if now == nil {
		now = time.Now
	}
	a := &Advances{ds: ds, limits: limits, now: now, deals: map[string]*Advance{}}
	if err := eachRow(ctx, ds, advancePrefix, a.load); err != nil {
		return nil, fmt.Errorf("read what was paid in advance: %w", err)
	}
	return a, nil
}

func (a *Advances) load(_ string, value []byte) error {
	row := &Advance{}
	err := json.Unmarshal(value, row)
	a.deals[row.Deal] = row
	return err
}

func advanceKey(deal string) datastore.Key {
	return datastore.NewKey(advancePrefix + "/" + strings.ReplaceAll(deal, "/", "_"))
}

// Reserve reports whether a deal may be paid for bytes in advance. A payee that kept money lately, an order that has lost an advance, and what is
// above the limit over all payees are refused. What is granted is on stable storage; the same deal again is granted what it has.
func (a *Advances) Reserve(ctx context.Context, deal, order, payee string, bytes uint64) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if d := a.deals[deal]; d != nil {
		return !d.Ended && d.Bytes >= bytes, nil
	}
	var exposed uint64
	for name, d := range a.deals {
		if d.Ended && a.now().Sub(d.Since) >= a.limits.Memory {
			delete(a.deals, name)
			if err := a.ds.Delete(ctx, advanceKey(name)); err != nil {
				return false, err
			}
			continue
		}
		if d.exposed() > 0 && (d.Order == order || d.Ended && d.Payee == payee) {
			return false, nil
		}
		exposed = add(exposed, d.exposed())
	}
	if bytes == 0 || add(exposed, bytes) > a.limits.Bytes {
		return false, nil
	}
	d := &Advance{Deal: deal, Order: order, Payee: payee, Bytes: bytes, Since: a.now()}
	if err := putJSON(ctx, a.ds, advanceKey(deal).String(), d); err != nil {
		return false, err
	}
	if err := a.ds.Sync(ctx, datastore.NewKey("/")); err != nil {
		return false, err
	}
	a.deals[deal] = d
	return true, nil
}

// Grow lets a deal that has an advance be paid for more bytes in advance, if the limit over all payees has room for them. It is on stable
// storage when it returns.
func (a *Advances) Grow(ctx context.Context, deal string, bytes uint64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.deals[deal]
	if d == nil || d.Ended || d.Bytes >= bytes {
		return nil
	}
	var exposed uint64
	for _, other := range a.deals {
		if other != d {
			exposed = add(exposed, other.exposed())
		}
	}
	if add(exposed, bytes) > a.limits.Bytes {
		return nil
	}
	grown := *d
	grown.Bytes = bytes
	if err := putJSON(ctx, a.ds, advanceKey(deal).String(), &grown); err != nil {
		return err
	}
	if err := a.ds.Sync(ctx, datastore.NewKey("/")); err != nil {
		return err
	}
	*d = grown
	return nil
}

// Granted is how many bytes a deal may be ahead of what it verified.
func (a *Advances) Granted(deal string) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if d := a.deals[deal]; d != nil && !d.Ended {
		return d.Bytes
	}
	return 0
}

// End tells how many bytes a deal was paid for that never came. It may be called again, and for deals that had no advance.
func (a *Advances) End(ctx context.Context, deal string, lost uint64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.deals[deal]
	if d == nil || d.Ended {
		return nil
	}
	if lost == 0 {
		delete(a.deals, deal)
		return a.ds.Delete(ctx, advanceKey(deal))
	}
	d.Ended, d.Lost, d.Since = true, min(lost, d.Bytes), a.now()
	return putJSON(ctx, a.ds, advanceKey(deal).String(), d)
}

// Losses lists what was paid in advance and never came, oldest first.
func (a *Advances) Losses() []Advance {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []Advance
	for _, d := range a.deals {
		if d.Ended && d.Lost > 0 {
			out = append(out, *d)
		}
	}
	slices.SortFunc(out, func(x, y Advance) int { return x.Since.Compare(y.Since) })
	return out
}
