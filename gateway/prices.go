package gateway

import (
	"sync"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
)

// For how long a price that was offered is taken, and how many of them.
const (
	honoured    = 10 * time.Minute
	maxHonoured = 16
)

// Prices remembers the prices of a cashier: one that was offered is taken for ten minutes after it was changed. It is safe for concurrent use.
type Prices struct {
	price func() abi.TokenAmount
	now   func() time.Time

	mu      sync.Mutex
	current abi.TokenAmount
	past    []pastPrice // the newest first
}

// pastPrice is a price that is taken until a time.
type pastPrice struct {
	price abi.TokenAmount
	until time.Time
}

// NewPrices begins with the price of now.
func NewPrices(price func() abi.TokenAmount, now func() time.Time) *Prices {
	return &Prices{price: price, now: now, current: price()}
}

// Taken are the prices that are taken now, the current one first.
func (p *Prices) Taken() []abi.TokenAmount {
	now, price := p.now(), p.price()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !price.Equals(p.current) {
		p.past = append([]pastPrice{{p.current, now.Add(honoured)}}, p.past...)
		p.past = p.past[:min(len(p.past), maxHonoured)]
		p.current = price
	}
	out := []abi.TokenAmount{price}
	for _, a := range p.past {
		if now.Before(a.until) {
			out = append(out, a.price)
		}
	}
	return out
}
