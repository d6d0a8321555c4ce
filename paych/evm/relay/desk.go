package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	fbig "github.com/filecoin-project/go-state-types/big"
	"golang.org/x/time/rate"

	"github.com/cartage-dev/cartage/paych/book"
	"github.com/cartage-dev/cartage/paych/evm"
)

// DeskConfig is what a Desk is made of.
type DeskConfig struct {
	Book    *book.Book
	Escrow  book.Escrow
	Network string        // whose entries are looked after
	Watch   time.Duration // how often channels with unclaimed money are looked at
	// ClaimAt is what is unclaimed of an asset before it is claimed, and MaxChannel what is left unclaimed of one channel at most.
	ClaimAt, MaxChannel abi.TokenAmount
	PerDay              int // transactions a day; a quarter of them is kept for claims
	Now                 func() time.Time
	Log                 *slog.Logger
}

// Bounds of what payers may make the desk do.
const (
	chainAsks   = 5 // a second, for channels that nobody knows
	notFound    = time.Minute
	maxNotFound = 65536
	fundTime    = 45 * time.Second
	maxEntries  = 100_000
	depositsPer = 8 // an hour and payer
	refundsPer  = 8 // a day and payer
)

// Desk does what a book and an escrow do together: deposits, refunds, claims, and looking after channels. It is safe for concurrent use.
type Desk struct {
	cfg  DeskConfig
	asks *rate.Limiter
	kick chan struct{}

	mu       sync.Mutex
	unknown  map[string]time.Time // channels that the chain has not, until when
	deposits map[evm.Address]*rate.Limiter
	refunds  map[evm.Address]*rate.Limiter
	day      string
	sentDay  int // transactions on that day
	seenAt   time.Time
	trouble  error // why the chain could not be reached; nil: it could
}

// NewDesk makes a desk.
func NewDesk(cfg DeskConfig) *Desk {
	return &Desk{cfg: cfg, asks: rate.NewLimiter(chainAsks, 2*chainAsks), kick: make(chan struct{}, 1), unknown: map[string]time.Time{}, deposits: map[evm.Address]*rate.Limiter{}, refunds: map[evm.Address]*rate.Limiter{}}
}

// ErrBusy means that the desk does no more of it for now. It passes.
var ErrBusy = errors.New("too much is asked of the chain at once")

// Refresh is an entry with what the chain has of it now. One that is not in the book is asked for seldom.
func (d *Desk) Refresh(ctx context.Context, e book.Entry) (book.Entry, error) {
	if e.Version == 0 {
		if err := d.mayAsk(e.Key.Channel); err != nil {
			return e, err
		}
	}
	states, err := d.cfg.Escrow.State(ctx, []book.Entry{e})
	d.reached(err)
	if err != nil {
		return e, err
	}
	if e.Version == 0 && states[0].Deposit.Sign() == 0 {
		d.noteUnknown(e.Key.Channel)
	}
	return begun(e, states[0]), nil
}

// begun is an entry with what the chain has. The first one of a channel goes on from what was claimed: to this book that is past.
func begun(e book.Entry, b book.Balance) book.Entry {
	if e.Version == 0 {
		e.Earned, e.Redeemed, e.Secured = b.Claimed, b.Claimed, fbig.Max(e.Secured, b.Claimed)
	}
	return e.Seen(b)
}

func (d *Desk) mayAsk(channel string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cfg.Now().Before(d.unknown[channel]) {
		return evm.ErrNoChannel
	}
	if d.cfg.Book.Open() >= maxEntries || !d.asks.Allow() {
		return ErrBusy
	}
	return nil
}

func (d *Desk) noteUnknown(channel string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.unknown) >= maxNotFound {
		clear(d.unknown)
	}
	d.unknown[channel] = d.cfg.Now().Add(notFound)
}

// forget makes the chain be asked anew for a channel.
func (d *Desk) forget(channel string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.unknown, channel)
}

// reached notes whether the chain answered.
func (d *Desk) reached(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.trouble = passing(err); d.trouble == nil {
		d.seenAt = d.cfg.Now()
	}
}

// Reached is when the chain answered last, and why it does not now; nil if it does.
func (d *Desk) Reached() (time.Time, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.seenAt, d.trouble
}

