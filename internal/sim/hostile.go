package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	spaych "github.com/filecoin-project/go-state-types/builtin/v8/paych"

	"github.com/cartage-dev/cartage/internal/accounting"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
	"github.com/cartage-dev/cartage/retrievalmarket/marketnode"
)

// Hostility is how a client cheats.
type Hostility int

// The ways to cheat. Each client is the real one, with a node that does not pay as it is told, and with a store that claims blocks.
const (
	Honest      Hostility = iota
	Fresh                 // a new identity for each deal, which claims what the ones before took
	ManyDeals             // pays for one small deal, and then opens many at once
	Strangers             // identities that never pay and never leave
	LateVouches           // pays each voucher seconds later
	OldVouches            // pays with the voucher before the one that is wanted
	Liar                  // claims other blocks each time that it is asked
	Settler               // settles its channel in the middle of a deal
	hostilities
)

func (h Hostility) String() string {
	return [...]string{"honest", "fresh identities", "many deals", "strangers", "late vouchers", "old vouchers", "liar", "settler"}[h]
}

// AttackPlan is one attack on the provider.
type AttackPlan struct {
	Kind  Hostility
	At    time.Duration
	Times int
	Shape Shape
}

func newAttack(rnd *rand.Rand) AttackPlan {
	return AttackPlan{Kind: 1 + Hostility(rnd.IntN(int(hostilities)-1)), At: time.Duration(rnd.IntN(500)) * time.Millisecond, Times: 3 + rnd.IntN(6),
		Shape: Shape{Leaves: 20 + rnd.IntN(40), Size: 500 + rnd.IntN(2000), Seed: rnd.Uint64()}}
}

// attack is an attack in progress.
type attack struct {
	w     *world
	plan  AttackPlan
	first int // number of its first identity
	list  []payload

	mu      sync.Mutex
	thieves []*thief
}

// thief is one identity of an attack, with what it took.
type thief struct {
	*party
	a     *attack
	store *loot
}

// run lets an attack happen.
func (a *attack) run(ctx context.Context) {
	time.Sleep(a.plan.At)
	a.w.trace("attack: %s, %d times", a.plan.Kind, a.plan.Times)
	switch a.plan.Kind {
	case Fresh:
		for i := range a.plan.Times {
			if t := a.identity(ctx, i, a.taken()); t != nil {
				a.take(ctx, t, a.list[0], 3*time.Second)
				a.leave(ctx, t)
			}
		}
	case Strangers:
		for i := range a.plan.Times {
			if t := a.identity(ctx, i, 0); t != nil {
				a.take(ctx, t, a.list[0], 100*time.Millisecond)
			}
		}
	default:
		if t := a.identity(ctx, 0, 0); t != nil {
			a.alone(ctx, t)
		}
	}
}

// alone is an attack by one identity.
func (a *attack) alone(ctx context.Context, t *thief) {
	many := 1
	if a.plan.Kind == ManyDeals {
		a.take(ctx, t, a.list[1], time.Minute) // this one it pays
		t.store.mean()
		many = a.plan.Times
	}
	var deals sync.WaitGroup
	for i := range many {
		deals.Go(func() { a.take(ctx, t, a.list[2+i], 30*time.Second) })
	}
	deals.Wait()
	if a.plan.Kind == Settler {
		for _, info := range a.w.chain.all() {
			if info.From == t.address {
				a.w.trace("attack: settles %s: %v", info.Address, t.now().payments.Settle(ctx, info.Address))
			}
		}
		a.take(ctx, t, a.list[1], 30*time.Second)
	}
}

// taken is how many blocks the thieves have, from the first on.
func (a *attack) taken() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.thieves {
		n += t.store.len()
	}
	return n
}

// identity starts a party of an attack.
func (a *attack) identity(ctx context.Context, i, claims int) *thief {
	p, err := newParty(a.w, fmt.Sprintf("%s %d", a.plan.Kind, i), a.first+i)
	if err != nil {
		a.w.finding("identity: %s", err)
		return nil
	}
	t := &thief{party: p, a: a, store: newLoot(a.w, claims, a.plan.Kind == Liar)}
	p.hostile, p.stream, p.ahead = t, a.w.plan.Stream && i%2 == 0, i%3 == 0
	a.w.addParty(p)
	if err := p.start(ctx); err != nil {
		a.w.finding("%s: %s", p.name, err)
		return nil
	}
	a.w.net.join(p.now().host, a.w.provider.now().host, true)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.thieves = append(a.thieves, t)
	return t
}

