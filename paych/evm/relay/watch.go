package relay

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	fbig "github.com/filecoin-project/go-state-types/big"

	"github.com/cartage-dev/cartage/paych/book"
	"github.com/cartage-dev/cartage/paych/evm"
)

// Bounds of claims and of looking after channels.
const (
	maxRows      = 50 // of a transaction
	claimAfter   = 7 * 24 * time.Hour
	soonest      = time.Second
	latestRetry  = time.Minute
	longestWatch = 10 * time.Minute
)

// WatchPeriod is how often channels with a delay of withdrawal are looked at, if nothing else is wanted: a payer who begins a withdrawal is seen in
// time. A wanted period above a quarter of the delay is refused.
func WatchPeriod(delay, wanted time.Duration) (time.Duration, error) {
	if wanted == 0 {
		return min(delay/6, longestWatch), nil
	}
	if wanted < 0 || wanted > delay/4 {
		return 0, errors.New("channels have to be looked at at least four times within the delay of a withdrawal")
	}
	return wanted, nil
}

// Run looks after the channels until ctx ends.
func (d *Desk) Run(ctx context.Context) {
	pause := soonest
	for ctx.Err() == nil {
		open, err := d.Tend(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			d.cfg.Log.Warn("channels could not be looked after", "error", err)
		}
		wait := d.cfg.Watch
		if open || err != nil {
			wait, pause = min(pause, d.cfg.Watch), min(2*pause, latestRetry)
		} else {
			pause = soonest
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-d.kick:
		case <-t.C:
		}
		t.Stop()
	}
}

// Tend brings deposits and refunds that were begun to their end, looks at channels with unclaimed money, and claims what has to be claimed. open says that
// something has to be looked at again soon.
func (d *Desk) Tend(ctx context.Context) (open bool, err error) {
	var errs []error
	note := func(pending bool, err error) {
		open = open || pending
		if err != nil {
			errs = append(errs, err)
		}
	}
	note(d.finishDeposits(ctx))
	var refunding, watched []book.Entry
	err = d.each(ctx, func(e book.Entry) error {
		switch {
		case e.State == book.Refunding:
			refunding = append(refunding, e)
		case e.Unclaimed().Sign() > 0 || e.State == book.Withdrawing:
			watched = append(watched, e)
		}
		return nil
	})
	note(false, err)
	for _, e := range refunding {
		_, _, err := d.release(ctx, e)
		note(passing(err) != nil, err)
	}
	note(d.look(ctx, watched))
	note(d.claimDue(ctx))
	note(false, d.cfg.Book.Prune(ctx))
	return open, errors.Join(errs...)
}

// each calls f with the entries of the network of the desk.
func (d *Desk) each(ctx context.Context, f func(book.Entry) error) error {
	return d.cfg.Book.Each(ctx, func(e book.Entry) error {
		if e.Key.Network != d.cfg.Network {
			return nil
		}
		return f(e)
	})
}

// finishDeposits relays what was begun and not booked. A deposit that the chain refuses is forgotten: nothing was paid.
func (d *Desk) finishDeposits(ctx context.Context) (open bool, err error) {
	intents, err := d.cfg.Book.Intents(ctx)
	if err != nil {
		return false, err
	}
	var errs []error
	for _, i := range intents {
		if i.Done || i.Key.Network != d.cfg.Network {
			continue
		}
		e, err := d.cfg.Book.Get(ctx, i.Key)
		if err != nil {
			return true, err
		}
		old := e
		if e.Version == 0 {
			e.Config = i.Config
		}
		fctx, cancel := context.WithTimeout(ctx, fundTime)
		b, _, err := d.cfg.Escrow.Fund(fctx, i)
		cancel()
		d.reached(err)
		switch {
		case passing(err) != nil:
			open = true
			errs = append(errs, err)
		case err != nil:
			errs = append(errs, d.cfg.Book.Drop(ctx, i))
		default:
			i.Done = true
			d.forget(i.Key.Channel)
			next := begun(e, b)
			if old.Version == 0 {
				old.Earned, old.Redeemed = next.Earned, next.Redeemed
			}
			errs = append(errs, ignoreConflict(d.cfg.Book.Apply(ctx, old, next, i)))
		}
	}
	return open, errors.Join(errs...)
}

// ignoreConflict drops that of an entry that somebody else has changed: it is looked at again.
func ignoreConflict(err error) error {
	if errors.Is(err, book.ErrConflict) {
		return nil
	}
	return err
}

