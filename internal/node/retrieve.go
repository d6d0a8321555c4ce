package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-datastore"
	"github.com/ipld/go-ipld-prime"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/node/download"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/internal/store"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
	"github.com/cartage-dev/cartage/shared"
)

// Limits of one retrieval.
const (
	dialLimit  = 10 * time.Second
	queryLimit = 10 * time.Second
)

// connect dials a provider.
func (n *Node) connect(ctx context.Context, addr string) (peer.ID, error) {
	info, err := parseProvider(addr)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	switch known := n.Host.Peerstore().Addrs(info.ID); {
	case len(info.Addrs) > 0:
		if err := n.remember(ctx, info); err != nil {
			return "", err
		}
	case len(known) == 0:
		return "", reason.NoProvider.Errorf("no address of the peer %s is known here", info.ID).WithHint("Name it once with its address: /ip4/.../tcp/.../p2p/" + info.ID.String())
	}
	// Someone asks now: a failed attempt of a moment ago, when the provider was perhaps starting, does not count.
	if err := n.Host.Connect(network.WithForceDirectDial(ctx, "retrieve"), info); err != nil {
		return "", api.ErrorOf(reason.PeerUnreachable.Errorf("provider %s is not reachable: %w", addr, err).WithHint("Is the provider running, and is the address right?"))
	}
	return info.ID, nil
}

// remember keeps the addresses of a provider, so that a deal can go on after a restart of the process.
func (n *Node) remember(ctx context.Context, p peer.AddrInfo) error {
	data, err := p.MarshalJSON()
	if err != nil {
		return err
	}
	n.Host.Peerstore().AddAddrs(p.ID, p.Addrs, peerstore.PermanentAddrTTL)
	return n.space("/peers").Put(ctx, datastore.NewKey(p.ID.String()), data)
}

// recall makes the remembered addresses known.
func (n *Node) recall(ctx context.Context) error {
	return store.Each(ctx, n.space("/peers"), "", func(_ string, value []byte) error {
		var p peer.AddrInfo
		if err := p.UnmarshalJSON(value); err == nil {
			n.Host.Peerstore().AddAddrs(p.ID, p.Addrs, peerstore.PermanentAddrTTL)
		}
		return nil
	})
}

// Retrieve starts a retrieval, goes on with one that stands still, or attaches to an equal one that is running. It returns when there is a
// deal, or when there can be none.
func (n *Node) Retrieve(ctx context.Context, req api.RetrieveRequest, owner download.Owner) (*api.Retrieval, error) {
	w, err := ParseWant(req)
	if err != nil {
		return nil, err
	}
	key, err := w.key()
	if err != nil {
		return nil, err
	}
	if req.Into, err = n.destination(req); err != nil {
		return nil, err
	}
	if req.Into != intoCAR {
		key += "-" + req.Into
	}
	o, err := orderOf(req, key, owner)
	if err != nil {
		return nil, err
	}
	o.Token = tokenOf(ctx)
	r := newRun(key, w, req)
	here, err := n.here(r, w, req)
	switch {
	case err != nil:
		n.discard(w)
		return nil, coded(err)
	case here && !n.orders.Has(key): // one that stood still ends by finding it
		r.set(func(v *api.Retrieval) { v.Done, v.State = true, download.Done.String() })
		n.keepView(r)
		return r.snapshot(), nil
	}
	id, err := n.orders.Place(ctx, o, req.Holder)
	if err == nil && !req.Queue {
		err = n.orders.Await(ctx, id, req.Holder)
	}
	if err != nil {
		n.discard(w)
		return nil, err
	}
	v := n.viewByKey(key, r)
	v.Order = id.String() // one of the queue may not have begun
	return v, nil
}

// keepView shows a retrieval to those who ask by its key, unless a running one is.
func (n *Node) keepView(r *run) {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := r.snapshot().Key
	if have := n.runs[key]; have == nil || have.snapshot().Done {
		n.runs[key] = r
	}
}

// viewByKey is how a retrieval stands; otherwise, if it is not shown yet, as it begins.
func (n *Node) viewByKey(key string, otherwise *run) *api.Retrieval {
	n.mu.Lock()
	r := n.runs[key]
	n.mu.Unlock()
	if r == nil {
		r = otherwise
	}
	return r.snapshot()
}

// discard removes the file of a retrieval that got nothing.
func (n *Node) discard(w Want) {
	if err := n.targets.discard(n.ctx, w.Root, w.Part.Node()); err != nil {
		n.log.Warn("remove the file of a retrieval that got nothing", "root", w.Root, "error", err)
	}
}

// endWait bounds how long a cancelled deal may take to end on this side.
const endWait = 15 * time.Second

// cancelDeal cancels a deal of the client and waits until it has ended, so that a home that is closed next has it stored.
func (n *Node) cancelDeal(ctx context.Context, id rm.DealID) error {
	if err := n.Client.CancelDeal(id); err != nil {
		return err
	}
	return n.waitEnded(ctx, "c"+id.String(), func() bool {
		d, err := n.Client.GetDeal(id)
		return err == nil && clientstates.IsFinal(d.Status)
	})
}

