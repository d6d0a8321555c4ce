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

// payee is the owner of one inbound channel.
type payee struct {
	mu       sync.Mutex
	addr     address.Address
	deep     bool // its create was seen deep enough in the chain
	info     *ChannelInfo
	read     time.Time
	lanes    map[uint64]*laneRecord
	promised abi.TokenAmount            // best of book and chain over all lanes
	paid     map[uint64]abi.TokenAmount // seen redeemed, by lane
	today    today
	pace     *rate.Limiter // of vouchers of lanes that have not paid yet
	paces    map[uint64]*rate.Limiter
}

func (m *Manager) loadInbound(ctx context.Context) error {
	err := each(ctx, m.ds, "/i/lane", func(l *laneRecord) error {
		p := m.payee(l.Channel)
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
	return each(ctx, m.ds, paidPrefix, func(r *paidRecord) error {
		m.payee(r.Channel).paid[r.Lane] = r.Redeemed
		return nil
	})
}

// known returns the owner of a channel, or one that is not remembered.
func (m *Manager) known(ch address.Address) *payee {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.inbound[ch]; p != nil {
		return p
	}
	p := newPayee(ch)
	p.pace = m.strangers
	return p
}

// Vouchers that are looked at each second: of a lane, of all lanes of a channel together that have not paid yet, and of all such channels
// together. Who sends more waits; each costs a signature check, and of an unknown channel a question to the chain.
const (
	voucherRate  = 2000
	strangerRate = 100
)

func newPayee(ch address.Address) *payee {
	return &payee{addr: ch, lanes: map[uint64]*laneRecord{}, promised: big.Zero(), paid: map[uint64]abi.TokenAmount{}, paces: map[uint64]*rate.Limiter{},
		pace: rate.NewLimiter(voucherRate, 2*voucherRate)}
}

// paceOf is how fast vouchers of a lane may come.
func (p *payee) paceOf(lane uint64) *rate.Limiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lanes[lane] == nil {
		return p.pace
	}
	l := p.paces[lane]
	if l == nil {
		l = rate.NewLimiter(voucherRate, 2*voucherRate)
		p.paces[lane] = l
	}
	return l
}

// remember keeps the owner of a channel that has paid, with what is known of it.
func (m *Manager) remember(p *payee) *payee {
	m.mu.Lock()
	defer m.mu.Unlock()
	if known := m.inbound[p.addr]; known != nil {
		return known
	}
	p.pace = rate.NewLimiter(voucherRate, 2*voucherRate)
	m.inbound[p.addr] = p
	return p
}

func (m *Manager) payee(ch address.Address) *payee {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.inbound[ch]
	if p == nil {
		p = newPayee(ch)
		m.inbound[ch] = p
	}
	return p
}

// state returns the channel on the chain, cached; while the chain is away the last known state serves (D20).
func (m *Manager) state(ctx context.Context, p *payee) (*ChannelInfo, error) {
	info, err := m.lastKnown(ctx, p)
	if err != nil && info != nil && !errors.Is(err, ErrUnknownChannel) {
		return info, nil
	}
	return info, err
}

// lastKnown is what the chain says of a channel, or, with the error that kept it from saying it now, what it said last, which may be nothing.
func (m *Manager) lastKnown(ctx context.Context, p *payee) (*ChannelInfo, error) {
	p.mu.Lock()
	info, fresh := p.info, time.Since(p.read) < stateTTL
	p.mu.Unlock()
	if info != nil && fresh {
		return info, nil
	}
	next, err := m.reread(ctx, p)
	if err != nil {
		return info, err
	}
	return next, nil
}

// reread asks the chain for a channel.
func (m *Manager) reread(ctx context.Context, p *payee) (*ChannelInfo, error) {
	next, err := m.chain.Channel(ctx, p.addr)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.info, p.read = next, time.Now()
	p.learn(next)
	p.mu.Unlock()
	return next, nil
}

// learn raises the lanes to what the chain has redeemed: the book may be older, or lost. mu is held.
func (p *payee) learn(info *ChannelInfo) {
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
func (m *Manager) checkChannel(ctx context.Context, p *payee, info *ChannelInfo) error {
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
		case info.over(epoch):
			return fmt.Errorf("%w: %s, since epoch %d", ErrChannelSettled, info.Address, info.SettlingAt)
		}
	}
	return m.checkDepth(ctx, p, info)
}

// checkDepth waits for the confirmations of a channel. One that was seen deep enough is not asked for again: a chain that is away does
// not stop the deals on it.
func (m *Manager) checkDepth(ctx context.Context, p *payee, info *ChannelInfo) error {
	f := m.chain.Finality()
	p.mu.Lock()
	deep := p.deep
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
	p.deep = true
	p.mu.Unlock()
	return nil
}

// bind compares a voucher with the book and puts it there (rows 14 to 18).
func (m *Manager) bind(ctx context.Context, p *payee, info *ChannelInfo, want booking) (abi.TokenAmount, error) {
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
		p.read = time.Time{}
		return zero, fmt.Errorf("%w: short by %s", ErrInsufficientChannel, big.Sub(promised, info.Balance))
	}
	if grown.LessThan(want.expected) {
		return grown, fmt.Errorf("%w: %s, expected %s", ErrTooSmall, grown, want.expected)
	}
	if want.exact && grown.GreaterThan(want.expected) {
		return zero, fmt.Errorf("%w: it adds %s, asked for are %s", ErrNotExact, grown, want.expected)
	}
	undo, err := m.reserve(deal, dealRef{p.addr, v.Lane})
	if err != nil {
		return zero, err
	}
	if best.Deal, best.Nonce, best.Amount, best.Voucher, best.chainOnly = deal, v.Nonce, v.Amount, v, false; want.added {
		best.Bytes += want.covers
	} else {
		best.Bytes = want.covers
	}
	day, err := m.day(ctx, p)
	day.rec.Vouchered = big.Add(day.rec.Vouchered, grown)
	err = errors.Join(err, put(ctx, b, laneKey("i", p.addr, v.Lane), &best), put(ctx, b, dealKey("i", deal), &dealRef{p.addr, v.Lane}),
		put(ctx, b, dayKey(day.date, p.addr), &day.rec))
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
	p.lanes[v.Lane], p.promised, p.today = &best, promised, day
	return grown, nil
}

// reserve binds a deal to a lane, unless it is bound to another; undo takes it back when nothing was stored.
func (m *Manager) reserve(deal string, ref dealRef) (undo func(), err error) {
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
	payers, payees := maps.Clone(m.byAddr), maps.Clone(m.inbound)
	m.mu.Unlock()
	for a, p := range payers {
		s := Summary{Channel: a, Outbound: true}
		p.mu.Lock()
		s.Vouchered, s.From, s.To = p.rec.Promised, p.rec.From, p.rec.To
		for _, l := range p.lanes {
			s.Lanes = append(s.Lanes, l.entry())
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
				s.Lanes = append(s.Lanes, l.entry())
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
