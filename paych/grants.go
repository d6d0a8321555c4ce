package paych

import (
	"context"

	"github.com/filecoin-project/go-address"
)

// grantRequests answers the requests that fit into what is free, and those that nobody waits for; the others are returned.
func (p *outChannel) grantRequests(batch []*fundsRequest) (rest []*fundsRequest) {
	for _, r := range batch {
		switch ch, ok := p.grantRequest(r); {
		case ok:
			r.answer <- fundsAnswer{ready: Ready{Channel: ch}}
		case p.isAbandoned(r):
			r.answer <- fundsAnswer{err: context.Canceled}
		default:
			rest = append(rest, r)
		}
	}
	return rest
}

func (p *outChannel) isAbandoned(r *fundsRequest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return r.abandoned
}

// grantRequest grants a request if what it asks for is free on a ready channel.
func (p *outChannel) grantRequest(r *fundsRequest) (address.Address, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rec.Address.Empty() || p.rec.Settling || p.freeFunds().LessThan(r.amount) {
		return address.Undef, false
	}
	if !r.abandoned {
		p.reserve(r.deal, r.amount)
	}
	return p.rec.Address, true
}
