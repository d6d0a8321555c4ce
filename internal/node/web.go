package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"strings"
	"time"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/gateway"
	"github.com/cartage-dev/cartage/gateway/buyer"
	"github.com/cartage-dev/cartage/gateway/paychannel"
	"github.com/cartage-dev/cartage/internal/cartargets"
	"github.com/cartage-dev/cartage/internal/node/download"
	"github.com/cartage-dev/cartage/internal/reason"
)

// webKeys begins the keys of retrievals from gateways, before the name of who holds them.
const webKeys = "web/"

// webBuys are the orders that are being bought from gateways: money is spent for these and for no other.
type webBuys map[string]bool

// beginWeb notes that an order is bought, unless it is already.
func (n *Node) beginWeb(order string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.web[order] {
		return reason.OutputBusy.Errorf("the same is being bought already")
	}
	n.web[order] = true
	return nil
}

func (n *Node) endWeb(order string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.web, order)
}

// maySpend is the question of the payment channels: money is spent for what somebody waits for, and for nothing else.
func (n *Node) maySpend(deal string) error {
	order, isWeb := strings.CutPrefix(deal, paychannel.DealPrefix)
	if !isWeb {
		return n.orders.MaySpend(deal)
	}
	order, _, _ = strings.Cut(order, "/")
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.web[order] {
		return reason.ParkedLease.Errorf("nobody waits for it")
	}
	return nil
}

// shortHash names something in keys.
func shortHash(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:8])
}

// webQuery is what a gateway is asked for.
func webQuery(w Want, req api.RetrieveRequest) (gateway.Query, error) {
	q := gateway.Query{Root: w.Root, Bytes: w.Part.Bytes()}
	if req.DataSelector != "" || req.List != "" || req.Piece != "" {
		return q, reason.Usage.Errorf("a gateway knows paths and ranges of bytes, no data selectors, lists or pieces").WithHint("Say CID/PATH, and --range.")
	}
	for name := range strings.SplitSeq(req.Path, "/") {
		if name != "" {
			q.Path = append(q.Path, name)
		}
	}
	return q, nil
}

// webStore is the file of a retrieval as a buyer sees it. What other files of this node hold is put into it instead of being bought.
type webStore struct {
	c    *cartargets.File
	held *holdings
}

var _ buyer.Store = webStore{}

// Size implements buyer.Store.
func (s webStore) Size(c cid.Cid) (int, bool) {
	if size, ok := s.c.Size(c); ok {
		return size, true
	}
	data, err := s.held.elsewhere(c)
	if err != nil || s.c.Put(c, data) != nil {
		return 0, false
	}
	return len(data), true
}

// Put implements buyer.Store.
func (s webStore) Put(c cid.Cid, data []byte) error { return s.c.Put(c, data) }

// Get implements buyer.Store.
func (s webStore) Get(c cid.Cid) ([]byte, error) {
	b, err := s.c.Get(c)
	if err != nil {
		return nil, err
	}
	return b.RawData(), nil
}

// webOffer is what a gateway asks for a payload.
func (s Service) webOffer(ctx context.Context, o *api.Offer, root cid.Cid) error {
	base, err := parseGateway(o.Provider)
	if err != nil {
		return err
	}
	b := buyer.New(buyer.Config{Log: s.n.log})
	defer b.Close()
	q, err := b.Find(ctx, base, gateway.Query{Root: root})
	if reason.From(err) == reason.RootUnknown {
		o.Message = err.Error()
		return nil
	}
	if err != nil {
		return coded(err)
	}
	o.Available, o.Size, o.Interval, o.Price, o.PricePerByte, o.UnsealPrice = true, q.Size, q.Window, "0", "0", "0"
	for _, p := range q.Prices {
		if !strings.HasSuffix(p.Asset, "/"+paychannel.Asset) {
			continue
		}
		o.Price, o.PricePerByte = p.Total.String(), big.Div(big.NewFromGo(p.TiB.Int()), big.NewInt(1<<40)).String()
	}
	return nil
}

// isGateway reports whether a provider is reached over HTTP.
func isGateway(provider string) bool {
	return strings.HasPrefix(provider, "https://") || strings.HasPrefix(provider, "http://")
}

func parseGateway(provider string) (*url.URL, error) {
	u, err := url.Parse(provider)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" {
		return nil, reason.Usage.Errorf("%q is not the URL of a gateway", provider).WithHint("It looks like https://gw.example.org.")
	}
	return u, nil
}

// purse pays for an order at a gateway; nil if there is no budget.
func (n *Node) purse(ctx context.Context, order, origin, budget string) (*paychannel.Purse, error) {
	if budget == "" {
		return nil, nil
	}
	amount, err := big.FromString(budget)
	if err != nil {
		return nil, api.Errorf(api.CodeUsage, "", "budget %q is not a number", budget)
	}
	if n.Payments == nil {
		return nil, errNoLedger
	}
	from, err := n.wallet()
	if err != nil {
		return nil, err
	}
	return paychannel.OpenPurse(ctx, paychannel.PurseConfig{Manager: n.Payments, Store: n.space(payments), Network: (&chainName{n: n}).get(), From: from, Order: order,
		Gateway: shortHash(origin), Budget: amount})
}

