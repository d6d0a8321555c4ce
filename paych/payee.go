package paych

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
	mu       sync.Mutex
	addr     address.Address
	confirmed     bool // its create was seen deep enough in the chain
	info     *ChannelInfo
	readAt     time.Time
	lanes    map[uint64]*laneRecord
	promised abi.TokenAmount            // best of book and chain over all lanes
	redeemed     map[uint64]abi.TokenAmount // seen redeemed, by lane
	dayBook    dayBook
	limiter     *rate.Limiter // of vouchers of lanes that have not paid yet
	laneLimiters    map[uint64]*rate.Limiter
}

func (m *Manager) loadInbound(ctx context.Context) error {
	err := eachRecord(ctx, m.ds, "/i/lane", func(l *laneRecord) error {
		p := m.inChannelAt(l.Channel)
		p.lanes[l.Lane] = l
		p.promised = big.Add(p.promised, l.Amount)
		if l.Deal != "" {
			m.bound[l.Deal] = dealRef{l.Channel, l.Lane}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return eachRecord(ctx, m.ds, paidPrefix, func(r *paidRecord) error {
		m.inChannelAt(r.Channel).redeemed[r.Lane] = r.Redeemed
		return nil
	})
}

// channelOrStranger returns the owner of a channel, or one that is not remembered.
func (m *Manager) channelOrStranger(ch address.Address) *inChannel {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.channels[ch]; p != nil {
		return p
	}
	p := newInChannel(ch)
	p.limiter = m.strangers
	return p
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

// keepChannel keeps the owner of a channel that has paid, with what is known of it.
func (m *Manager) keepChannel(p *inChannel) *inChannel {
	m.mu.Lock()
	defer m.mu.Unlock()
	if known := m.channels[p.addr]; known != nil {
		return known
	}
	p.limiter = rate.NewLimiter(voucherRate, 2*voucherRate)
	m.channels[p.addr] = p
	return p
}

func (m *Manager) inChannelAt(ch address.Address) *inChannel {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.channels[ch]
	if p == nil {
		p = newInChannel(ch)
		m.channels[ch] = p
	}
	return p
}

// chainState returns the channel on the chain, cached; while the chain is away the last known state serves (D20).
func (m *Manager) chainState(ctx context.Context, p *inChannel) (*ChannelInfo, error) {
	info, err := m.lastChainState(ctx, p)
	if err != nil && info != nil && !errors.Is(err, ErrUnknownChannel) {
		return info, nil
	}
	return info, err
}

// lastChainState is what the chain says of a channel, or, with the error that kept it from saying it now, what it said last, which may be nothing.
func (m *Manager) lastChainState(ctx context.Context, p *inChannel) (*ChannelInfo, error) {
	p.mu.Lock()
	info, fresh := p.info, time.Since(p.readAt) < stateTTL
	p.mu.Unlock()
	if info != nil && fresh {
		return info, nil
	}
	next, err := m.readChainState(ctx, p)
	if err != nil {
		return info, err
	}
	return next, nil
}

// readChainState asks the chain for a channel.
func (m *Manager) readChainState(ctx context.Context, p *inChannel) (*ChannelInfo, error) {
	next, err := m.chain.Channel(ctx, p.addr)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.info, p.readAt = next, time.Now()
	p.syncFromChain(next)
	p.mu.Unlock()
	return next, nil
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

// checkChannel makes the checks that need the chain (3.5, rows 10 to 13).
func (m *Manager) checkChannel(ctx context.Context, p *inChannel, info *ChannelInfo) error {
	if info.Collected {
		return fmt.Errorf("%w: %s", ErrChannelSettled, info.Address)
	}
	if !m.wallet.Has(info.To) {
		return fmt.Errorf("%w: %s pays %s", ErrWrongPayee, info.Address, info.To)
	}
	if err := m.CheckWindow(ctx); err != nil {
		return err
	}
	if info.SettlingAt != 0 {
		switch _, epoch, err := m.chain.Head(ctx); {
		case err != nil:
			return err
		case info.pastWindow(epoch):
			return fmt.Errorf("%w: %s, since epoch %d", ErrChannelSettled, info.Address, info.SettlingAt)
		}
	}
	return m.checkDepth(ctx, p, info)
}

// checkDepth waits for the confirmations of a channel. One that was seen deep enough is not asked for again: a chain that is away does
// not stop the deals on it.
func (m *Manager) checkDepth(ctx context.Context, p *inChannel, info *ChannelInfo) error {
	f := m.chain.Finality()
	p.mu.Lock()
	deep := p.confirmed
	p.mu.Unlock()
	if f == 0 || deep {
		return nil
	}
	_, epoch, err := m.chain.Head(ctx)
	if err != nil {
		return err
	}
	if epoch-info.OpenedAt < f {
		return fmt.Errorf("%w: opened at %d, now %d, needed depth %d", ErrUnconfirmed, info.OpenedAt, epoch, f)
	}
	p.mu.Lock()
	p.confirmed = true
	p.mu.Unlock()
	return nil
}

// bookVoucher compares a voucher with the book and puts it there (rows 14 to 18).
func (m *Manager) bookVoucher(ctx context.Context, p *inChannel, info *ChannelInfo, want booking) (abi.TokenAmount, error) {
	deal, v := want.deal, want.voucher
	b, err := m.ds.Batch(ctx)
	if err != nil {
		return big.Zero(), err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	zero := big.Zero()
	l := p.lanes[v.Lane]
	best := laneRecord{Channel: p.addr, Lane: v.Lane, Amount: zero, Reserved: zero, Base: zero}
	if l != nil {
		best = *l
	}
	switch {
	case l != nil && !l.chainOnly && best.Deal != deal:
		return zero, fmt.Errorf("%w: lane %d pays for %s", ErrLaneBound, v.Lane, best.Deal)
	case l != nil && l.Voucher != nil && v.Nonce == l.Nonce && SameVoucher(v, l.Voucher):
		return zero, nil
	case v.Nonce <= best.Nonce:
		return zero, fmt.Errorf("%w: lane %d has nonce %d, voucher %d", ErrStaleNonce, v.Lane, best.Nonce, v.Nonce)
	case v.Amount.LessThanEqual(best.Amount):
		return zero, fmt.Errorf("%w: lane %d has %s, voucher %s", ErrAmountNotIncreasing, v.Lane, best.Amount, v.Amount)
	}
	grown := big.Sub(v.Amount, best.Amount)
	promised := big.Add(p.promised, grown)
	if promised.GreaterThan(info.Balance) {
		p.readAt = time.Time{}
		return zero, fmt.Errorf("%w: short by %s", ErrInsufficientChannel, big.Sub(promised, info.Balance))
	}
	if grown.LessThan(want.expected) {
		return grown, fmt.Errorf("%w: %s, expected %s", ErrTooSmall, grown, want.expected)
	}
	if want.exact && grown.GreaterThan(want.expected) {
		return zero, fmt.Errorf("%w: it adds %s, asked for are %s", ErrNotExact, grown, want.expected)
	}
	undo, err := m.bindDeal(deal, dealRef{p.addr, v.Lane})
	if err != nil {
		return zero, err
	}
	if best.Deal, best.Nonce, best.Amount, best.Voucher, best.chainOnly = deal, v.Nonce, v.Amount, v, false; want.added {
		best.Bytes += want.covers
	} else {
		best.Bytes = want.covers
	}
	day, err := m.dayBookOf(ctx, p)
	day.rec.Vouchered = big.Add(day.rec.Vouchered, grown)
	err = errors.Join(err, putRecord(ctx, b, laneKey("i", p.addr, v.Lane), &best), putRecord(ctx, b, dealKey("i", deal), &dealRef{p.addr, v.Lane}),
		putRecord(ctx, b, dayKey(day.date, p.addr), &day.rec))
	if err == nil && want.also != nil {
		err = want.also(ctx, b)
	}
	if err == nil {
		err = b.Commit(ctx)
	}
	if err != nil {
		undo()
		return zero, err
	}
	p.lanes[v.Lane], p.promised, p.dayBook = &best, promised, day
	return grown, nil
}

// bindDeal binds a deal to a lane, unless it is bound to another; undo takes it back when nothing was stored.
func (m *Manager) bindDeal(deal string, ref dealRef) (undo func(), err error) {
	if deal == "" {
		return func() {}, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if has, ok := m.bound[deal]; ok {
		if has != ref {
			return nil, fmt.Errorf("%w: the deal is paid on lane %d of %s", ErrLaneBound, has.Lane, has.Channel)
		}
		return func() {}, nil
	}
	m.bound[deal] = ref
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.bound, deal)
	}, nil
}

// Summary is a payment channel as a user sees it.
type Summary struct {
	Channel    address.Address
	Outbound   bool
	From, To   address.Address
	Deposit    abi.TokenAmount
	Vouchered  abi.TokenAmount
	Redeemed   abi.TokenAmount
	SettlingAt abi.ChainEpoch
	Collected  bool
	Lanes      []Entry
	// Trouble is why the chain says nothing of the channel: then deposit, redeemed, settling and collected are unknown, whatever they hold.
	Trouble error
}

// Booked returns the channels of the books with their lanes; what the chain knows of them is left out.
func (m *Manager) Booked() (out []Summary) {
	m.mu.Lock()
	payers, payees := maps.Clone(m.byAddr), maps.Clone(m.channels)
	m.mu.Unlock()
	for a, p := range payers {
		s := Summary{Channel: a, Outbound: true}
		p.mu.Lock()
		s.Vouchered, s.From, s.To = p.rec.Promised, p.rec.From, p.rec.To
		for _, l := range p.lanes {
			s.Lanes = append(s.Lanes, l.bookEntry())
		}
		p.mu.Unlock()
		out = append(out, s)
	}
	for a, p := range payees {
		s := Summary{Channel: a}
		p.mu.Lock()
		s.Vouchered = p.promised
		for _, l := range p.lanes {
			if !l.chainOnly {
				s.Lanes = append(s.Lanes, l.bookEntry())
			}
		}
		p.mu.Unlock()
		if len(s.Lanes) > 0 {
			out = append(out, s)
		}
	}
	return out
}

// List returns all payment channels of the node.
func (m *Manager) List(ctx context.Context) ([]Summary, error) {
	out := m.Booked()
	for i := range out {
		s := &out[i]
		info, err := m.chain.Channel(ctx, s.Channel)
		if err != nil {
			// One channel that cannot be read does not hide the others.
			s.Deposit, s.Redeemed, s.Trouble = big.Zero(), big.Zero(), err
			continue
		}
		s.From, s.To, s.Deposit, s.Redeemed = info.From, info.To, info.Balance, info.ToSend
		s.SettlingAt, s.Collected = info.SettlingAt, info.Collected
	}
	return out, nil
}
