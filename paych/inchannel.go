package paych

import (
	"sync"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"golang.org/x/time/rate"
)

// stateTTL is how long the state of a channel on the chain is trusted.
const stateTTL = 5 * time.Second

// inChannel is the owner of one inbound channel.
type inChannel struct {
	mu           sync.Mutex
	addr         address.Address
	confirmed    bool // its create was seen deep enough in the chain
	info         *ChannelInfo
	readAt       time.Time
	lanes        map[uint64]*laneRecord
	promised     abi.TokenAmount            // best of book and chain over all lanes
	redeemed     map[uint64]abi.TokenAmount // seen redeemed, by lane
	dayBook      dayBook
	limiter      *rate.Limiter // of vouchers of lanes that have not paid yet
	laneLimiters map[uint64]*rate.Limiter
}

// Vouchers that are looked at each second: of a lane, of all lanes of a channel together that have not paid yet, and of all such channels
// together. Who sends more waits; each costs a signature check, and of an unknown channel a question to the chain.
const (
	voucherRate  = 2000
	strangerRate = 100
)

func newInChannel(ch address.Address) *inChannel {
	return &inChannel{addr: ch, lanes: map[uint64]*laneRecord{}, promised: big.Zero(), redeemed: map[uint64]abi.TokenAmount{}, laneLimiters: map[uint64]*rate.Limiter{},
		limiter: rate.NewLimiter(voucherRate, 2*voucherRate)}
}

// limiterOf is how fast vouchers of a lane may come.
func (p *inChannel) limiterOf(lane uint64) *rate.Limiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lanes[lane] == nil {
		return p.limiter
	}
	l := p.laneLimiters[lane]
	if l == nil {
		l = rate.NewLimiter(voucherRate, 2*voucherRate)
		p.laneLimiters[lane] = l
	}
	return l
}

// syncFromChain raises the lanes to what the chain has redeemed: the book may be older, or lost. mu is held.
func (p *inChannel) syncFromChain(info *ChannelInfo) {
	for n, c := range info.Lanes {
		l := p.lanes[n]
		if l == nil {
			p.lanes[n] = &laneRecord{Channel: p.addr, Lane: n, Nonce: c.Nonce, Amount: c.Redeemed, Base: c.Redeemed, Reserved: big.Zero(), chainOnly: true}
			p.promised = big.Add(p.promised, c.Redeemed)
			continue
		}
		if c.Nonce <= l.Nonce && c.Redeemed.LessThanEqual(l.Amount) {
			continue
		}
		next := *l
		next.Nonce, next.Amount = max(c.Nonce, l.Nonce), big.Max(c.Redeemed, l.Amount)
		p.promised = big.Add(p.promised, big.Sub(next.Amount, l.Amount))
		p.lanes[n] = &next
	}
}
