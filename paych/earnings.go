package paych

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-datastore"

	"github.com/cartage-dev/cartage/internal/wire"
)

// dayRecord is what one channel brought on one day (UTC): it is written in the batch of the voucher that it counts.
type dayRecord struct {
	Vouchered abi.TokenAmount
	Redeemed  abi.TokenAmount
}

func (d *dayRecord) fields() []wire.Field {
	return []wire.Field{wire.Amount("vouchered", &d.Vouchered), wire.Amount("redeemed", &d.Redeemed)}
}

// paidRecord is what was seen redeemed of a lane. A channel that is collected takes its lanes with it.
type paidRecord struct {
	Channel  address.Address
	Lane     uint64
	Redeemed abi.TokenAmount
}

func (r *paidRecord) fields() []wire.Field {
	return []wire.Field{wire.Address("channel", &r.Channel), wire.Uint("lane", &r.Lane), wire.Amount("redeemed", &r.Redeemed)}
}

const (
	dayPrefix  = "/i/day"
	paidPrefix = "/i/paid"
)

func dayKey(date string, ch address.Address) datastore.Key {
	return datastore.NewKey(dayPrefix + "/" + date + "/" + ch.String())
}

// dayBook is the day book of a channel, as far as it is known.
type dayBook struct {
	date string
	rec  dayRecord
}

// dayBookOf returns the day book of a channel for now. p.mu is held.
func (in *inChannels) dayBookOf(ctx context.Context, p *inChannel) (dayBook, error) {
	date := time.Now().UTC().Format(time.DateOnly)
	if p.dayBook.date == date {
		return p.dayBook, nil
	}
	d := dayBook{date, dayRecord{big.Zero(), big.Zero()}}
	_, err := getRecord(ctx, in.ds, dayKey(date, p.addr), &d.rec)
	return d, err
}

// earningsBook is what inbound channels have brought, by deal and by day.
type earningsBook struct {
	ds     datastore.Batching
	chain  Chain
	wallet Signer
	in     *inChannels
}

// bookRedeemed books what the chain has paid since the last look.
func (e *earningsBook) bookRedeemed(ctx context.Context, info *ChannelInfo) error {
	p := e.in.knownChannel(info.Address)
	if p == nil || !e.wallet.Has(info.To) {
		return nil
	}
	b, err := e.ds.Batch(ctx)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	grown, paid := big.Zero(), map[uint64]abi.TokenAmount{}
	for n, c := range info.Lanes {
		before := p.redeemed[n]
		if before.Nil() {
			before = big.Zero()
		}
		if !c.Redeemed.GreaterThan(before) {
			continue
		}
		grown, paid[n] = big.Add(grown, big.Sub(c.Redeemed, before)), c.Redeemed
		r := &paidRecord{info.Address, n, c.Redeemed}
		if err := putRecord(ctx, b, laneKey("i/paid", info.Address, n), r); err != nil {
			return err
		}
	}
	if len(paid) == 0 {
		return nil
	}
	d, err := e.in.dayBookOf(ctx, p)
	if err != nil {
		return err
	}
	d.rec.Redeemed = big.Add(d.rec.Redeemed, grown)
	if err := errors.Join(putRecord(ctx, b, dayKey(d.date, p.addr), &d.rec), b.Commit(ctx)); err != nil {
		return err
	}
	p.dayBook = d
	for n, a := range paid {
		p.redeemed[n] = a
	}
	return nil
}

// Earned is what a deal has brought, in attoFIL.
type Earned struct {
	Deal       string
	Channel    address.Address
	Lane       uint64
	Vouchered  abi.TokenAmount // of the deal
	Redeemed   abi.TokenAmount // of it, what the chain has taken
	Redeemable abi.TokenAmount // of it, what it would still take: nothing of a channel whose settle window has passed
	Lost       abi.TokenAmount // of it, what it will never take
}

// EarnedDay is what a day (UTC) has brought.
type EarnedDay struct {
	Date      string
	Vouchered abi.TokenAmount
	Redeemed  abi.TokenAmount
	Lost      abi.TokenAmount // booked when it was seen
}