func (n *Node) waitEnded(ctx context.Context, id string, over func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, endWait)
	defer cancel()
	for !over() {
		if !lifecycle.Sleep(ctx, 10*time.Millisecond) {
			return api.Errorf(api.CodeTimeout, "", "deal %s has not ended within %s", id, endWait)
		}
	}
	return nil
}

// replaceable tells whether a deal in progress stands in the way of what is asked now: another provider is named. What it has received stays, and
// the next deal pays for the rest only (D23).
func replaceable(d rm.ClientDealState, provider string) bool {
	info, err := parseProvider(provider)
	return err == nil && info.ID != d.Sender
}

// complete tells whether everything is in the file already: then nothing is asked for and nothing is paid. A part may be in the file of
// the whole.
func (n *Node) complete(r *run, w Want) (bool, error) {
	if !w.Part.Everything() {
		if whole, err := n.targets.has(w.Root, shared.AllSelector()); err != nil || whole {
			here, err := n.completeIn(r, w, shared.AllSelector(), true)
			if err != nil || here {
				return here, err
			}
		}
	}
	return n.completeIn(r, w, w.Part.Node(), false)
}

// completeHere is complete, with what other files of this node hold.
func (n *Node) completeHere(r *run, w Want, req api.RetrieveRequest) (bool, error) {
	if here, err := n.complete(r, w); err != nil || here {
		return here, err
	}
	if _, running := n.buying(w.all(), nil); running {
		return false, nil
	}
	if _, done, err := n.next(n.ctx, w, req.Into); err != nil || !done {
		return false, err
	}
	return n.complete(r, w)
}

// completeIn is complete in the file of one selector, which may be that of the whole.
func (n *Node) completeIn(r *run, w Want, of ipld.Node, whole bool) (bool, error) {
	c, err := n.targets.Acquire(w.Root, of)
	if err != nil {
		return false, err
	}
	defer func() { _ = n.targets.Release(c) }()
	if whole && !c.Final() {
		return false, nil // it is not complete, and cannot be read yet
	}
	pos, err := c.Locate(w.Part.Node())
	if err != nil {
		return false, err
	}
	if err := n.targets.touch(n.ctx, c.Path, time.Now()); err != nil {
		return false, err
	}
	r.set(func(v *api.Retrieval) { v.CarPath, v.Bytes, v.Blocks = c.Path, c.Bytes(), c.Len() })
	if !pos.Complete {
		return false, nil
	}
	if _, running := n.buying(purchase{root: w.Root, sel: of}, nil); running {
		return false, nil
	}
	if err := w.refusal(n.ctx, c.Store); err != nil {
		return false, err
	}
	if err := c.Finalize(); err != nil {
		return false, err
	}
	r.set(func(v *api.Retrieval) {
		v.OK, v.Status, v.Size, v.Code, v.Message = true, "Completed", c.Bytes(), 0, ""
	})
	return true, nil
}

// propose asks for an offer, checks it against the budget and starts a deal. A provider that does not know the root of a part is asked for all.
func (n *Node) propose(ctx context.Context, r *run, w Want, b purchase, req api.RetrieveRequest, a download.Attempt) (download.Deal, error) {
	id, err := n.proposePart(ctx, r, w, b, req, a)
	if errors.Is(err, reason.RootUnknown) && !b.root.Equals(w.Root) {
		return n.proposePart(ctx, r, w, w.all(), req, a)
	}
	return id, err
}

func (n *Node) proposePart(ctx context.Context, r *run, w Want, b purchase, req api.RetrieveRequest, a download.Attempt) (download.Deal, error) {
	root := b.root
	if req.Provider == "" {
		return 0, reason.NoProvider.Errorf("no provider is known for %s", root).WithHint("Name one with --provider.")
	}
	p, err := n.connect(ctx, req.Provider)
	if err != nil {
		return 0, err
	}
	if err := n.carry(p, req.Transport); err != nil {
		return 0, err
	}
	q, err := quoted(ctx, n, p, root, w, req)
	if err != nil {
		return 0, err
	}
	if w.Part.Everything() && b.same(w.all()) { // of a part nobody knows the size
		if err := n.targets.roomFor(q.Size-min(q.Size, r.snapshot().Bytes), q.Size, req.Output); err != nil {
			return 0, err
		}
	}
	if req.PaidTo != "" && req.PaidTo != q.PaymentAddress.String() {
		return 0, api.ErrorOf(reason.PeerClaims.Errorf("the provider is paid at %s, the order says %s", q.PaymentAddress, req.PaidTo).WithHint("Ask for a new offer."))
	}
	terms := accounting.Terms{Price: q.MinPricePerByte, Unseal: q.UnsealPrice, Interval: q.MaxPaymentInterval, Increase: q.MaxPaymentIntervalIncrease}
	if terms, err = n.bounded(terms, req); err != nil {
		return 0, err
	}
	q.MaxPaymentInterval, q.MaxPaymentIntervalIncrease = terms.Interval, terms.Increase
	funds, err := n.funds(ctx, r, terms, q, a)
	if err != nil {
		return 0, err
	}
	params, err := b.params(q.QueryResponse, w.Piece)
	if err != nil {
		return 0, err
	}
	wallet, err := n.wallet()
	if err != nil {
		return 0, api.Errorf(api.CodeFunds, "Make one with cartage wallet new.", "%w", err)
	}
	id := n.Client.NextID()
	if err := a.Bind(ctx, download.Deal(id)); err != nil { // before it may cost anything
		return 0, err
	}
	if _, err := n.Client.RetrieveWithID(ctx, id, root, params, funds, rm.RetrievalPeer{ID: p, Address: q.PaymentAddress}, wallet, q.PaymentAddress, nil); err != nil {
		return 0, err
	}
	r.set(func(v *api.Retrieval) { v.Size, v.ID = q.Size, "c"+id.String() })
	return download.Deal(id), nil
}

