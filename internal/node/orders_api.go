package node

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagjson"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/node/download"
	"github.com/cartage-dev/cartage/internal/reason"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
)

// watchTime bounds how long OrderWatch waits for news.
const watchTime = 5 * time.Second

// runOf is what is shown under a key.
func (n *Node) runOf(key string) (*run, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r := n.runs[key]; r != nil {
		return r, nil
	}
	return nil, api.ErrorOf(reason.IDUnknown.Errorf("nothing is being retrieved for %s", key))
}

// renew says that the holder of a retrieval is there.
func (n *Node) renew(v *api.Retrieval, holder string) {
	if id, ok := download.ParseID(v.Order); ok && !v.Done {
		n.orders.Renew(id, holder)
	}
}

// OrderWatch answers Cartage.OrderWatch.
func (s Service) OrderWatch(ctx context.Context, w api.OrderWatch) (*api.Retrieval, error) {
	r, err := s.n.runOf(w.Key)
	if err != nil {
		return nil, err
	}
	v := r.snapshot()
	s.n.renew(v, w.Holder)
	if v.Done {
		return v, nil
	}
	ctx, cancel := context.WithTimeout(ctx, watchTime)
	defer cancel()
	r.after(ctx, w.Seq)
	return r.snapshot(), nil
}

// OrderRelease answers Cartage.OrderRelease: a holder goes, and the order is parked if it was the last.
func (s Service) OrderRelease(ctx context.Context, w api.OrderWatch) (*api.Retrieval, error) {
	r, err := s.n.runOf(w.Key)
	if err != nil {
		return nil, err
	}
	v := r.snapshot()
	if id, ok := download.ParseID(v.Order); ok && !v.Done {
		if _, err := s.n.orders.Release(ctx, id, w.Holder, reason.Interrupted); err != nil {
			return v, coded(err)
		}
	}
	return r.snapshot(), nil
}

// OrderPark answers Cartage.OrderPark: what is due is paid, and nothing else until the order is resumed.
func (s Service) OrderPark(ctx context.Context, id string) (*api.Retrieval, error) {
	return s.leaveOrder(ctx, id, func(ctx context.Context, id download.ID) (download.Order, error) {
		return s.n.orders.Park(ctx, id, reason.ParkedAsked)
	})
}

// OrderCancel answers Cartage.OrderCancel: the order and its deals end; what arrived stays.
func (s Service) OrderCancel(ctx context.Context, id string) (*api.Retrieval, error) {
	return s.leaveOrder(ctx, id, s.n.orders.Cancel)
}

func (s Service) leaveOrder(ctx context.Context, name string, f func(context.Context, download.ID) (download.Order, error)) (*api.Retrieval, error) {
	id, err := s.n.orderByName(ctx, name)
	if err != nil {
		return nil, coded(err)
	}
	o, err := s.n.orders.Get(ctx, id)
	if err == nil {
		err = mayTouch(ctx, o)
	}
	if err == nil {
		o, err = f(ctx, id)
	}
	if err != nil {
		return nil, coded(err)
	}
	return s.n.shown(o)
}

// shown is how an order stands now.
func (n *Node) shown(o download.Order) (*api.Retrieval, error) {
	r, _, _, err := n.orderParts(o)
	if err != nil {
		return nil, coded(err)
	}
	n.addSpent(r, o)
	v := r.snapshot()
	v.State = o.State.String()
	return v, nil
}

// OrderResume answers Cartage.OrderResume. It returns when there is a deal, or when there can be none.
func (s Service) OrderResume(ctx context.Context, q api.OrderResume) (*api.Retrieval, error) {
	id, err := s.n.orderByName(ctx, q.ID)
	if err != nil {
		return nil, coded(err)
	}
	var budget *big.Int
	if q.Budget != "" {
		b, err := big.FromString(q.Budget)
		if err != nil || b.Sign() < 0 {
			return nil, api.Errorf(api.CodeUsage, "", "budget %q is not an amount in attoFIL", q.Budget)
		}
		budget = &b
	}
	had, err := s.n.orders.Get(ctx, id)
	if err == nil {
		err = mayTouch(ctx, had)
	}
	if err != nil {
		return nil, coded(err)
	}
	if err = s.n.orders.Resume(ctx, id, budget, stalling(q.StallSeconds), q.Holder); err == nil {
		err = s.n.orders.Await(ctx, id, q.Holder)
	}
	if err != nil {
		return nil, coded(err)
	}
	o, err := s.n.orders.Get(ctx, id)
	if err != nil {
		return nil, coded(err)
	}
	return s.n.shown(o)
}

