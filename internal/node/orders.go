package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/libp2p/go-libp2p/core/network"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/node/download"
	"github.com/cartage-dev/cartage/internal/reason"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
)

// market makes and ends the deals of orders.
type market struct{ n *Node }

var _ download.Market = market{}

// orderOf is the order of a request.
func orderOf(req api.RetrieveRequest, key string, owner download.Owner) (download.Order, error) {
	o := download.Order{Key: key, Transport: req.Transport, MaxExposure: req.MaxExposure, Owner: owner, Output: req.Output}
	if req.Provider != "" {
		o.Providers = []string{req.Provider}
	}
	if req.Budget != "" {
		budget, err := big.FromString(req.Budget)
		if err != nil || budget.Sign() < 0 {
			return o, reason.Usage.Errorf("budget %q is not an amount in attoFIL", req.Budget)
		}
		o.Budget = &budget
	}
	want, err := json.Marshal(req)
	o.Want = want
	return o, err
}

// request is what an order was placed with, and what it wants.
func (n *Node) request(o download.Order) (req api.RetrieveRequest, w Want, err error) {
	if err = json.Unmarshal(o.Want, &req); err != nil {
		return req, w, reason.StoreFailed.Errorf("order %s: %w", o.ID, err)
	}
	if req.Provider = ""; len(o.Providers) > 0 {
		req.Provider = o.Providers[0]
	}
	w, err = ParseWant(req)
	return req, w, err
}

// view is how an order is shown; one that goes on after a restart gets a new one.
func (n *Node) view(o download.Order, w Want, req api.RetrieveRequest) *run {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.runs[o.Key]
	if r == nil {
		r = newRun(o.Key, w, req)
		n.runs[o.Key] = r
	}
	r.set(func(v *api.Retrieval) {
		v.Order = o.ID.String()
		if v.Done && o.State == download.Running { // it goes on
			*v, r.past = newRun(o.Key, w, req).view, past{}
			v.Order = o.ID.String()
		}
	})
	return r
}

func (n *Node) orderParts(o download.Order) (r *run, w Want, req api.RetrieveRequest, err error) {
	if req, w, err = n.request(o); err != nil {
		return nil, w, req, err
	}
	return n.view(o, w, req), w, req, nil
}

// Complete implements download.Market.
func (m market) Complete(ctx context.Context, o download.Order) (bool, error) {
	r, w, req, err := m.n.orderParts(o)
	if err != nil {
		return false, err
	}
	here, err := m.n.here(r, w, req)
	if here && err == nil {
		m.n.dropParts(ctx, o, w)
	}
	return here, err
}

// Deal implements download.Market.
func (m market) Deal(ctx context.Context, a download.Attempt) (download.Deal, error) {
	n := m.n
	r, w, req, err := n.orderParts(a.Order)
	if err != nil {
		return 0, err
	}
	d, ok := n.buying(w.all(), a.Order.Deals)
	var b purchase
	if !ok {
		if b, _, err = n.next(ctx, w, req.Into); err != nil {
			return 0, err
		}
		d, ok = n.buying(b, nil)
	}
	if ok && replaceable(d, req.Provider) {
		if b, err = bought(d); err != nil {
			return 0, err
		}
		if err := n.cancelDeal(ctx, d.ID); err != nil {
			if _, ok := n.buying(b, a.Order.Deals); ok {
				return 0, err
			}
		}
		ok = false
	}
	if !ok {
		return n.propose(ctx, r, w, b, req, a)
	}
	id := download.Deal(d.ID)
	if other, shared := n.orders.OrderOf(id); !shared || other.ID == a.Order.ID || other.State != download.Running {
		if err := a.Bind(ctx, id); err != nil {
			return 0, err
		}
	}
	r.set(func(v *api.Retrieval) { n.show(r, v, d) })
	if req.Provider != "" {
		_, _ = n.connect(ctx, req.Provider) // its address may be new
	}
	return id, n.Client.ResumeDeal(d.ID)
}

// Await implements download.Market.
func (m market) Await(ctx context.Context, o download.Order, id download.Deal, moved func()) (out download.Outcome, err error) {
	r, w, _, err := m.n.orderParts(o)
	if err != nil {
		return out, err
	}
	for {
		d := m.n.await(ctx, r, rm.DealID(id), func() {
			out.Moved = true
			moved()
		})
		switch {
		case ctx.Err() != nil && d.Status != rm.DealStatusCompleted:
			return out, context.Cause(ctx)
		case d.Status == rm.DealStatusCompleted:
			if out.Part, err = m.n.succeed(r, w, d); err == nil && !out.Part {
				err = m.n.answered(ctx, w)
				out.Final = err != nil
			}
			return out, err
		case d.Status != rm.DealStatusInsufficientFunds:
			why := clientstates.ReasonOf(&d)
			if why == reason.None {
				why = reason.Unknown
			}
			return out, why.Errorf("retrieval ended %s: %s", statusName(d.Status), d.Message)
		}
		if err := m.giveMore(ctx, o.ID, d); err != nil {
			return out, err
		}
	}
}