// leastInterval is the smallest interval that providers accept when they ask for more.
const leastInterval = 64 << 10

// bounded are the terms that are proposed for an offer: an interval of at most what may be at risk, and no increase.
func (n *Node) bounded(t accounting.Terms, req api.RetrieveRequest) (accounting.Terms, error) {
	limit := req.MaxExposure
	if limit == 0 {
		limit = uint64(n.parts.Config.Retrieval.MaxExposure)
	}
	if t.Free() {
		return t, nil
	}
	if least := min(t.Interval, leastInterval); limit > 0 && limit < least {
		return t, reason.ExposureAbove.Errorf("a payment interval of %d bytes is the smallest that the provider takes, at most %d may be at risk", least, limit).
			WithHint(fmt.Sprintf("Allow it with --max-exposure %d.", least))
	}
	t.Increase = 0
	if limit > 0 {
		t.Interval = min(t.Interval, limit)
	}
	return t, nil
}

// funds is what a deal may spend at first: what is left of the order's budget, and never more than the offer says (D19).
func (n *Node) funds(ctx context.Context, r *run, t accounting.Terms, q offered, a download.Attempt) (abi.TokenAmount, error) {
	if t.Free() {
		return big.Zero(), nil
	}
	missing := q.Size - min(q.Size, r.snapshot().Bytes)
	quote := t.Due(missing)
	if a.Left == nil && q.unasked {
		return quote, reason.PriceAbove.Errorf("%s attoFIL a byte are to be proposed, and no budget was given", t.Price).WithHint("Allow it with --budget AMOUNT.")
	}
	if a.Left == nil {
		return quote, reason.PriceAbove.Errorf("the offer is at most %s attoFIL for at most %d bytes, and no budget was given", quote, missing).
			WithHint(fmt.Sprintf("Allow it with --budget %s.", quote))
	}
	// A provider may quote less than there is: something is missing, and the next interval of it is paid for.
	quote = big.Max(quote, t.Due(t.Interval))
	if q.unasked { // nobody has told the size: the budget bounds it, and one interval is the least that there is
		quote, missing = big.Max(quote, *a.Left), t.Interval
	}
	if least := t.Due(min(t.Interval, max(missing, 1))); a.Left.LessThan(least) {
		if len(a.Order.Deals) > 0 && a.Order.Budget.GreaterThanEqual(least) {
			spent := big.Sub(*a.Order.Budget, *a.Left)
			return quote, usedUp(a.Order, spent, big.Add(spent, least))
		}
		return quote, reason.PriceAbove.Errorf("price over budget: the first interval costs %s attoFIL and the whole at most %s, the budget is %s", least, quote, a.Left).
			WithHint(fmt.Sprintf("Raise it with --budget %s.", quote))
	}
	if n.Payments == nil {
		return quote, reason.WalletShort.Errorf("the deal costs money and this node has no ledger").WithHint("Set one with cartage init --ledger URL --ledger-token-file FILE.")
	}
	funds := big.Min(*a.Left, quote)
	return funds, n.checkWallet(ctx, q.PaymentAddress, funds)
}

// checkWallet says before anything is sent that the money is not there.
func (n *Node) checkWallet(ctx context.Context, to address.Address, funds abi.TokenAmount) error {
	from, err := n.wallet()
	if err != nil {
		return api.Errorf(api.CodeFunds, "Make one with cartage wallet new.", "%w", err)
	}
	balance, err := n.Payments.Chain().Balance(ctx, from)
	if err != nil {
		return coded(err)
	}
	free := n.Payments.Free(from, to)
	if have := big.Add(balance, free); have.LessThan(funds) {
		return api.Errorf(api.CodeFunds, "On a development ledger: cartage faucet.", "wallet %s has %s attoFIL (and %s free on the payment channel), the deal needs up to %s", from, balance, free, funds)
	}
	return nil
}
