package node

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"

	"github.com/cartage-dev/cartage/api"
	inner "github.com/cartage-dev/cartage/internal/node"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/money"
)

// BuyOption is a choice of Quote and Buy. Options do not fail: Buy checks them.
type BuyOption func(*purchase)

// purchase is what somebody wants to buy.
type purchase struct {
	request  api.RetrieveRequest
	from     []string
	budget   *money.Amount
	maxPrice *money.Price
	progress func(Phase)
}

// Budget is the most to spend, over all attempts of the purchase, those of earlier calls and processes included. Without it only what is free is bought.
func Budget(a money.Amount) BuyOption { return func(p *purchase) { p.budget = &a } }

// MaxPrice leaves out providers that ask for more; an unseal price is not part of it.
func MaxPrice(price money.Price) BuyOption { return func(p *purchase) { p.maxPrice = &price } }

// From names providers: multiaddresses with a peer id, or the id alone of a peer that was met before. They are tried from the cheapest to the dearest.
func From(addrs ...string) BuyOption {
	return func(p *purchase) { p.from = append(p.from, addrs...) }
}

// Range buys the bytes first to last of a file, both included.
func Range(first, last int64) BuyOption {
	return func(p *purchase) { p.request.Range = fmt.Sprintf("%d:%d", first, last) }
}

// MaxExposure is how many bytes may be received or paid for ahead of each other; 0 is what the configuration says.
func MaxExposure(bytes uint64) BuyOption {
	return func(p *purchase) { p.request.MaxExposure = bytes }
}

// Stall parks the purchase after so long without a byte, and Buy returns; 0 is no bound.
func Stall(after time.Duration) BuyOption {
	return func(p *purchase) { p.request.StallSeconds = after.Seconds() }
}

// Progress is called with news of the purchase, one call at a time, on the goroutine of Buy.
func Progress(f func(Phase)) BuyOption { return func(p *purchase) { p.progress = f } }

// Phase is how a purchase stands.
type Phase struct {
	Status   string // of the deal: Ongoing, FundsNeeded ...
	Received uint64 // bytes of unique blocks that this purchase brought
	Total    uint64 // bytes that there are at most, 0 while nobody knows
	Spent    money.Amount
	Provider string
}

// Offer is what a provider asks for a payload.
type Offer struct {
	Provider  string
	Available bool
	Message   string // of the provider, when it is not available: a stranger's words
	Size      uint64 // bytes at most
	Price     money.Price
	Unseal    money.Amount // before the first byte
	Whole     money.Amount // at most, for all of it
	Interval  uint64       // bytes between two payments
}

// gatherPurchase reads a reference and its options.
func gatherPurchase(ref string, opts []BuyOption) (*purchase, error) {
	p := &purchase{progress: func(Phase) {}}
	for _, set := range opts {
		set(p)
	}
	p.request.CID, p.request.Transport, p.request.Read = ref, api.TransportAuto, true
	req, err := inner.Normalize(p.request)
	if err != nil {
		return nil, api.ErrorOf(err)
	}
	p.request = req
	switch {
	case len(p.from) == 0:
		return nil, api.ErrorOf(reason.NoProvider.Errorf("no provider is named for %s", ref).WithHint("Name one with node.From."))
	case p.budget == nil:
	case p.budget.Asset != money.FIL:
		return nil, api.Errorf(api.CodeUsage, "Name a budget in FIL.", "deals over libp2p are paid in FIL, not in %s", p.budget.Asset)
	case p.budget.Units.Int != nil:
		p.request.Budget = p.budget.Units.String()
	}
	return p, nil
}

// attoFIL reads an amount of the API.
func attoFIL(text string) money.Amount {
	n, err := big.FromString(text)
	if err != nil {
		n = big.Zero()
	}
	return money.AttoFIL(abi.TokenAmount(n))
}

// Quote asks the providers of From what they want for a payload, and pays nothing. The offers are in the order in which Buy tries them; a provider that
// does not answer is listed as not available.
func (n *Node) Quote(ctx context.Context, ref string, opts ...BuyOption) ([]Offer, error) {
	p, err := gatherPurchase(ref, opts)
	if err != nil {
		return nil, err
	}
	return n.offers(ctx, p)
}

