package retrievalimpl

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

const (
	quoteHonoured = 60 * time.Second // after it was given (4.1)
	maxQuotes     = 4096             // that are remembered; a peer has one for each ask
)

// quotes are the asks that were told to a peer a short time ago: a price that rises between a query and its proposal does not
// count for that proposal, and for nobody else's.
type quotes struct {
	mu   sync.Mutex
	list []quote
}

type quote struct {
	to    peer.ID
	ask   rm.Ask
	until time.Time
}

// given notes that an ask was told to a client.
func (q *quotes) given(to peer.ID, a rm.Ask) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	kept := q.list[:0]
	for _, o := range q.list {
		if now.Before(o.until) && (o.to != to || !sameAsk(o.ask, a)) {
			kept = append(kept, o)
		}
	}
	if len(kept) >= maxQuotes {
		kept = kept[1:]
	}
	kept = append(kept, quote{to, a, now.Add(quoteHonoured)})
	q.list = kept
}

// check compares a proposal with the ask and with what its peer was quoted lately, and returns the one that it meets; the error is that of
// the ask.
func (q *quotes) check(from peer.ID, p *rm.DealProposal, ask *rm.Ask) (*rm.Ask, error) {
	err := checkTerms(p, ask)
	if err == nil {
		return ask, nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, o := range q.list {
		if o.to == from && time.Now().Before(o.until) && checkTerms(p, &o.ask) == nil {
			return &o.ask, nil
		}
	}
	return nil, err
}

func sameAsk(a, b rm.Ask) bool {
	return a.PricePerByte.Equals(b.PricePerByte) && a.UnsealPrice.Equals(b.UnsealPrice) && a.PaymentInterval == b.PaymentInterval &&
		a.PaymentIntervalIncrease == b.PaymentIntervalIncrease
}