// take opens a deal and lets it go on for a while. What becomes of it is of no interest: what was taken counts.
func (a *attack) take(ctx context.Context, t *thief, p payload, d time.Duration) {
	qctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	seller := rm.RetrievalPeer{Address: a.w.provider.address, ID: a.w.provider.id}
	offer, err := t.now().market.Query(qctx, seller, p.root, rm.QueryParams{})
	if err != nil || offer.Status == rm.QueryResponseError {
		a.w.trace("%s: no offer: %v %s", t.name, err, offer.Message)
		return
	}
	params := rm.NewParamsV0(offer.MinPricePerByte, offer.MaxPaymentInterval, offer.MaxPaymentIntervalIncrease)
	params.UnsealPrice = offer.UnsealPrice
	funds := big.Add(big.Mul(params.PricePerByte, big.NewIntUnsigned(p.unique)), params.UnsealPrice)
	id, err := t.now().market.Retrieve(ctx, p.root, params, funds, seller, t.address, offer.PaymentAddress, nil)
	a.w.trace("%s: deal %d for %d bytes and %s: %v", t.name, id%1000, p.unique, funds, err)
	if err != nil {
		return
	}
	for began := time.Now(); time.Since(began) < d; time.Sleep(100 * time.Millisecond) {
		if s, err := t.now().market.GetDeal(id); err != nil || final(s.Status) {
			return
		}
	}
	if a.plan.Kind != Strangers {
		_ = t.now().market.CancelDeal(id)
	}
}

// leave ends an identity.
func (a *attack) leave(ctx context.Context, t *thief) {
	if err := t.now().end(ctx, t.disk); err != nil {
		a.w.finding("%s does not end: %s", t.name, err)
	}
	a.w.net.part(t.id, a.w.provider.id)
}

// node is what a thief pays with.
type node struct {
	marketnode.Client
	t *thief
}

// CreateDealVoucher implements retrievalmarket.ClientBook.
func (n node) CreateDealVoucher(ctx context.Context, deal string, ch address.Address, lane uint64, amount abi.TokenAmount, bytes uint64) (*spaych.SignedVoucher, rm.Outcome, error) {
	switch n.t.a.plan.Kind {
	case Fresh, Strangers, Liar:
		<-ctx.Done()
		return nil, rm.Stale, ctx.Err()
	case ManyDeals:
		if n.t.store.isMean() {
			<-ctx.Done()
			return nil, rm.Stale, ctx.Err()
		}
	case LateVouches:
		select {
		case <-time.After(5 * time.Second):
		case <-ctx.Done():
			return nil, rm.Stale, ctx.Err()
		}
	case OldVouches:
		if e, err := n.BestForDeal(ctx, deal); err == nil && e != nil {
			return e.Voucher, rm.Replayed, nil
		}
	}
	return n.Client.CreateDealVoucher(ctx, deal, ch, lane, amount, bytes)
}

// allowance is what strangers may have out unpaid of a provider that is attacked: a few intervals, so that the bound can be reached.
const allowance = 64 << 10

// credit is what the provider risks on whom.
func (w *world) credit() *accounting.CreditLimits {
	l := accounting.DefaultCredit()
	if len(w.plan.Attacks) > 0 {
		l.Allowance, l.Refill = allowance, 0
	}
	return &l
}

// checkTaken checks that what was taken and not paid, by everybody together, stays within the allowance of strangers, a part of what each
// payer has paid, and one block for each deal.
func (w *world) checkTaken() {
	if len(w.plan.Attacks) == 0 {
		return
	}
	price, limits := uint64(max(1, w.plan.Ask.Price)), w.credit()
	paid := map[address.Address]uint64{}
	for _, s := range w.provider.now().payments.Booked() {
		for _, info := range w.chain.all() {
			if info.Address == s.Channel {
				paid[info.From] += (s.Vouchered.Uint64() - min(s.Vouchered.Uint64(), uint64(len(s.Lanes))*uint64(w.plan.Ask.Unseal))) / price
			}
		}
	}
	taken, bound := uint64(0), limits.Allowance
	for _, a := range w.attacks {
		for _, t := range a.thieves {
			got := t.store.taken()
			w.trace("%s: took %d bytes, paid for %d", t.name, got, paid[t.address])
			taken += got - min(got, paid[t.address])
			bound += paid[t.address]/limits.RecordShare + uint64(a.plan.Times)*a.plan.Shape.block()
		}
	}
	for _, o := range w.deals {
		for _, t := range o.tries {
			covered := uint64(0)
			if t.state.PricePerByte.Int != nil {
				covered = clientstates.Terms(&t.state).PaidBytes(t.state.FundsSpent)
			}
			taken += t.state.TotalReceived - min(t.state.TotalReceived, covered)
			bound += o.plan.Shape.block()
		}
		bound += paid[o.client.address] / limits.RecordShare
	}
	w.mu.Lock()
	w.taken, w.bound = taken, bound
	w.mu.Unlock()
	if taken > bound {
		w.finding("%d bytes were taken unpaid, at most %d may be", taken, bound)
	}
}

// block is the size of the largest block of a payload.
func (s Shape) block() uint64 {
	return uint64(max(s.Size, 64*(s.Leaves+s.Repeats+1)))
}

// clientNode is what a client pays with.
func (w *world) clientNode(p *party, r *process) rm.RetrievalClientNode {
	honest := marketnode.Client{Manager: r.payments}
	if p.hostile != nil {
		return node{honest, p.hostile}
	}
	return honest
}

// clientTargets is where a client's blocks go.
func (w *world) clientTargets(p *party, r *process) retrievalimpl.Targets {
	if p.hostile != nil {
		return p.hostile.store
	}
	return r.targets
}
