package sim

import (
	"context"
	"math/rand/v2"
	"time"
)

// happen lets one fault happen and end.
func (w *world) happen(ctx context.Context, f FaultPlan, rnd *rand.Rand) {
	time.Sleep(f.At)
	p := w.of(f.Who)
	w.trace("%s: %s for %s %+v", p.name, f.Kind, f.For, f)
	switch f.Kind {
	case Crash:
		w.crash(ctx, p, f, rnd)
	case Restart:
		p.locked(func() {
			if p.now().up.Load() {
				w.stop(ctx, p)
			}
			time.Sleep(f.For)
			w.revive(ctx, p, rnd)
		})
	case Part:
		w.apart(p, f)
	case Freeze:
		w.freeze(p, f)
	case Slow:
		w.net.latency(f.For)
	case FullDisk:
		p.disk.full.Store(true)
		time.Sleep(f.For)
		p.disk.full.Store(false)
	case NoChain:
		p.noChain.Store(true)
		time.Sleep(f.For)
		p.noChain.Store(false)
	case SlowReads:
		w.pieces.delay(f.For / 64)
		time.Sleep(f.For)
		w.pieces.delay(0)
	}
	w.trace("%s: end of %s", p.name, f.Kind)
}

// locked runs f while nobody else starts or ends the party.
func (p *party) locked(f func()) {
	p.busy <- struct{}{}
	defer func() { <-p.busy }()
	f()
}

// pairs calls f for each pair of a client and the provider that a party is in.
func (w *world) pairs(p *party, f func(client *party)) {
	for _, c := range w.clients {
		if c == p || w.provider == p {
			f(c)
		}
	}
}

// writesWithin is how long a crash waits for the write that it happens at.
const writesWithin = 10 * time.Second

func (w *world) crash(ctx context.Context, p *party, f FaultPlan, rnd *rand.Rand) {
	if f.Write > 0 {
		var r *process
		p.locked(func() {
			r = p.now()
			r.sw.CrashAfter(f.Write)
		})
		select {
		case <-r.crashed:
		case <-time.After(writesWithin):
		}
	}
	p.locked(func() {
		if p.now().up.Load() {
			w.kill(ctx, p, f.For, rnd)
		}
		time.Sleep(f.For)
		w.revive(ctx, p, rnd)
	})
}

// kill ends a process as the loss of power does: what was not synced is gone, what it had sent arrives, and others hear of it later.
func (w *world) kill(ctx context.Context, p *party, down time.Duration, rnd *rand.Rand) {
	w.trace("%s: power loss at write %d", p.name, p.now().sw.Count())
	p.now().sw.Crash()
	p.now().up.Store(false)
	p.now().host.silence()
	p.disk.powerLoss(rnd)
	time.Sleep(time.Duration(rnd.Int64N(int64(min(down, 5*time.Second)))))
	w.pairs(p, func(c *party) { w.net.part(c.id, w.provider.id) })
	_ = p.now().end(ctx, p.disk)
}

// stop ends a process in order. A crash that was to come at one of the writes of this process can come at a write of its stop: then the stop fails, and
// rightly so.
func (w *world) stop(ctx context.Context, p *party) {
	w.trace("%s: stops", p.name)
	if err := p.now().end(ctx, p.disk); err != nil && !p.now().sw.Crashed() {
		w.finding("%s does not stop: %s", p.name, err)
	}
	w.pairs(p, func(c *party) { w.net.part(c.id, w.provider.id) })
}

// revive starts a party whose process has ended.
func (w *world) revive(ctx context.Context, p *party, rnd *rand.Rand) {
	if p.now().up.Load() && !p.now().sw.Crashed() {
		return
	}
	w.trace("%s: starts", p.name)
	if err := p.start(ctx); err != nil {
		w.finding("%s does not start: %s", p.name, err)
		return
	}
	dial := rnd.IntN(2) == 0
	w.pairs(p, func(c *party) {
		if c.now().up.Load() && w.provider.now().up.Load() {
			w.net.join(c.now().host, w.provider.now().host, dial)
		}
	})
}

func (w *world) apart(p *party, f FaultPlan) {
	w.pairs(p, func(c *party) { w.net.part(c.id, w.provider.id) })
	time.Sleep(f.For)
	w.pairs(p, func(c *party) {
		if c.now().up.Load() && w.provider.now().up.Load() {
			w.net.join(c.now().host, w.provider.now().host, f.Both)
		}
	})
}

func (w *world) freeze(p *party, f FaultPlan) {
	each := func(do func(from, to *party)) {
		w.pairs(p, func(c *party) {
			if f.Toward {
				do(c, w.provider)
			} else {
				do(w.provider, c)
			}
		})
	}
	each(func(from, to *party) { w.net.freeze(from.id, to.id, f.Both) })
	time.Sleep(f.For)
	if f.Write%2 == 1 { // the connection is found dead
		w.pairs(p, func(c *party) { w.net.part(c.id, w.provider.id) })
		time.Sleep(time.Millisecond)
		w.pairs(p, func(c *party) {
			if c.now().up.Load() && w.provider.now().up.Load() {
				w.net.join(c.now().host, w.provider.now().host, false)
			}
		})
	}
	each(func(from, to *party) { w.net.heal(from.id, to.id) })
}
