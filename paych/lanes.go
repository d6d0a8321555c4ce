package paych

import (
	"context"
	"fmt"
	"strings"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/ipfs/go-cid"
)

// unusedLane is the lane that a deal was given on a channel and has not used yet, if there is one.
func (o *outChannels) unusedLane(ctx context.Context, p *outChannel, deal string) (*laneRecord, error) {
	if deal == "" {
		return nil, nil
	}
	var ref dealRef
	found, err := getRecord(ctx, o.ds, dealKey("o", deal), &ref)
	if err != nil || !found || ref.Channel != p.address() {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.lanes[ref.Lane]; l != nil && l.Deal == deal && l.Nonce == 0 && !l.Closed {
		return l, nil
	}
	return nil, nil
}

// AllocateLane returns a lane that was never used, for a deal whose funds were made available with GetOrCreate under the
// same key. A deal that has none, because the process was started again since, reserves amount as far as it is free. Asked again before
// the first voucher it is the same lane.
func (o *outChannels) AllocateLane(ctx context.Context, deal string, ch address.Address, amount abi.TokenAmount) (uint64, error) {
	p, err := o.outChannelAt(ch)
	if err != nil {
		return 0, err
	}
	switch l, err := o.unusedLane(ctx, p, deal); {
	case err != nil:
		return 0, err
	case l != nil:
		return l.Lane, o.enlargeLane(ctx, p, l)
	}
	lane := &laneRecord{Channel: ch, Deal: deal, Amount: big.Zero(), Base: big.Zero()}
	granted := false
	err = o.updateLazy(ctx, p, func() (*laneRecord, error) { // its first voucher is synced
		if p.rec.NextLane > MaxLane {
			return nil, fmt.Errorf("%w: all lanes of %s are used", ErrLaneLimit, ch)
		}
		lane.Lane = p.rec.NextLane
		if lane.Reserved, granted = p.unreserve(deal); !granted {
			lane.Reserved = big.Min(amount, p.freeFunds())
		}
		p.rec.NextLane++
		p.rec.Reserved = big.Add(p.rec.Reserved, lane.Reserved)
		return lane, nil
	})
	if err != nil && granted {
		p.mu.Lock()
		if p.lanes[lane.Lane] != lane { // the record was not written; else only its flush failed
			p.reserve(deal, lane.Reserved)
		}
		p.mu.Unlock()
	}
	return lane.Lane, err
}

// enlargeLane adds what a deal was granted since to the lane that it has.
func (o *outChannels) enlargeLane(ctx context.Context, p *outChannel, l *laneRecord) error {
	return o.updateSynced(ctx, p, func() (*laneRecord, error) {
		more, granted := p.unreserve(l.Deal)
		if !granted {
			return nil, nil
		}
		next := *p.lanes[l.Lane]
		next.Reserved = big.Add(next.Reserved, more)
		p.rec.Reserved = big.Add(p.rec.Reserved, more)
		return &next, nil
	})
}

// Unnamed is the start of the keys of requests that belong to no deal by name. What they were granted is for all lanes that were allocated
// without a deal: each of them may spend it, and no deal by name.
const Unnamed = "?"

// unnamedGrants is what was granted to requests without a deal; mu is held.
func (p *outChannel) unnamedGrants() abi.TokenAmount {
	sum := big.Zero()
	for k, amount := range p.reserved {
		if strings.HasPrefix(k, Unnamed) {
			sum = big.Add(sum, amount)
		}
	}
	return sum
}

// usableBy is what a lane may have beyond its own reservation; mu is held.
func (p *outChannel) usableBy(deal string) abi.TokenAmount {
	if deal != "" {
		return p.freeFunds()
	}
	return big.Add(p.freeFunds(), p.unnamedGrants())
}

// spendUnnamed takes up to amount out of the grants of requests without a deal, and returns how much it was; mu is held.
func (p *outChannel) spendUnnamed(amount abi.TokenAmount) abi.TokenAmount {
	spent := big.Zero()
	for k, has := range p.reserved {
		if !strings.HasPrefix(k, Unnamed) || amount.Sign() <= 0 {
			continue
		}
		used := big.Min(has, amount)
		amount, spent = big.Sub(amount, used), big.Add(spent, used)
		p.unreserve(k)
		if rest := big.Sub(has, used); rest.Sign() > 0 {
			p.reserve(k, rest)
		}
	}
	return spent
}

// CreateVoucher signs the total amount of a lane for a deal. The voucher, the deal it belongs to and the bytes it covers
// are one synced commit; the same amount again returns the same voucher (D8).
func (o *outChannels) CreateVoucher(ctx context.Context, deal string, ch address.Address, lane uint64, amount abi.TokenAmount, covers uint64) (*paych.SignedVoucher, bool, error) {
	p, err := o.outChannelAt(ch)
	if err != nil {
		return nil, false, err
	}
	var v *paych.SignedVoucher
	replayed, denied := false, o.checkSpending(deal)
	var signed *laneRecord
	spent := big.Zero() // of the grants of requests without a deal
	err = o.updateSynced(ctx, p, func() (*laneRecord, error) {
		l := p.lanes[lane]
		if l != nil && l.Deal == deal && l.Voucher != nil && l.Amount.Equals(amount) {
			v, replayed = l.Voucher, true // the first call may still be flushing it
			return nil, nil
		}
		if denied != nil {
			return nil, fmt.Errorf("no voucher for deal %s: %w", deal, denied)
		}
		next, err := o.signVoucher(p, l, deal, lane, amount, covers)
		if err != nil {
			return nil, err
		}
		v, signed = next.Voucher, next
		if l.Deal == "" {
			spent = p.spendUnnamed(big.Sub(next.Reserved, l.Reserved))
		}
		return next, nil
	})
	if err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if spent.Sign() > 0 && p.lanes[lane] != signed { // the record was not written; else only its flush failed
			p.reserve(Unnamed, spent)
		}
		return nil, false, err
	}
	return v, replayed, nil
}