// look reads what the chain has of channels, and writes what is new.
func (d *Desk) look(ctx context.Context, entries []book.Entry) (open bool, err error) {
	if len(entries) == 0 {
		return false, nil
	}
	states, err := d.cfg.Escrow.State(ctx, entries)
	d.reached(err)
	if err != nil {
		return true, err
	}
	var errs []error
	for i, e := range entries {
		next := lost(e.Seen(states[i]))
		if next.State == book.Withdrawing && e.State != book.Withdrawing {
			d.cfg.Log.Warn("a payer withdraws: what was earned is claimed", "channel", e.Key.Channel, "unclaimed", e.Unclaimed(), "begun", next.WithdrawAt)
		}
		errs = append(errs, ignoreConflict(d.cfg.Book.Apply(ctx, e, next)))
	}
	return false, errors.Join(errs...)
}

// lost is an entry of which the channel does not hold any more what was earned.
func lost(e book.Entry) book.Entry {
	if missing := fbig.Sub(e.Earned, fbig.Max(e.Deposit, e.Redeemed)); missing.GreaterThan(e.Lost) {
		e.Lost = missing
	}
	return e
}

// party is who claims together.
type party struct {
	asset                book.AssetKey
	receiver, authorizer evm.Address
}

// claimDue claims what is due: at once where a withdrawal was begun, where a channel has much unclaimed, and where it is old; everything of an asset of which
// enough is unclaimed.
func (d *Desk) claimDue(ctx context.Context) (open bool, err error) {
	groups := map[party][]book.Entry{}
	sums := map[party]abi.TokenAmount{}
	urgent := map[party]bool{}
	now := d.cfg.Now()
	err = d.each(ctx, func(e book.Entry) error {
		if e.Unclaimed().Sign() <= 0 || e.State == book.Refunding {
			return nil
		}
		c, err := evm.DecodeConfig(e.Config)
		if err != nil {
			return err
		}
		p := party{book.AssetKey{Network: e.Key.Network, Asset: e.Key.Asset}, c.Receiver, c.ReceiverAuthorizer}
		groups[p] = append(groups[p], e)
		if _, ok := sums[p]; !ok {
			sums[p] = fbig.Zero()
		}
		sums[p] = fbig.Add(sums[p], e.Unclaimed())
		half := fbig.Div(d.cfg.MaxChannel, fbig.NewInt(2))
		urgent[p] = urgent[p] || e.State == book.Withdrawing || e.Unclaimed().GreaterThanEqual(half) || now.Sub(e.LastAt) > claimAfter
		return nil
	})
	errs := []error{err}
	for p, entries := range groups {
		if !urgent[p] && sums[p].LessThan(d.cfg.ClaimAt) {
			continue
		}
		slices.SortFunc(entries, func(a, b book.Entry) int {
			return cmp.Or(cmp.Compare(order(a), order(b)), b.Unclaimed().Cmp(a.Unclaimed().Int))
		})
		for rows := range slices.Chunk(entries, maxRows) {
			err := d.claim(ctx, rows)
			open = open || err != nil
			errs = append(errs, err)
		}
	}
	return open, errors.Join(errs...)
}

// order puts channels that are being withdrawn before others.
func order(e book.Entry) int {
	if e.State == book.Withdrawing {
		return 0
	}
	return 1
}

// claim claims a batch and books what the chain shows.
func (d *Desk) claim(ctx context.Context, rows []book.Entry) error {
	if err := d.spend(true); err != nil {
		return err
	}
	s, err := d.cfg.Escrow.Redeem(ctx, rows)
	d.reached(err)
	errs := []error{err}
	for i := range s.Balances {
		errs = append(errs, ignoreConflict(d.cfg.Book.Apply(ctx, rows[i], rows[i].Seen(s.Balances[i]))))
	}
	return errors.Join(errs...)
}

// Redeem claims what was earned of channels, or of all if none is named.
func (d *Desk) Redeem(ctx context.Context, channels ...string) error {
	groups := map[party][]book.Entry{}
	err := d.each(ctx, func(e book.Entry) error {
		if e.Unclaimed().Sign() <= 0 || len(channels) > 0 && !slices.Contains(channels, e.Key.Channel) {
			return nil
		}
		c, err := evm.DecodeConfig(e.Config)
		p := party{book.AssetKey{Network: e.Key.Network, Asset: e.Key.Asset}, c.Receiver, c.ReceiverAuthorizer}
		groups[p] = append(groups[p], e)
		return err
	})
	errs := []error{err}
	for _, entries := range groups {
		for rows := range slices.Chunk(entries, maxRows) {
			errs = append(errs, d.claim(ctx, rows))
		}
	}
	return errors.Join(errs...)
}