// Claim is what a channel still owes.
type Claim struct {
	Channel    address.Address
	From       address.Address
	Redeemable abi.TokenAmount
	Until      abi.ChainEpoch // first epoch at which nothing is taken any more; 0: as long as nobody settles
	// Trouble is why the chain says nothing of the channel: Redeemable is what was last known then, Until is unknown.
	Trouble error
}

// Earnings is what the node was paid.
type Earnings struct {
	Deals  []Earned
	Days   []EarnedDay
	Claims []Claim
	// Trouble is why the chain said nothing of a channel, the first of several; what it would have said is what was last known.
	Trouble error
}

// Earnings adds up what the node was paid: for each deal, for each day, and what can still be redeemed and until when. Of channels that
// the chain cannot be asked about, what was last known.
func (e *earningsBook) Earnings(ctx context.Context) (*Earnings, error) {
	out := &Earnings{}
	days := map[string]*EarnedDay{}
	day := func(date string) *EarnedDay {
		if days[date] == nil {
			days[date] = &EarnedDay{date, big.Zero(), big.Zero(), big.Zero()}
		}
		return days[date]
	}
	err := eachKeyedRecord(ctx, e.ds, dayPrefix, func(key string, d *dayRecord) error {
		date, _, _ := strings.Cut(strings.TrimPrefix(key, dayPrefix+"/"), "/")
		e := day(date)
		e.Vouchered, e.Redeemed = big.Add(e.Vouchered, d.Vouchered), big.Add(e.Redeemed, d.Redeemed)
		return nil
	})
	if err == nil {
		err = e.addLosses(ctx, day)
	}
	if err != nil {
		return nil, err
	}
	for _, d := range days {
		out.Days = append(out.Days, *d)
	}
	slices.SortFunc(out.Days, func(a, b EarnedDay) int { return cmp.Compare(a.Date, b.Date) })
	_, epoch, err := e.chain.Head(ctx)
	if err != nil { // the chain is away: only what was seen collected is over
		epoch = 0
	}
	for _, p := range e.in.allInChannels() {
		if err := e.addEarnings(ctx, p, epoch, out); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(out.Deals, func(a, b Earned) int {
		return cmp.Or(cmp.Compare(a.Channel.String(), b.Channel.String()), cmp.Compare(a.Lane, b.Lane))
	})
	slices.SortFunc(out.Claims, func(a, b Claim) int { return big.Cmp(b.Redeemable, a.Redeemable) })
	return out, nil
}

// addEarnings adds the deals of one channel.
func (e *earningsBook) addEarnings(ctx context.Context, p *inChannel, epoch abi.ChainEpoch, out *Earnings) error {
	info, err := e.in.lastChainState(ctx, p)
	if err == nil {
		if err := e.bookRedeemed(ctx, info); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	over := info != nil && info.pastWindow(epoch)
	claim := Claim{Channel: p.addr, Redeemable: big.Zero(), Trouble: err}
	if out.Trouble == nil {
		out.Trouble = err
	}
	for n, l := range p.lanes {
		if l.Voucher == nil {
			continue
		}
		e := l.bookEntry()
		paid := p.redeemed[n]
		if paid.Nil() {
			paid = big.Zero()
		}
		redeemed := big.Max(big.Zero(), big.Sub(big.Min(paid, l.Amount), l.Base))
		left, lost := big.Sub(e.Credit, redeemed), big.Zero()
		if over {
			left, lost = big.Zero(), left
		}
		out.Deals = append(out.Deals, Earned{l.Deal, p.addr, n, e.Credit, redeemed, left, lost})
		claim.Redeemable = big.Add(claim.Redeemable, left)
	}
	if claim.Redeemable.Sign() > 0 {
		if info != nil {
			claim.From, claim.Until = info.From, info.SettlingAt
		}
		out.Claims = append(out.Claims, claim)
	}
	return nil
}