// giveMore gives a deal more of its order's budget: its provider said that there was less than there is.
func (m market) giveMore(ctx context.Context, id download.ID, d rm.ClientDealState) error {
	o, err := m.n.orders.Get(ctx, id)
	if err != nil {
		return err
	}
	spent, err := m.Spent(ctx, o.Deals)
	if err != nil {
		return err
	}
	rest := big.Sub(d.TotalFunds, d.FundsSpent)
	more := big.Zero()
	if left := o.Left(spent); left != nil {
		more = big.Min(big.Sub(*left, rest), big.Max(d.TotalFunds, d.VoucherShortfall))
	}
	if more.LessThan(d.VoucherShortfall) {
		return usedUp(o, spent, big.Add(spent, big.Add(d.VoucherShortfall, rest)))
	}
	if err := m.n.Payments.TopUp(ctx, clientstates.DealKey(d.ID), d.ClientWallet, d.MinerWallet, more); err != nil {
		return err
	}
	return m.n.Client.RaiseFunds(ctx, d.ID, big.Add(d.TotalFunds, more))
}

// usedUp says that the budget of an order is, and what the next step needs in all.
func usedUp(o download.Order, spent, needed abi.TokenAmount) error {
	budget := big.Zero()
	if o.Budget != nil {
		budget = *o.Budget
	}
	return reason.BudgetUsed.Errorf("the budget of %s attoFIL is used up: %s are spent, %s are needed for the next step; what was received is kept, run it again with a larger --budget", budget, spent, needed).
		WithHint(fmt.Sprintf("Go on: cartage deals resume %s --budget %s", o.ID, needed))
}

// Spent implements download.Market.
func (m market) Spent(ctx context.Context, deals []download.Deal) (abi.TokenAmount, error) {
	sum := big.Zero()
	if m.n.Payments == nil {
		return sum, nil
	}
	for _, id := range deals {
		e, err := m.n.Payments.Best(ctx, false, clientstates.DealKey(rm.DealID(id)))
		if err != nil {
			return sum, err
		}
		if e != nil {
			sum = big.Add(sum, e.Credit)
		}
	}
	return sum, nil
}

// Leave implements download.Market (O-03): what is due is paid if the provider is there; a deal for which an unseal price was paid is kept, as
// is one whose provider is away, that owes what its order may not pay, or that paid in advance; every other is cancelled on both sides.
func (m market) Leave(ctx context.Context, o download.Order, why reason.Reason) error {
	n := m.n
	var errs []error
	for _, id := range o.Deals {
		d, err := n.Client.GetDeal(rm.DealID(id))
		if err != nil || clientstates.IsFinal(d.Status) || d.Status == rm.DealStatusFailing || d.Status == rm.DealStatusCancelling {
			continue
		}
		away := n.Host.Network().Connectedness(d.Sender) != network.Connected
		if !away && d.PaymentInfo != nil {
			errs = append(errs, n.Client.PayDue(ctx, d.ID))
		}
		if now, err := n.Client.GetDeal(d.ID); err == nil {
			d = now
		}
		// What it owes is paid when its order may spend more; what was paid in advance is delivered when it goes on.
		open := d.Status == rm.DealStatusInsufficientFunds || d.FundsSpent.GreaterThan(clientstates.Terms(&d).Due(d.TotalReceived))
		if why != reason.Cancelled && (away || open || d.UnsealFundsPaid.Sign() > 0) {
			errs = append(errs, n.Client.HoldDeal(ctx, d.ID, !away))
		} else {
			errs = append(errs, n.cancelDeal(ctx, d.ID))
		}
	}
	return errors.Join(errs...)
}

// Stall implements download.Market.
func (m market) Stall(o download.Order) time.Duration {
	req, _, err := m.n.request(o)
	if err != nil {
		return 0
	}
	return time.Duration(req.StallSeconds * float64(time.Second))
}

// Changed implements download.Market: the order is shown as it stands now.
func (m market) Changed(o download.Order, err error) {
	n := m.n
	r, w, _, perr := n.orderParts(o)
	if perr != nil {
		return
	}
	n.addSpent(r, o) // before it is done: who waits for that reads both
	r.set(func(v *api.Retrieval) {
		v.State, v.Done = o.State.String(), o.State != download.Waiting
		if o.State == download.Done {
			v.OK, v.Status, v.Code, v.Message, v.Reason, v.Blame = true, "Completed", 0, "", "", ""
			return
		}
		stopped(v, o, err)
	})
	if o.State == download.Failed || o.State == download.Cancelled {
		n.discard(w)
	}
	if err := n.targets.trim(n.ctx, n.live.Load().Retrieval.CacheBytes, time.Now()); err != nil && n.ctx.Err() == nil {
		n.log.Warn("keep the cache within its quota", "error", err)
	}
}

// stopped shows why an order stands still or has ended.
func stopped(v *api.Retrieval, o download.Order, err error) {
	e := api.ErrorOf(o.Reason)
	if err != nil && reason.From(err) == o.Reason {
		e = api.ErrorOf(err)
	}
	v.OK, v.Code, v.Reason, v.Blame, v.Message, v.Hint = false, e.Code, o.Reason.String(), e.Blame, e.Message, e.Hint
	if v.Code == reason.ExitDone { // nothing went wrong, and what was wanted is not here
		v.Code = reason.ExitInterrupted
	}
	if o.State == download.Parked || o.State == download.Waiting {
		v.Status = map[download.State]string{download.Parked: "Parked", download.Waiting: "Waiting"}[o.State]
	}
}

// addSpent shows what all deals of an order have cost.
func (n *Node) addSpent(r *run, o download.Order) {
	if sum, err := (market{n}).Spent(n.ctx, o.Deals); err == nil {
		r.set(func(v *api.Retrieval) {
			v.OrderSpent = sum.String()
			if o.Budget != nil {
				v.Budget = o.Budget.String()
			}
			v.Deals = len(o.Deals)
		})
	}
}
