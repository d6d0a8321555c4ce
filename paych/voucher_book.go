package paych

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
)

// bookVoucher compares a voucher with the book and puts it there (rows 14 to 18).
func (in *inChannels) bookVoucher(ctx context.Context, p *inChannel, info *ChannelInfo, want booking) (abi.TokenAmount, error) {
	deal, v := want.deal, want.voucher
	b, err := in.ds.Batch(ctx)
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
	undo, err := in.bindDeal(deal, dealRef{p.addr, v.Lane})
	if err != nil {
		return zero, err
	}
	if best.Deal, best.Nonce, best.Amount, best.Voucher, best.chainOnly = deal, v.Nonce, v.Amount, v, false; want.added {
		best.Bytes += want.covers
	} else {
		best.Bytes = want.covers
	}
	day, err := in.dayBookOf(ctx, p)
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
func (in *inChannels) bindDeal(deal string, ref dealRef) (undo func(), err error) {
	if deal == "" {
		return func() {}, nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if has, ok := in.bound[deal]; ok {
		if has != ref {
			return nil, fmt.Errorf("%w: the deal is paid on lane %d of %s", ErrLaneBound, has.Lane, has.Channel)
		}
		return func() {}, nil
	}
	in.bound[deal] = ref
	return func() {
		in.mu.Lock()
		defer in.mu.Unlock()
		delete(in.bound, deal)
	}, nil
}
