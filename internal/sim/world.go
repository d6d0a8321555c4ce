// Package sim runs a provider, a few clients and a chain in one process under virtual time, over a network and stores that fail, and checks
// afterwards that nobody lost money, that nothing hangs and that both sides agree. One seed fixes what is traded and what goes wrong; the order
// of goroutines it does not.
package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipld/go-ipld-prime"

	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
	"github.com/cartage-dev/cartage/shared"
)

// world is one run of a plan. It has to be made, run and checked in one bubble of testing/synctest.
type world struct {
	plan     Plan
	began    time.Time
	net      *faultyNet
	chain    *chain
	pieces   *pieces
	provider *party
	clients  []*party
	deals    []*order
	attacks  []*attack

	mu       sync.Mutex
	thieves  []*party
	taken    uint64 // bytes that were not paid, by everybody, and how many may be
	bound    uint64
	looks    []time.Time // of the provider at its payment channels, from end to end
	steps    []string
	findings []string
	advanced map[rm.DealID]bool // deals that are paid in advance
}

// Result is what a run came to.
type Result struct {
	Findings  []string // what must not be; none is a good run
	Trace     []string
	Deals     int
	Completed int
	// Taken is how many bytes were taken and not paid, where somebody attacked, and Bound how many may be.
	Taken, Bound uint64
}

// Run runs a plan inside a bubble.
func Run(ctx context.Context, plan Plan) Result {
	w := &world{plan: plan, began: time.Now(), net: newFaultyNet(plan.Seed), chain: newChain(plan.Epoch), pieces: newPieces(), advanced: map[rm.DealID]bool{}}
	if err := w.setUp(ctx); err != nil {
		w.finding("set up: %s", err)
	} else {
		w.live(ctx)
		w.check(ctx)
		w.settle(ctx)
	}
	for _, p := range w.everybody() {
		if p.hostile != nil && !p.now().up.Load() {
			continue // it has left
		}
		if err := p.now().end(ctx, p.disk); err != nil {
			w.finding("%s does not end: %s", p.name, err)
		}
	}
	if err := w.net.close(); err != nil {
		w.finding("network: %s", err)
	}
	return w.result()
}

func (w *world) result() Result {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := Result{Findings: w.findings, Trace: w.steps, Taken: w.taken, Bound: w.bound}
	for _, o := range w.deals {
		r.Deals += len(o.tries)
		if o.completed {
			r.Completed++
		}
	}
	return r
}

func (w *world) trace(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.steps = append(w.steps, fmt.Sprintf("%9.3fs ", time.Since(w.began).Seconds())+fmt.Sprintf(format, args...))
}

func (w *world) finding(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.trace("FINDING %s", text)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.findings = append(w.findings, text)
}

func (w *world) sawClient(p *party, e rm.ClientEvent, s rm.ClientDealState) {
	if e == rm.ClientEventBlocksReceived {
		return
	}
	if e == rm.ClientEventUnsealPaymentRequested && s.PaymentRequested.GreaterThan(s.UnsealPrice) {
		w.mu.Lock()
		w.advanced[s.ID] = true
		w.mu.Unlock()
	}
	w.trace("%s deal %d %s > %s: received %d spent %s asked %s %s", p.name, s.ID%1000, strings.TrimPrefix(e.String(), "ClientEvent"), strings.TrimPrefix(s.Status.String(), "DealStatus"),
		s.TotalReceived, s.FundsSpent, s.PaymentRequested, s.Message)
}

func (w *world) sawProvider(e rm.ProviderEvent, s rm.ProviderDealState) {
	if e == rm.ProviderEventBlockSent {
		return
	}
	w.trace("provider deal %d %s > %s: sent %d funds %s %s", s.ID%1000, strings.TrimPrefix(e.String(), "ProviderEvent"), strings.TrimPrefix(s.Status.String(), "DealStatus"),
		s.TotalSent, s.FundsReceived, s.Message)
}

func (w *world) parties() []*party {
	if w.provider == nil {
		return w.clients
	}
	return append([]*party{w.provider}, w.clients...)
}

// everybody are the parties, also those that attack.
func (w *world) everybody() []*party {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append(append([]*party(nil), w.parties()...), w.thieves...)
}

