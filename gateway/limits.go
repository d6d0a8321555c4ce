package gateway

import (
	"container/list"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits bound what strangers cost. Zero fields are the defaults.
type Limits struct {
	PlanBlocks int    // of a closed plan; 65,536
	PlanBytes  uint64 // of blocks with links that are read for one; 16 MiB
	PlanCache  int64  // bytes of plans that are kept; 64 MiB
	Depth      int    // links that lead to a block; 1,024
	Links      int    // of one block; 65,536

	Window    uint64 // bytes that are advised for one payment; 4 MiB
	MaxWindow uint64 // bytes that one payment may buy; 8 MiB
	Memory    int64  // bytes of windows that are paid for and not sent yet; 256 MiB
	Waiting   int    // requests that wait for that memory; 256

	Free           int     // answers that are sent at once without payment; 256
	FreePerAddress int     // of them to one address; 16
	OpenPlans      int     // of them without a length; 8
	Requests       float64 // without payment, a second and address; 50, with bursts of 200
	AllRequests    float64 // and of all addresses; 2,000
	Lookups        float64 // of blocks, a second and address; 50,000, with bursts of 200,000
	FailedPayments int     // a minute and address; 20
	Addresses      int     // that are remembered; 65,536

	Progress time.Duration // within which a client has to take the next bytes; 60 s

	// Reached is told each time that somebody is refused for a limit; nil: nobody is.
	Reached func(Bound)
}

// Bound is a limit that somebody was refused for.
type Bound uint8

// The bounds, by the fields of Limits.
const (
	BoundRequests Bound = iota
	BoundAllRequests
	BoundFree
	BoundFreePerAddress
	BoundFailedPayments
	BoundMemory
)

// reached tells of a refusal.
func (l *Limits) reached(b Bound) {
	if l.Reached != nil {
		l.Reached(b)
	}
}

// setDefaults fills in what was left out.
func (l *Limits) setDefaults() {
	const mib = 1 << 20
	orInt := func(p *int, v int) {
		if *p <= 0 {
			*p = v
		}
	}
	orFloat := func(p *float64, v float64) {
		if *p <= 0 {
			*p = v
		}
	}
	orInt(&l.PlanBlocks, 65536)
	orInt(&l.Depth, 1024)
	orInt(&l.Links, 65536)
	orInt(&l.Waiting, 256)
	orInt(&l.Free, 256)
	orInt(&l.FreePerAddress, 16)
	orInt(&l.OpenPlans, 8)
	orInt(&l.FailedPayments, 20)
	orInt(&l.Addresses, 65536)
	orFloat(&l.Requests, 50)
	orFloat(&l.AllRequests, 2000)
	orFloat(&l.Lookups, 50_000)
	for _, b := range []struct {
		p *uint64
		v uint64
	}{{&l.PlanBytes, 16 * mib}, {&l.Window, 4 * mib}, {&l.MaxWindow, 8 * mib}} {
		if *b.p == 0 {
			*b.p = b.v
		}
	}
	if l.PlanCache <= 0 {
		l.PlanCache = 64 * mib
	}
	if l.Memory <= 0 {
		l.Memory = 256 * mib
	}
	if l.Progress <= 0 {
		l.Progress = time.Minute
	}
}

// visitor is an address without a payment, as far as it is remembered: one IPv4 address, or an IPv6 /48.
type visitor struct {
	prefix   netip.Prefix
	requests *rate.Limiter
	lookups  *rate.Limiter
	failures *rate.Limiter
	sending  int // answers that are being sent to it
}

// turnstile counts what addresses cost. It is safe for concurrent use.
type turnstile struct {
	limits *Limits
	all    *rate.Limiter

	mu      sync.Mutex
	sending int
	open    int
	known   map[netip.Prefix]*list.Element
	recent  *list.List // of *visitor
}

func newTurnstile(l *Limits) *turnstile {
	return &turnstile{limits: l, all: rate.NewLimiter(rate.Limit(l.AllRequests), int(2*l.AllRequests)+1), known: map[netip.Prefix]*list.Element{}, recent: list.New()}
}

// prefixOf is what is counted as one address.
func prefixOf(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	bits := 48
	if a.Is4() {
		bits = 32
	}
	p, err := a.Prefix(bits)
	if err != nil { // no address: all of these are one
		return netip.Prefix{}
	}
	return p
}

// visitor finds or remembers an address.
func (t *turnstile) visitor(a netip.Addr) *visitor {
	p := prefixOf(a)
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.known[p]; e != nil {
		t.recent.MoveToFront(e)
		return e.Value.(*visitor)
	}
	l := t.limits
	v := &visitor{prefix: p, requests: rate.NewLimiter(rate.Limit(l.Requests), int(4*l.Requests)+1), lookups: rate.NewLimiter(rate.Limit(l.Lookups), int(4*l.Lookups)+lookupBatch),
		failures: rate.NewLimiter(rate.Limit(float64(l.FailedPayments)/60), l.FailedPayments)}
	t.known[p] = t.recent.PushFront(v)
	for t.recent.Len() > l.Addresses {
		old := t.recent.Back().Value.(*visitor)
		t.recent.Remove(t.known[old.prefix])
		delete(t.known, old.prefix)
	}
	return v
}

func tooMany(what string) *failure {
	return fail(http.StatusTooManyRequests, TooManyRequests, "%s", what).withHint("Wait, and ask again.").after(1)
}

// admit lets a request without a payment in.
func (t *turnstile) admit(v *visitor) error {
	if !v.requests.Allow() {
		t.limits.reached(BoundRequests)
		return tooMany("too many requests come from this address")
	}
	if !t.all.Allow() {
		t.limits.reached(BoundAllRequests)
		return fail(http.StatusServiceUnavailable, Busy, "too many requests come at once").after(1)
	}
	return nil
}

// charge counts look-ups of an address.
func (v *visitor) charge(n int) error {
	if !v.lookups.AllowN(time.Now(), n) {
		return tooMany("this address asks for more blocks to be looked up than one may")
	}
	return nil
}

// send lets an answer without payment begin; done is called at its end.
func (t *turnstile) send(v *visitor, open bool) (done func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case v.sending >= t.limits.FreePerAddress:
		t.limits.reached(BoundFreePerAddress)
		return nil, tooMany("this address has as many answers on their way as one may have")
	case t.sending >= t.limits.Free, open && t.open >= t.limits.OpenPlans:
		t.limits.reached(BoundFree)
		return nil, fail(http.StatusServiceUnavailable, Busy, "as many answers are on their way as can be").after(5)
	}
	n := 0
	if open {
		n = 1
	}
	v.sending, t.sending, t.open = v.sending+1, t.sending+1, t.open+n
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		v.sending, t.sending, t.open = v.sending-1, t.sending-1, t.open-n
	}, nil
}
