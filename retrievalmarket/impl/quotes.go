package retrievalimpl

import (
	"sync"
	"time"

	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

const (
	quoteHonoured = 60 * time.Second // after it was given (4.1)
	maxQuotes     = 16               // asks that are remembered: an operator changes the ask by hand
)

// quotes are the asks that were told to somebody a short time ago: a price that rises between a query and its proposal does not
// count for that proposal.
type quotes struct {
	mu   sync.Mutex
	list []quote
}

type quote struct {
	ask   rm.Ask
	until time.Time
}

// given notes that an ask was told to a client.
func (q *quotes) given(a rm.Ask) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	kept := q.list[:0]
	for _, o := range q.list {
		if now.Before(o.until) && !sameAsk(o.ask, a) {
			kept = append(kept, o)
		}
	}
	if len(kept) >= maxQuotes {
		kept = kept[1:]
	}
	q.list = append(kept, quote{a, now.Add(quoteHonoured)})
}

// check compares a proposal with the ask and with what was quoted lately; the error is that of the ask.
func (q *quotes) check(p *rm.DealProposal, ask *rm.Ask) error {
	err := checkTerms(p, ask)
	if err == nil {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, o := range q.list {
		if time.Now().Before(o.until) && checkTerms(p, &o.ask) == nil {
			return nil
		}
	}
	return err
}

func sameAsk(a, b rm.Ask) bool {
	return a.PricePerByte.Equals(b.PricePerByte) && a.UnsealPrice.Equals(b.UnsealPrice) && a.PaymentInterval == b.PaymentInterval &&
		a.PaymentIntervalIncrease == b.PaymentIntervalIncrease
}
