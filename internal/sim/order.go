package sim

import (
	"context"
	"errors"
	"math"
	"strings"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"

	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
)

// order is what a client wants of a payload: a deal, and a second one if the first did not complete.
type order struct {
	w       *world
	number  int
	plan    DealPlan
	payload payload
	client  *party

	tries     []*try
	refused   string // there was no offer
	completed bool
}

// try is one deal of an order.
type try struct {
	id       rm.DealID
	funds    abi.TokenAmount
	canceled bool
	ended    bool
	state    rm.ClientDealState
}

const maxTries = 5

// unheard reports whether the provider never heard of a deal, or refused it because what it offered is not so any more: who wants it asks again.
func (t *try) unheard() bool {
	return t.state.TotalReceived == 0 && t.state.FundsSpent.IsZero() &&
		(t.state.Status == rm.DealStatusRejected || strings.HasPrefix(t.state.Message, "proposing deal: ") || t.state.Message == notStored)
}

// notStored stands for the message of a deal whose process ended before it was stored.
const notStored = "not stored"

func (o *order) run(ctx context.Context) {
	time.Sleep(o.plan.At)
	for range maxTries {
		offer, err := o.query(ctx)
		if err != nil {
			o.refused = err.Error()
			return
		}
		if t := o.begin(ctx, offer); t != nil {
			o.follow(t)
			if t.state.Status == rm.DealStatusCompleted {
				o.completed = true
				return
			}
			if !t.unheard() && (!o.plan.Again || len(o.tries) > 1) {
				return
			}
		}
		time.Sleep(time.Second)
	}
}

// process waits until the client runs.
func (o *order) process() *process {
	for {
		if r := o.client.now(); r.up.Load() && !r.sw.Crashed() {
			return r
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (o *order) query(ctx context.Context) (offer rm.QueryResponse, err error) {
	for range 90 {
		qctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		offer, err = o.process().market.Query(qctx, rm.RetrievalPeer{Address: o.w.provider.address, ID: o.w.provider.id}, o.payload.root, rm.QueryParams{})
		cancel()
		if err == nil && offer.Status == rm.QueryResponseError {
			err = errors.New(offer.Message)
		}
		if err == nil {
			return offer, nil
		}
		o.w.trace("%s order %d: no offer: %s", o.client.name, o.number, err)
		time.Sleep(time.Second)
	}
	return offer, err
}

func (o *order) params(offer rm.QueryResponse) (rm.Params, error) {
	if o.payload.sel == nil {
		p := rm.NewParamsV0(offer.MinPricePerByte, offer.MaxPaymentInterval, offer.MaxPaymentIntervalIncrease)
		p.UnsealPrice = offer.UnsealPrice
		return p, nil
	}
	var piece *cid.Cid
	return rm.NewParamsV1(offer.MinPricePerByte, offer.MaxPaymentInterval, offer.MaxPaymentIntervalIncrease, o.payload.sel, piece, offer.UnsealPrice)
}

// begin proposes a deal; nil means that the process ended before anything was stored.
func (o *order) begin(ctx context.Context, offer rm.QueryResponse) *try {
	params, err := o.params(offer)
	if err != nil {
		o.w.finding("params: %s", err)
		return nil
	}
	funds := o.funds(params, offer)
	r := o.process()
	t := &try{id: r.market.NextID(), funds: funds}
	_, err = r.market.RetrieveWithID(ctx, t.id, o.payload.root, params, funds, rm.RetrievalPeer{Address: o.w.provider.address, ID: o.w.provider.id},
		o.client.address, offer.PaymentAddress, nil)
	o.w.trace("%s order %d: deal %d for %d bytes and %s: %v", o.client.name, o.number, t.id%1000, o.payload.unique, funds, err)
	if _, gerr := o.process().market.GetDeal(t.id); err != nil && gerr != nil {
		return nil
	}
	o.tries = append(o.tries, t)
	return t
}

// funds is the budget of a deal: enough for what the provider quotes and for the first interval, as a node takes it, or too little for what is
// wanted.
func (o *order) funds(params rm.Params, offer rm.QueryResponse) abi.TokenAmount {
	size := max(offer.Size, params.PaymentInterval)
	if o.plan.Budget < 1 {
		size = o.payload.unique
	}
	cost := big.Add(big.Mul(params.PricePerByte, big.NewIntUnsigned(size)), params.UnsealPrice)
	return big.NewInt(int64(math.Ceil(float64(cost.Int64()) * o.plan.Budget)))
}

// follow waits until a deal has ended on the client's side.
func (o *order) follow(t *try) {
	began := time.Now()
	if o.plan.Cancel > 0 && len(o.tries) == 1 {
		time.Sleep(o.plan.Cancel)
		o.cancel(t)
	}
	for {
		d, err := o.process().market.GetDeal(t.id)
		switch {
		case errors.Is(err, rm.ErrNotFound): // the process ended before the deal was stored
			t.state = rm.ClientDealState{Status: rm.DealStatusErrored, FundsSpent: big.Zero(), Message: notStored}
			t.ended = true
			return
		case err == nil && clientstates.IsFinal(d.Status):
			t.state, t.ended = d, true
			return
		case time.Since(began) > restLimit:
			o.w.finding("%s deal %d rests in %s: received %d, spent %s, asked for %s: %s", o.client.name, t.id%1000, d.Status, d.TotalReceived, d.FundsSpent, d.PaymentRequested, d.Message)
			t.state = d
			return
		case err == nil && d.Status == rm.DealStatusInsufficientFunds && time.Since(began) > restLimit/2: // only its user ends it
			o.cancel(t)
		}
		time.Sleep(pollEvery(time.Since(began)))
	}
}

func pollEvery(passed time.Duration) time.Duration {
	if passed < 30*time.Second {
		return 100 * time.Millisecond
	}
	return 10 * time.Second
}

func (o *order) cancel(t *try) {
	t.canceled = true
	if o.plan.ByUs || o.plan.Cancel == 0 {
		err := o.process().market.CancelDeal(t.id)
		o.w.trace("%s deal %d: cancelled by the client: %v", o.client.name, t.id%1000, err)
		return
	}
	if p := o.w.provider.now(); p.up.Load() {
		err := p.seller.CancelDeal(rm.ProviderDealIdentifier{Receiver: o.client.id, DealID: t.id})
		o.w.trace("%s deal %d: cancelled by the provider: %v", o.client.name, t.id%1000, err)
	}
}