// RetrieveWeb answers Cartage.RetrieveWeb: it buys a payload from a gateway. It returns at the end, and what it does ends with the call: nothing is
// paid later. Meanwhile Retrieval shows it under web/HOLDER.
func (s Service) RetrieveWeb(ctx context.Context, req api.RetrieveRequest) (*api.Retrieval, error) {
	out, err := s.n.retrieveWeb(ctx, req)
	return out, coded(err)
}

func (n *Node) retrieveWeb(ctx context.Context, req api.RetrieveRequest) (*api.Retrieval, error) {
	req, err := Normalize(req)
	if err != nil {
		return nil, err
	}
	w, err := ParseWant(req)
	if err != nil {
		return nil, err
	}
	q, err := webQuery(w, req)
	if err != nil {
		return nil, err
	}
	switch into, err := n.destination(req); {
	case err != nil:
		return nil, err
	case into != intoCAR:
		return nil, reason.Usage.Errorf("what comes from a gateway goes into a file of its own").WithHint("Say --into car.")
	}
	base, err := parseGateway(req.Provider)
	if err != nil {
		return nil, err
	}
	key, err := w.key()
	if err != nil {
		return nil, err
	}
	order := shortHash(key)
	if err := n.beginWeb(order); err != nil {
		return nil, err
	}
	defer n.endWeb(order)
	r := newRun(webKeys+req.Holder, w, req)
	if here, err := n.complete(r, w); err != nil || here {
		r.set(func(v *api.Retrieval) { v.Done, v.State = true, download.Done.String() })
		return r.snapshot(), err
	}
	return n.fetchWeb(ctx, r, w, q, base, req, order)
}

// fetchWeb fetches what is missing.
func (n *Node) fetchWeb(ctx context.Context, r *run, w Want, q gateway.Query, base *url.URL, req api.RetrieveRequest, order string) (_ *api.Retrieval, err error) {
	n.keepView(r)
	defer n.forgetView(r)
	purse, err := n.purse(ctx, order, base.Scheme+"://"+base.Host, req.Budget)
	if err != nil {
		return nil, err
	}
	c, err := n.targets.Acquire(w.Root, w.Part.Node())
	if err != nil {
		return nil, err
	}
	defer func() { err = orElse(err, n.targets.Release(c)) }()
	held, err := n.holdings(ctx, c, intoCAR)
	if err != nil {
		return nil, err
	}
	defer func() { err = orElse(err, held.close()) }()
	b := buyer.New(buyer.Config{Log: n.log})
	defer b.Close()
	before := c.Bytes()
	o := buyer.Order{Query: q, Store: webStore{c, held}, Window: req.MaxExposure, Report: func(p buyer.Progress) {
		r.set(func(v *api.Retrieval) {
			v.ID, v.Transport, v.Status = "http", "http", "Retrieving"
			v.Size, v.Received, v.Bytes, v.Spent, v.Vouchers = p.Size, p.Bytes, before+p.Bytes, p.Paid.String(), p.Windows
		})
	}}
	if purse != nil {
		o.Purse = purse
		// What was reserved and not spent comes back also when the command is gone.
		defer func() { err = orElse(err, purse.Close(context.WithoutCancel(ctx))) }()
	}
	if quote, err := b.Find(ctx, base, q); err != nil {
		return nil, err
	} else if err := n.targets.roomFor(quote.Size-min(quote.Size, before), quote.Size, req.Output); err != nil {
		return nil, err
	}
	p, err := b.Fetch(ctx, base, o)
	r.set(func(v *api.Retrieval) {
		v.ID, v.Transport, v.Spent, v.Owed, v.Vouchers, v.Received, v.Seconds = "http", "http", p.Paid.String(), p.Paid.String(), p.Windows, p.Bytes, time.Since(r.begun).Seconds()
	})
	if err != nil {
		return nil, webFailure(err, p)
	}
	here, err := n.completeIn(r, w, w.Part.Node(), false)
	if err == nil && !here {
		err = reason.DataMissing.Errorf("the gateway sent everything that it was asked for, and something is missing")
	}
	r.set(func(v *api.Retrieval) { v.Done, v.State = true, download.Done.String() })
	return r.snapshot(), err
}

// orElse is the first error.
func orElse(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// webFailure is an error with what was spent before it.
func webFailure(err error, p buyer.Progress) error {
	e := *api.ErrorOf(err)
	e.Spent, e.Bytes = p.Paid.String(), p.Bytes
	return &e
}

// forgetView ends showing a retrieval.
func (n *Node) forgetView(r *run) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if key := r.snapshot().Key; n.runs[key] == r {
		delete(n.runs, key)
	}
}