// spend counts a transaction of the day; those that are no claims leave a quarter to them.
func (d *Desk) spend(isClaim bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if today := d.cfg.Now().UTC().Format(time.DateOnly); d.day != today {
		d.day, d.sentDay = today, 0
	}
	limit := d.cfg.PerDay
	if !isClaim {
		limit -= limit / 4
	}
	if d.sentDay >= limit {
		return fmt.Errorf("%w: %d transactions were sent today", ErrBusy, d.sentDay)
	}
	d.sentDay++
	return nil
}

// allowance takes one of what a payer may do in a time.
func (d *Desk) allowance(of map[evm.Address]*rate.Limiter, payer evm.Address, n int, per time.Duration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := of[payer]
	if l == nil {
		if len(of) >= maxNotFound {
			clear(of)
		}
		l = rate.NewLimiter(rate.Every(per/time.Duration(n)), n)
		of[payer] = l
	}
	if !l.AllowN(d.cfg.Now(), 1) {
		return fmt.Errorf("%w: of this payer", ErrBusy)
	}
	return nil
}

// Fund relays a deposit, and gives the entry with it, which is not in the book yet, and the intent that is to be Done with it. One that was booked
// before is not relayed again.
func (d *Desk) Fund(ctx context.Context, e book.Entry, payer evm.Address, i book.Intent) (book.Entry, book.Intent, string, error) {
	have, found, err := d.cfg.Book.Intent(ctx, i)
	if err != nil {
		return e, i, "", err
	}
	if !found {
		if err := d.allowance(d.deposits, payer, depositsPer, time.Hour); err != nil {
			return e, i, "", err
		}
		if err := d.spend(false); err != nil {
			return e, i, "", err
		}
	}
	if !found {
		if have, err = d.cfg.Book.Intend(ctx, i); err != nil {
			return e, i, "", err
		}
	}
	if have.Done {
		return e, have, "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, fundTime)
	defer cancel()
	b, tx, err := d.cfg.Escrow.Fund(ctx, have)
	d.reached(err)
	if err != nil {
		if passing(err) == nil {
			err = errors.Join(err, d.cfg.Book.Drop(ctx, have))
		} else {
			d.Hurry()
		}
		return e, have, "", err
	}
	d.forget(e.Key.Channel)
	have.Done = true
	return begun(e, b), have, tx, nil
}

// Hurry lets Run look after the channels now.
func (d *Desk) Hurry() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// Refund gives an amount of a channel back: it is fixed in the book first, so that a crash does not change it. It returns the entry as it is in the book then.
func (d *Desk) Refund(ctx context.Context, old, next book.Entry, payer evm.Address) (book.Entry, string, error) {
	if old.State != book.Refunding {
		if err := d.allowance(d.refunds, payer, refundsPer, 24*time.Hour); err != nil {
			return old, "", err
		}
		if err := d.spend(false); err != nil {
			return old, "", err
		}
		next.State = book.Refunding
		if err := d.cfg.Book.Apply(ctx, old, next); err != nil {
			return old, "", err
		}
		next.Version = old.Version + 1
		old = next
	}
	ctx, cancel := context.WithTimeout(ctx, fundTime)
	defer cancel()
	return d.release(ctx, old)
}

// release brings a refund to its end.
func (d *Desk) release(ctx context.Context, e book.Entry) (book.Entry, string, error) {
	tx, err := d.cfg.Escrow.Release(ctx, e, e.Refund)
	d.reached(err)
	var states []book.Balance
	switch {
	case err == nil:
		states, err = d.cfg.Escrow.State(ctx, []book.Entry{e})
	case passing(err) == nil: // it will never be: the channel goes on as it was
		states = []book.Balance{e.Balance}
	}
	if states == nil {
		d.Hurry()
		return e, tx, err
	}
	next := e
	next.State = book.Active
	if err != nil {
		next.Refund = fbig.Zero()
	}
	if next = next.Seen(states[0]); err == nil && next.Deposit.LessThanEqual(next.Claimed) {
		next.State = book.Closed
	}
	if aerr := d.cfg.Book.Apply(ctx, e, next); aerr != nil {
		return e, tx, errors.Join(err, aerr)
	}
	next.Version = e.Version + 1
	return next, tx, err
}
