package paych

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-datastore"

	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/internal/wire"
)

// lostRecord is what was vouchered on an inbound channel and can never be redeemed: its settle window has passed. There is one for
// a channel at most, written when the loss is seen.
type lostRecord struct {
	Channel address.Address
	Date    string // UTC
	Amount  abi.TokenAmount
}

func (r *lostRecord) fields() []wire.Field {
	return []wire.Field{wire.Address("channel", &r.Channel), wire.Text("date", &r.Date), wire.Amount("amount", &r.Amount)}
}

const lostPrefix = "/i/lost"

func lostKey(ch address.Address) datastore.Key {
	return datastore.NewKey(lostPrefix + "/" + ch.String())
}

// pastWindow reports whether nothing can be redeemed of a channel any more.
func (i *ChannelInfo) pastWindow(epoch abi.ChainEpoch) bool {
	return i.Collected || i.SettlingAt != 0 && epoch >= i.SettlingAt
}

// bookLoss books what can never be redeemed of an inbound channel whose window has passed, and returns it, as an error that wraps
// ErrLost, the first time only.
func (e *earningsBook) bookLoss(ctx context.Context, ch address.Address, info *ChannelInfo) error {
	p := e.in.knownChannel(ch)
	if p == nil {
		return nil
	}
	r := lostRecord{Channel: ch, Date: time.Now().UTC().Format(time.DateOnly), Amount: p.unredeemed(info)}
	if r.Amount.Sign() <= 0 {
		return nil
	}
	has, err := e.ds.Has(ctx, lostKey(ch))
	if err != nil || has {
		return err
	}
	b, err := e.ds.Batch(ctx)
	if err == nil {
		err = putRecord(ctx, b, lostKey(ch), &r)
	}
	if err == nil {
		err = store.Commit(ctx, e.ds, b)
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: %s attoFIL, since epoch %d; a node that is paid must be on line at least once in each settle delay", ErrLost, r.Amount, info.SettlingAt)
}

// unredeemed is what the lanes of a channel were promised beyond what the chain took of them.
func (p *inChannel) unredeemed(info *ChannelInfo) abi.TokenAmount {
	p.mu.Lock()
	defer p.mu.Unlock()
	sum := big.Zero()
	for n, l := range p.lanes {
		if l.Voucher == nil {
			continue
		}
		sum = big.Add(sum, big.Sub(l.Voucher.Amount, big.Min(l.Voucher.Amount, p.redeemedOf(n, info))))
	}
	return sum
}

// redeemedOf is what the chain took of a lane: what it says, or what it said last, as a collected channel may be gone from it. mu is held.
func (p *inChannel) redeemedOf(lane uint64, info *ChannelInfo) abi.TokenAmount {
	taken := big.Zero()
	if c, ok := info.Lanes[lane]; ok {
		taken = c.Redeemed
	}
	if seen, ok := p.redeemed[lane]; ok {
		taken = big.Max(taken, seen)
	}
	return taken
}

// Lost is all that was vouchered to this node and not redeemed in time.
func (e *earningsBook) Lost(ctx context.Context) (abi.TokenAmount, error) {
	sum := big.Zero()
	err := eachRecord(ctx, e.ds, lostPrefix, func(r *lostRecord) error {
		sum = big.Add(sum, r.Amount)
		return nil
	})
	return sum, err
}

// addLosses adds what was lost to the days of the earnings.
func (e *earningsBook) addLosses(ctx context.Context, day func(date string) *EarnedDay) error {
	return eachRecord(ctx, e.ds, lostPrefix, func(r *lostRecord) error {
		d := day(r.Date)
		d.Lost = big.Add(d.Lost, r.Amount)
		return nil
	})
}

// redeemSettling makes a voucher of a channel that is settling count: it is submitted at once with the other best ones of the channel, and
// is worth something when the chain has taken it. Until then it gives no credit, but stays in the book and is tried again by Tend.
func (r *redeemer) redeemSettling(ctx context.Context, info *ChannelInfo, lane uint64, amount abi.TokenAmount) error {
	if l, ok := info.Lanes[lane]; ok && l.Redeemed.GreaterThanEqual(amount) {
		return nil
	}
	err := r.Redeem(ctx, info.Address)
	now, rerr := r.chain.Channel(ctx, info.Address)
	if rerr == nil {
		if l, ok := now.Lanes[lane]; ok && l.Redeemed.GreaterThanEqual(amount) {
			return nil
		}
	}
	return fmt.Errorf("%w: at epoch %d, and the chain has not taken the voucher: %w", ErrChannelSettling, info.SettlingAt, errors.Join(err, rerr))
}