// signVoucher makes the next voucher of a lane; p.mu is held.
func (o *outChannels) signVoucher(p *outChannel, l *laneRecord, deal string, n uint64, amount abi.TokenAmount, covers uint64) (*laneRecord, error) {
	switch {
	case l == nil:
		return nil, fmt.Errorf("lane %d of %s was not allocated", n, p.rec.Address)
	case l.Deal != "" && l.Deal != deal:
		return nil, fmt.Errorf("%w: lane %d belongs to %s", ErrLaneBound, n, l.Deal)
	case amount.LessThanEqual(l.Amount):
		return nil, fmt.Errorf("%w: lane %d promised %s, asked for %s", ErrAmountNotIncreasing, n, l.Amount, amount)
	case p.rec.Settling:
		return nil, fmt.Errorf("%w: %s", ErrChannelSettling, p.rec.Address)
	}
	// More than the deal was given: only what no other deal has reserved may be added, and is reserved by it.
	over := big.Max(big.Zero(), big.Sub(amount, l.Reserved))
	if usable := p.usableBy(l.Deal); over.GreaterThan(usable) {
		return nil, &ShortfallError{big.Sub(over, usable)}
	}
	promised := big.Add(p.rec.Promised, big.Sub(amount, l.Amount))
	if promised.GreaterThan(p.rec.Amount) {
		return nil, &ShortfallError{big.Sub(promised, p.rec.Amount)}
	}
	v := &paych.SignedVoucher{ChannelAddr: p.rec.Address, Lane: n, Nonce: l.Nonce + 1, Amount: amount, Merges: []paych.Merge{}}
	key, err := o.wallet.Key(p.rec.From)
	if err != nil {
		return nil, err
	}
	if err := SignVoucher(key, v); err != nil {
		return nil, err
	}
	next := *l
	next.Deal, next.Nonce, next.Amount, next.Bytes, next.Voucher = deal, v.Nonce, amount, covers, v
	next.Reserved = big.Add(l.Reserved, over)
	p.rec.Promised, p.rec.Reserved = promised, big.Add(p.rec.Reserved, over)
	return &next, nil
}

// Funds describes the money of an outbound channel.
type Funds struct {
	Confirmed, Pending, Queued, Promised abi.TokenAmount

	Free abi.TokenAmount // of Confirmed, what a voucher of a lane without a deal can add
	Wait *cid.Cid
}

// Available reports the money of an outbound channel.
func (o *outChannels) Available(ctx context.Context, ch address.Address) (Funds, error) {
	p, err := o.outChannelAt(ch)
	if err != nil {
		return Funds{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	queued := big.Zero()
	for _, r := range p.queue {
		queued = big.Add(queued, r.amount)
	}
	return Funds{p.rec.Amount, p.rec.Pending, queued, p.rec.Promised, p.usableBy(""), p.rec.Msg}, nil
}

// ReleaseDeal gives back what a deal that ends reserved and did not spend. It may be called again. It is on stable storage with the next
// synced commit of the same store: the caller, whose deals are in it, stores the end durably after it.
func (o *outChannels) ReleaseDeal(ctx context.Context, deal string) error {
	o.mu.Lock()
	for _, p := range o.pairs {
		p.mu.Lock()
		p.forgetDeal(deal)
		p.mu.Unlock()
	}
	o.mu.Unlock()
	var ref dealRef
	found, err := getRecord(ctx, o.ds, dealKey("o", deal), &ref)
	if err != nil || !found {
		return err
	}
	p, err := o.outChannelAt(ref.Channel)
	if err != nil {
		return err
	}
	return o.updateLazy(ctx, p, func() (*laneRecord, error) {
		l := p.lanes[ref.Lane]
		if l == nil || l.Closed {
			return nil, nil
		}
		next := *l
		next.Closed, next.Reserved = true, l.Amount
		p.rec.Reserved = big.Add(big.Sub(p.rec.Reserved, l.Reserved), l.Amount)
		return &next, nil
	})
}

// forgetDeal takes back what a deal was granted, or will be when a message lands or its turn comes; mu is held.
func (p *outChannel) forgetDeal(deal string) {
	p.unreserve(deal)
	if p.message != nil {
		delete(p.message.grants, deal)
	}
	for _, r := range p.queue {
		if r.deal == deal {
			r.abandoned = true
		}
	}
}

// Free is what a new deal between two addresses can have without a deposit.
func (o *outChannels) Free(from, to address.Address) abi.TokenAmount {
	o.mu.Lock()
	p := o.pairs[pairKey(from, to)]
	o.mu.Unlock()
	if p == nil {
		return big.Zero()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rec.Address.Empty() || p.rec.Settling {
		return big.Zero()
	}
	return p.freeFunds()
}