func (w *world) addParty(p *party) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.thieves = append(w.thieves, p)
}

// most is what may be paid for a deal whose client verified so many bytes: what is due, and one interval for one that is paid in advance.
func (w *world) most(c *rm.ClientDealState) abi.TokenAmount {
	terms := clientstates.Terms(c)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.advanced[c.ID] {
		return terms.Due(c.TotalReceived + max(terms.Interval, largestBlock)) // one that is larger than an interval is paid whole
	}
	return terms.Due(c.TotalReceived)
}

// of is the party of a fault.
func (w *world) of(who int) *party {
	if who < 0 {
		return w.provider
	}
	return w.clients[who]
}

func (w *world) setUp(ctx context.Context) error {
	w.net.latency(w.plan.Latency)
	p, err := newParty(w, "provider", 1)
	if err != nil {
		return err
	}
	p.provider, p.stream, p.ahead = true, w.plan.Stream, w.plan.Ahead
	w.provider = p
	for i, c := range w.plan.Clients {
		p, err := newParty(w, fmt.Sprintf("client%d", i), 2+i)
		if err != nil {
			return err
		}
		p.stream, p.ahead = c.Stream, c.Ahead
		w.clients = append(w.clients, p)
	}
	for _, p := range w.parties() {
		if err := p.start(ctx); err != nil {
			return err
		}
	}
	if err := w.provider.now().asks.SetAsk(w.ask()); err != nil {
		return err
	}
	for _, c := range w.clients {
		w.net.join(c.now().host, w.provider.now().host, true)
	}
	for i, d := range w.plan.Deals {
		pay, err := w.pieces.want(d)
		if err != nil {
			return err
		}
		w.deals = append(w.deals, &order{w: w, number: i, plan: d, payload: pay, client: w.clients[d.Client]})
	}
	for i, plan := range w.plan.Attacks {
		a := &attack{w: w, plan: plan, first: 100 * (i + 1)}
		for j := range 2 + plan.Times {
			shape := plan.Shape
			shape.Seed += uint64(j)
			pay, err := w.pieces.want(DealPlan{Shape: shape})
			if err != nil {
				return err
			}
			a.list = append(a.list, pay)
		}
		w.attacks = append(w.attacks, a)
	}
	return nil
}

func (w *world) ask() *rm.Ask {
	a := w.plan.Ask
	return &rm.Ask{PricePerByte: big.NewInt(a.Price), UnsealPrice: big.NewInt(a.Unseal), PaymentInterval: a.Interval, PaymentIntervalIncrease: a.Increase}
}

// restLimit is after how much time without faults everything has to have ended, one way or the other.
const restLimit = 3 * time.Hour

// live lets the deals and the faults happen, and then everything come to rest.
func (w *world) live(ctx context.Context) {
	var deals, trouble sync.WaitGroup
	for _, o := range w.deals {
		deals.Go(func() { o.run(ctx) })
	}
	for i, f := range w.plan.Faults {
		rnd := rand.New(rand.NewPCG(w.plan.Seed, uint64(100+i)))
		trouble.Go(func() { w.happen(ctx, f, rnd) })
	}
	for _, a := range w.attacks {
		trouble.Go(func() { a.run(ctx) })
	}
	trouble.Wait()
	w.wellAgain(ctx)
	w.trace("no more faults")
	ended := make(chan struct{})
	go func() {
		deals.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(2 * restLimit):
		w.finding("a deal does not end")
		<-ended
	}
}

// wellAgain ends all faults.
func (w *world) wellAgain(ctx context.Context) {
	w.pieces.delay(0)
	for _, p := range w.parties() {
		p.noChain.Store(false)
		p.disk.full.Store(false)
		p.locked(func() {
			if !p.now().up.Load() || p.now().sw.Crashed() {
				w.revive(ctx, p, rand.New(rand.NewPCG(w.plan.Seed, 9)))
			}
		})
	}
	for _, c := range w.clients {
		w.net.heal(c.id, w.provider.id)
		w.net.heal(w.provider.id, c.id)
		w.net.join(c.now().host, w.provider.now().host, true)
	}
}

// selectorOf is the selector that a payload is asked for with.
func selectorOf(sel ipld.Node) ipld.Node {
	if sel == nil {
		return shared.AllSelector()
	}
	return sel
}
