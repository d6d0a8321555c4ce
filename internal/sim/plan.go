package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// Plan is everything that a seed fixes: who trades what with whom, and what goes wrong when.
type Plan struct {
	Seed    uint64
	Engine  bool // records are kept by the engine of the product instead of a map
	Latency time.Duration
	Epoch   time.Duration // of the chain
	Clients []ClientPlan
	Ask     AskPlan
	Stream  bool // the provider takes streams
	Ahead   bool // the provider is one of our own
	Deals   []DealPlan
	Faults  []FaultPlan
	Attacks []AttackPlan
}

// ClientPlan is one client.
type ClientPlan struct{ Stream, Ahead bool }

// AskPlan is what the provider asks for.
type AskPlan struct {
	Price, Unseal      int64
	Interval, Increase uint64
}

// DealPlan is one payload that a client wants.
type DealPlan struct {
	Client  int
	At      time.Duration
	Shape   Shape
	Range   bool    // only some entries of the root
	Budget  float64 // of what the whole costs
	Cancel  time.Duration
	ByUs    bool // the client cancels, else the provider
	Again   bool // what did not complete is wanted once more
	Missing bool // the provider's piece lacks a leaf
}

// Shape is the form of a payload.
type Shape struct {
	Leaves, Size int
	Lists        int // how many lists of leaves lie between them and the root; 0: none
	Repeats      int // leaves that are linked twice
	Seed         uint64
}

// FaultKind is a kind of trouble.
type FaultKind int

// The kinds of trouble.
const (
	Crash      FaultKind = iota // power loss, at a time or at a write
	Restart                     // an orderly end and a new start
	Part                        // connections are lost, and cannot be made for a while
	Freeze                      // one direction is dead, for all streams or those of now
	Slow                        // another latency
	FullDisk                    // the files of a client cannot be written for a while
	NoChain                     // the chain is away for a while
	SlowReads                   // the provider's blocks come late for a while
	faultKinds                  // how many there are
)

func (k FaultKind) String() string {
	return [...]string{"crash", "restart", "part", "freeze", "slow", "full disk", "no chain", "slow reads"}[k]
}

// FaultPlan is one trouble.
type FaultPlan struct {
	Kind   FaultKind
	Who    int // a client, or the provider: -1
	At     time.Duration
	Write  int // of a crash: at this write after At; 0: at once
	For    time.Duration
	Both   bool // of a part: they are connected again by somebody else; of a freeze: new streams are dead too
	Toward bool // of a freeze: toward the provider
}

// NewPlan draws the plan of a seed.
func NewPlan(seed uint64) Plan {
	rnd := rand.New(rand.NewPCG(seed, 1))
	p := Plan{Seed: seed, Engine: seed%20 == 0, Latency: latency(rnd), Epoch: time.Duration(30<<rnd.IntN(7)) * time.Millisecond, Stream: rnd.IntN(2) == 0, Ahead: rnd.IntN(4) > 0,
		Ask: AskPlan{Price: int64(rnd.IntN(5)), Interval: uint64(500 + rnd.IntN(20_000)), Increase: uint64(rnd.IntN(2) * rnd.IntN(3000))}}
	if rnd.IntN(4) == 0 {
		p.Ask.Unseal = 1 + rnd.Int64N(1000)
	}
	for range 1 + rnd.IntN(1+rnd.IntN(4)) {
		p.Clients = append(p.Clients, ClientPlan{Stream: p.Stream && rnd.IntN(4) > 0, Ahead: rnd.IntN(4) > 0})
	}
	for range 1 + rnd.IntN(2*len(p.Clients)) {
		p.Deals = append(p.Deals, newDeal(rnd, len(p.Clients), p.Latency))
	}
	for range rnd.IntN(6) {
		p.Faults = append(p.Faults, newFault(rnd, len(p.Clients), p.Latency))
	}
	if seed%4 == 3 {
		p.Ask.Price = max(1, p.Ask.Price)
		for range 1 + rnd.IntN(2) {
			p.Attacks = append(p.Attacks, newAttack(rnd))
		}
	}
	return p
}

func latency(rnd *rand.Rand) time.Duration {
	return time.Duration(1<<rnd.IntN(7)) * time.Millisecond
}

// largestBlock is no smaller than any block of a plan, in bytes.
const largestBlock = 100 + 4000

func newDeal(rnd *rand.Rand, clients int, latency time.Duration) DealPlan {
	d := DealPlan{Client: rnd.IntN(clients), At: time.Duration(rnd.IntN(1000)) * time.Millisecond, Budget: 1,
		Shape: Shape{Leaves: 1 + rnd.IntN(30), Size: 100 + rnd.IntN(largestBlock-100), Seed: rnd.Uint64()}, Again: rnd.IntN(2) == 0}
	if rnd.IntN(3) == 0 {
		d.Shape.Lists = 1 + rnd.IntN(4)
	}
	if rnd.IntN(4) == 0 {
		d.Shape.Repeats = 1 + rnd.IntN(3)
	}
	d.Range = rnd.IntN(5) == 0
	switch rnd.IntN(12) {
	case 0:
		d.Budget = 0.3 + rnd.Float64()/2
	case 1:
		d.Budget = 1.5
	}
	if rnd.IntN(8) == 0 {
		d.Cancel, d.ByUs = soon(rnd, latency), rnd.IntN(2) == 0
	}
	d.Missing = rnd.IntN(30) == 0
	return d
}

// soon is a time while the deals of a plan run, mostly early.
func soon(rnd *rand.Rand, latency time.Duration) time.Duration {
	return time.Duration(rnd.ExpFloat64() * float64(300*time.Millisecond+25*latency))
}

func newFault(rnd *rand.Rand, clients int, lag time.Duration) FaultPlan {
	f := FaultPlan{Kind: FaultKind(rnd.IntN(int(faultKinds))), Who: rnd.IntN(clients+2) - 2, At: soon(rnd, lag), Both: rnd.IntN(2) == 0, Toward: rnd.IntN(2) == 0}
	f.Who = max(f.Who, -1) // the provider as often as two clients
	if rnd.IntN(3) == 0 {
		f.Kind = Crash
	}
	if f.Kind == Crash && rnd.IntN(2) == 0 {
		f.Write = 1 + rnd.IntN(40)
	}
	f.For = time.Duration(1<<rnd.IntN(15)) * time.Millisecond // up to 16 s
	if f.Kind == Slow {
		f.For = latency(rnd)
	}
	return f
}

// String prints the plan, one thing a line.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: ask %+v, latency %s, epoch %s, provider stream=%v ahead=%v, engine=%v\n", p.Seed, p.Ask, p.Latency, p.Epoch, p.Stream, p.Ahead, p.Engine)
	for i, c := range p.Clients {
		fmt.Fprintf(&b, "  client %d: %+v\n", i, c)
	}
	for i, d := range p.Deals {
		fmt.Fprintf(&b, "  deal %d: %+v\n", i, d)
	}
	for i, f := range p.Faults {
		fmt.Fprintf(&b, "  fault %d: %+v\n", i, f)
	}
	for i, a := range p.Attacks {
		fmt.Fprintf(&b, "  attack %d: %+v\n", i, a)
	}
	return b.String()
}