func (n *Node) offers(ctx context.Context, p *purchase) ([]Offer, error) {
	list, err := n.api.Find(ctx, p.request.CID, p.from)
	if err != nil {
		return nil, api.ErrorOf(err)
	}
	out := make([]Offer, 0, len(list))
	for _, o := range list {
		out = append(out, Offer{Provider: o.Provider, Available: o.Available, Message: o.Message, Size: o.Size,
			Price: money.Price{Amount: attoFIL(o.PricePerByte), Per: 1}, Unseal: attoFIL(o.UnsealPrice), Whole: attoFIL(o.Price), Interval: o.Interval})
	}
	slices.SortStableFunc(out, func(a, b Offer) int {
		switch {
		case a.Available != b.Available && a.Available:
			return -1
		case a.Available != b.Available:
			return 1
		}
		return cmp.Or(big.Cmp(a.Whole.Units, b.Whole.Units), cmp.Compare(a.Unseal.Units.String(), b.Unseal.Units.String()))
	})
	return out, nil
}

// sources are the providers to try, in order.
func (n *Node) sources(ctx context.Context, p *purchase) ([]string, error) {
	if len(p.from) == 1 && p.maxPrice == nil {
		return p.from, nil
	}
	list, err := n.offers(ctx, p)
	if err != nil {
		return nil, err
	}
	var out []string
	var dearest *Offer
	for _, o := range list {
		switch {
		case !o.Available:
		case p.maxPrice != nil && o.Price.For(p.maxPrice.Per).Units.GreaterThan(p.maxPrice.Units):
			dearest = &o
		default:
			out = append(out, o.Provider)
		}
	}
	switch {
	case len(out) > 0:
		return out, nil
	case dearest != nil:
		return nil, api.ErrorOf(reason.PriceAbove.Errorf("%s asks for %s a byte, more than %s", dearest.Provider, dearest.Price.Amount, p.maxPrice).WithHint("Raise MaxPrice, or ask others."))
	default:
		return nil, api.ErrorOf(reason.NoOffer.Errorf("none of %d providers offers %s", len(p.from), p.request.CID))
	}
}

// Buy buys a payload, or the part of it that a path or Range names, and returns when all of it is here and verified, or when it cannot be. The reference is
// CID[/PATH], ipfs://CID[/PATH] or a gateway's URL of it. What is in the home already is neither fetched nor paid.
//
// Buy always returns: too small a budget, a provider that is silent and every other end are an *api.Error with a reason and what was spent. When the
// context ends, the purchase is parked: what is due is paid, nothing else is until the same is bought again. Equal purchases at the same time share one
// order and its budget.
func (n *Node) Buy(ctx context.Context, ref string, opts ...BuyOption) (*Purchase, error) {
	p, err := gatherPurchase(ref, opts)
	if err != nil {
		return nil, err
	}
	sources, err := n.sources(ctx, p)
	if err != nil {
		return nil, err
	}
	for _, s := range sources {
		var r *api.Retrieval
		p.request.Provider = s
		if r, err = n.follow(ctx, p); err == nil {
			return openPurchase(ctx, r, p.request)
		}
		if e := api.ErrorOf(err); ctx.Err() != nil || e.Blame != reason.Theirs.String() && e.Blame != reason.Network.String() {
			break // another provider changes nothing
		}
	}
	return nil, api.ErrorOf(err)
}

// releaseTime bounds how long a purchase takes to be parked.
const releaseTime = 5 * time.Second

// follow runs one attempt to its end.
func (n *Node) follow(ctx context.Context, p *purchase) (*api.Retrieval, error) {
	p.request.Holder = rand.Text()
	r, err := n.api.Retrieve(ctx, p.request)
	if err != nil {
		return nil, err
	}
	for !r.Done {
		p.progress(Phase{Status: r.Status, Received: r.Received, Total: r.Size, Spent: attoFIL(r.TotalSpent()), Provider: p.request.Provider})
		next, err := n.api.OrderWatch(ctx, api.OrderWatch{Key: r.Key, Holder: p.request.Holder, Seq: r.Seq})
		if ctx.Err() != nil {
			return nil, n.leave(ctx, p, r)
		}
		if err != nil {
			return nil, err
		}
		r = next
	}
	p.progress(Phase{Status: r.Status, Received: r.Received, Total: r.Received, Spent: attoFIL(r.TotalSpent()), Provider: p.request.Provider})
	if e := r.Failure(); e != nil {
		return nil, e
	}
	return r, nil
}

// leave parks an order whose caller has gone, unless somebody else waits for it.
func (n *Node) leave(ctx context.Context, p *purchase, r *api.Retrieval) error {
	why := context.Cause(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
	defer cancel()
	if now, err := n.api.OrderRelease(ctx, api.OrderWatch{Key: r.Key, Holder: p.request.Holder}); err == nil {
		r = now
	}
	e := api.ErrorOf(reason.Interrupted.Errorf("the purchase %s is parked: %w", r.Order, why).WithHint("Buy the same again to go on."))
	e.Spent, e.Bytes = r.TotalSpent(), r.Received
	return e
}