// stalling changes how long a request waits for a byte.
func stalling(seconds float64) func([]byte) []byte {
	return func(want []byte) []byte {
		var req api.RetrieveRequest
		if seconds <= 0 || json.Unmarshal(want, &req) != nil {
			return want
		}
		req.StallSeconds = seconds
		if changed, err := json.Marshal(req); err == nil {
			return changed
		}
		return want
	}
}

// orderByName finds the order o17, or that of the deal c31; a deal that stands still without an order gets one.
func (n *Node) orderByName(ctx context.Context, name string) (download.ID, error) {
	if id, ok := download.ParseID(name); ok {
		return id, nil
	}
	id, err := clientDeal(name)
	if err != nil {
		return 0, reason.IDUnknown.Errorf("%q is no order and no deal of the client", name).WithHint("They are listed by cartage deals.")
	}
	if o, ok := n.orders.OrderOf(download.Deal(id)); ok {
		return o.ID, nil
	}
	d, err := n.Client.GetDeal(id)
	if errors.Is(err, rm.ErrNotFound) {
		err = reason.IDUnknown.Errorf("there is no deal %s", name).WithHint("Deals are listed by cartage deals.")
	}
	if err != nil {
		return 0, err
	}
	if clientstates.IsFinal(d.Status) {
		return 0, reason.IDUnknown.Errorf("deal %s has ended already: %s", name, statusName(d.Status))
	}
	return n.adopt(ctx, d)
}

// adopt makes an order for a deal of an older version. Its budget is what the deal was given.
func (n *Node) adopt(ctx context.Context, d rm.ClientDealState) (download.ID, error) {
	req := api.RetrieveRequest{CID: d.PayloadCID.String(), Budget: d.TotalFunds.String(), Into: intoCAR}
	if d.SelectorSpecified() {
		sel, err := d.SelectorNode()
		if err != nil {
			return 0, err
		}
		text, err := ipld.Encode(sel, dagjson.Encode)
		if err != nil {
			return 0, err
		}
		req.DataSelector = string(text)
	}
	if addrs := n.Host.Peerstore().Addrs(d.Sender); len(addrs) > 0 {
		req.Provider = addrs[0].String() + "/p2p/" + d.Sender.String()
	}
	w, err := ParseWant(req)
	if err != nil {
		return 0, err
	}
	key, err := w.key()
	if err != nil {
		return 0, err
	}
	o, err := orderOf(req, key, download.Command)
	if err != nil {
		return 0, err
	}
	return n.orders.Adopt(ctx, o, download.Deal(d.ID))
}

// Orders answers Cartage.Orders, the oldest first.
func (s Service) Orders(ctx context.Context) ([]api.Order, error) {
	list, err := s.n.orders.List(ctx)
	if err != nil {
		return nil, coded(err)
	}
	out := make([]api.Order, 0, len(list))
	for _, o := range list {
		v, err := s.n.orderRow(ctx, o)
		if err != nil {
			return nil, coded(err)
		}
		out = append(out, v)
	}
	return out, nil
}

func (n *Node) orderRow(ctx context.Context, o download.Order) (api.Order, error) {
	v := api.Order{ID: o.ID.String(), Key: o.Key, State: o.State.String(), Reason: o.Reason.String(), Owner: [...]string{"command", "queue", "api"}[o.Owner], Asset: o.Asset,
		Output: o.Output, Created: o.Created.Format(time.RFC3339), Changed: o.Changed.Format(time.RFC3339), Deals: []string{}, Provider: strings.Join(o.Providers, " ")}
	if o.Reason != reason.None {
		v.Blame = o.Reason.Blame().String()
	}
	req, w, err := n.request(o)
	if err != nil {
		return v, err
	}
	v.Root, v.Path = w.Root.String(), req.Path
	if o.Budget != nil {
		v.Budget = o.Budget.String()
	}
	for _, id := range o.Deals {
		v.Deals = append(v.Deals, "c"+rm.DealID(id).String())
		if d, err := n.Client.GetDeal(rm.DealID(id)); err == nil {
			v.Bytes += d.TotalReceived
		}
	}
	spent, err := (market{n}).Spent(ctx, o.Deals)
	v.Spent = spent.String()
	return v, err
}
