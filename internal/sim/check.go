package sim

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/fsm"
	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/paych"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/providerstates"
)

// check compares what both sides have after everything has come to rest.
func (w *world) check(ctx context.Context) {
	w.awaitProvider()
	for _, o := range w.deals {
		w.checkOrder(o)
		for _, t := range o.tries {
			w.checkDeal(ctx, o, t)
		}
	}
	w.checkTaken()
	time.Sleep(10*w.chain.epoch + time.Minute) // a message in flight of a deal that ended early lands, also one that the chain was away for
	for _, c := range w.clients {
		w.checkReserved(ctx, c)
	}
}

// awaitProvider waits until no deal is in progress at the provider.
func (w *world) awaitProvider() {
	began := time.Now()
	for {
		open := 0
		for id, d := range w.provider.now().seller.ListDeals() {
			if final(d.Status) {
				continue
			}
			if open++; time.Since(began) > restLimit {
				w.finding("provider deal %d rests in %s: sent %d, funds %s: %s", id.DealID%1000, d.Status, d.TotalSent, d.FundsReceived, d.Message)
			}
		}
		if open == 0 || time.Since(began) > restLimit {
			return
		}
		time.Sleep(10 * pollEvery(time.Since(began)))
	}
}

func final(s rm.DealStatus) bool {
	for _, f := range providerstates.ProviderFinalityStates {
		if f == fsm.StateKey(s) {
			return true
		}
	}
	return false
}

// undisturbed reports whether nothing but crashes and losses kept an order from its end: those it has to survive.
func (o *order) undisturbed() bool {
	if o.plan.Missing || o.plan.Budget < 1 || o.plan.Cancel > 0 {
		return false
	}
	for _, f := range o.w.plan.Faults {
		if f.Kind == FullDisk {
			return false
		}
	}
	return !o.keptAdvance()
}

// keptAdvance reports whether the provider has kept an advance of the client in a deal of another order, because a leaf was missing or the deal was
// cancelled: then the provider gets none for a day and may give no credit.
func (o *order) keptAdvance() bool {
	return slices.ContainsFunc(o.process().market.AdvanceLosses(), func(lost accounting.Advance) bool {
		return !slices.ContainsFunc(o.tries, func(t *try) bool { return lost.Deal == clientstates.DealKey(t.id) })
	})
}

func (w *world) checkOrder(o *order) {
	if o.refused != "" {
		w.finding("order %d got no offer: %s", o.number, o.refused)
	}
	if len(o.tries) == 0 {
		return
	}
	last := o.tries[len(o.tries)-1]
	if o.undisturbed() && last.ended && last.state.Message != notStored && !o.completed {
		w.finding("order %d did not complete: deal %d %s: %s", o.number, last.id%1000, last.state.Status, last.state.Message)
	}
}

// checkDeal checks one deal: I1 to I3, I6, I7, and that nobody waited for a deadline.
func (w *world) checkDeal(ctx context.Context, o *order, t *try) {
	c := t.state
	if c.Message == notStored {
		return
	}
	p, known := w.provider.now().seller.ListDeals()[rm.ProviderDealIdentifier{Receiver: o.client.id, DealID: t.id}]
	say := func(format string, args ...any) {
		w.finding("deal %d (client %s %q received %d spent %s; provider %s %q sent %d funds %s; %d bytes, ask %+v): "+format, append([]any{t.id % 1000,
			c.Status, c.Message, c.TotalReceived, c.FundsSpent, p.Status, p.Message, p.TotalSent, p.FundsReceived, o.payload.unique, w.plan.Ask}, args...)...)
	}
	for _, text := range []string{c.Message, p.Message} {
		if unconfirmed := c.Status == rm.DealStatusCompleted && text == c.Message; unconfirmed {
			continue // it has all and has paid: it waits a short while for the word of a provider that may be away, and goes
		}
		if strings.Contains(text, "nothing happened in") && o.undisturbed() {
			say("stood still until a deadline")
		}
	}
	terms := clientstates.Terms(&c)
	base, held, err := w.held(ctx, o, t)
	if err != nil {
		say("file: %s", err)
		return
	}
	got := c
	if c.Status != rm.DealStatusCompleted { // what a loss of power took of an unfinished file was paid for
		got.TotalReceived = max(c.TotalReceived, p.TotalSent)
	}
	if most := w.most(&got); c.FundsSpent.GreaterThan(most) && !terms.Free() {
		say("paid more than %s", most)
	}
	mine, theirs := w.booked(ctx, o, t)
	if !mine.Equals(c.FundsSpent) && !terms.Free() {
		say("the client's book has %s", mine)
	}
	if theirs.GreaterThan(mine) {
		say("the provider's book has %s, the client's %s", theirs, mine)
	}
	if known && !theirs.Equals(p.FundsReceived) {
		say("the provider's book has %s", theirs)
	}
	if known && terms.Price.Sign() > 0 {
		if limit := reach(terms, p.FundsReceived); c.TotalReceived > limit+uint64(o.plan.Shape.Size) && p.FundsReceived.GreaterThanEqual(terms.Unseal) {
			say("took %d bytes, the limit for what was paid is %d", c.TotalReceived, limit)
		}
	}
	if c.Status == rm.DealStatusCompleted {
		w.checkCompleted(o, say, c, held, base)
	}
	w.checkAgree(o, t, say, c, p, known)
}

// reach is how far a deal may go for what was paid: one interval beyond it.
func reach(t accounting.Terms, paid abi.TokenAmount) uint64 {
	covered := t.PaidBytes(paid)
	return covered + t.CurrentInterval(covered)
}

// checkCompleted checks a deal that the client calls complete: the file is, and it is paid.
func (w *world) checkCompleted(o *order, say func(string, ...any), c rm.ClientDealState, held carstore.Position, base uint64) {
	if !held.Complete || held.Bytes != o.payload.unique {
		say("complete with %d of %d bytes", held.Bytes, o.payload.unique)
	}
	if c.TotalReceived != held.Bytes-base {
		say("counts %d bytes, the file got %d", c.TotalReceived, held.Bytes-base)
	}
}

// checkAgree checks that both sides tell the same of a deal.
func (w *world) checkAgree(o *order, t *try, say func(string, ...any), c rm.ClientDealState, p rm.ProviderDealState, known bool) {
	terms := clientstates.Terms(&c)
	due := terms.Due(c.TotalReceived)
	if terms.Free() {
		due = big.Zero()
	}
	both := c.Status == rm.DealStatusCompleted && known && p.Status == rm.DealStatusCompleted
	switch {
	case both && (c.FundsSpent.LessThan(due) || !terms.Free() && c.FundsSpent.GreaterThan(w.most(&c))):
		say("completed on both sides with %s vouchered, due is %s", c.FundsSpent, due)
	case both && (p.FundsReceived.LessThan(due) || !terms.Free() && p.FundsReceived.GreaterThan(w.most(&c))):
		say("completed on both sides with %s booked, due is %s", p.FundsReceived, due)
	case both && p.TotalSent != c.TotalReceived:
		say("the provider's book says %d bytes, the client's %d", p.TotalSent, c.TotalReceived)
	case known && p.Status == rm.DealStatusCompleted && c.Status != rm.DealStatusCompleted && !t.canceled && o.undisturbed():
		say("completed for the provider only")
	case c.Status == rm.DealStatusCompleted && !known && c.TotalReceived > 0: // what is here already needs nobody
		say("completed with no deal at the provider")
	case c.Status == rm.DealStatusCompleted && known && p.Status != rm.DealStatusCompleted && !t.canceled && o.undisturbed():
		say("completed for the client only")
	}
}

// held is what the file of a deal held when it began, and what it holds now.
func (w *world) held(ctx context.Context, o *order, t *try) (base uint64, pos carstore.Position, err error) {
	r := o.process()
	if base, _, err = r.targets.BaseOf(ctx, t.id); err != nil {
		return 0, pos, err
	}
	sel := selectorOf(o.payload.sel)
	path, err := r.targets.PathOf(o.payload.root, sel)
	if err != nil {
		return 0, pos, err
	}
	if f, err := o.client.disk.files.Open(path); err != nil { // nothing came
		return base, pos, nil
	} else if err := f.Close(); err != nil {
		return 0, pos, err
	}
	s, err := r.targets.Acquire(o.payload.root, sel)
	if err != nil {
		return 0, pos, err
	}
	defer func() { _ = r.targets.Release(s) }()
	pos, err = carstore.LocateIn(o.payload.root, sel, func(c cid.Cid) ([]byte, error) {
		b, err := s.Get(c)
		if err != nil {
			return nil, err
		}
		return b.RawData(), carstore.Verify(c, b.RawData())
	})
	return base, pos, err
}

// booked is what the voucher books of both sides have for a deal.
func (w *world) booked(ctx context.Context, o *order, t *try) (mine, theirs abi.TokenAmount) {
	mine, theirs = big.Zero(), big.Zero()
	if e, err := o.process().payments.Best(ctx, false, clientstates.DealKey(t.id)); err != nil {
		w.finding("client's book: %s", err)
	} else if e != nil {
		mine = e.Credit
	}
	id := rm.ProviderDealIdentifier{Receiver: o.client.id, DealID: t.id}
	if e, err := w.provider.now().payments.Best(ctx, true, providerstates.DealKey(id)); err != nil {
		w.finding("provider's book: %s", err)
	} else if e != nil {
		theirs = e.Credit
	}
	return mine, theirs
}

// checkReserved checks that no money is kept for deals that have ended: all that was deposited and not promised is free again (I4).
func (w *world) checkReserved(ctx context.Context, c *party) {
	for _, info := range w.chain.all() {
		if info.From != c.address || info.Collected || info.SettlingAt != 0 {
			continue
		}
		f, err := c.now().payments.Available(ctx, info.Address)
		if err != nil {
			w.finding("%s: available: %s", c.name, err)
			continue
		}
		if !f.Confirmed.Equals(info.Balance) {
			w.finding("%s counts a deposit of %s, the chain has %s", c.name, f.Confirmed, info.Balance)
		}
		if f.Promised.GreaterThan(info.Balance) {
			w.finding("%s promised %s of a deposit of %s", c.name, f.Promised, info.Balance)
		}
		if free, want := c.now().payments.Free(info.From, info.To), big.Sub(info.Balance, f.Promised); !free.Equals(want) {
			w.finding("%s has %s free of a deposit of %s with %s promised", c.name, free, info.Balance, f.Promised)
		}
	}
}

// settle closes all channels and checks that everybody gets what is theirs, to the unit (I3, I4).
func (w *world) settle(ctx context.Context) {
	booked := map[address.Address]abi.TokenAmount{}
	for _, s := range w.provider.now().payments.Booked() {
		booked[s.Channel] = s.Vouchered
	}
	for _, info := range w.chain.all() {
		if info.To != w.provider.address {
			w.finding("a channel of %s pays %s", info.From, info.To)
			continue
		}
		if err := w.provider.now().payments.Settle(ctx, info.Address); err != nil {
			w.trace("settle %s: %s", info.Address, err)
		}
	}
	time.Sleep(2 * time.Duration(w.chain.settleDelay) * w.chain.epoch)
	for _, info := range w.chain.all() {
		if c := w.clientOf(info.From); c != nil && c.now().up.Load() {
			if err := c.now().payments.Settle(ctx, info.Address); err != nil { // nobody paid through it
				w.trace("settle %s by its client: %s", info.Address, err)
			}
		}
	}
	time.Sleep(3*time.Duration(w.chain.settleDelay)*w.chain.epoch + 2*w.tendEvery()) // channels are collected by those who look after them
	w.checkMoney(booked)
}

// noteLook notes that the provider looked at its payment channels and could do what it liked.
func (w *world) noteLook(p *party, began time.Time) {
	if !p.provider {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looks = append(w.looks, began)
}

// unwatched reports whether the provider had no power, or no chain, each time that it would have looked while a channel was settling, early enough for
// its message to be applied: then nobody can help it.
func (w *world) unwatched(info *paych.ChannelInfo) bool {
	if info.SettlingAt == 0 {
		return false
	}
	end := w.chain.timeOf(info.SettlingAt)
	from, until := end.Add(-time.Duration(w.chain.settleDelay)*w.chain.epoch), end.Add(-3*w.chain.epoch)
	w.mu.Lock()
	defer w.mu.Unlock()
	return !slices.ContainsFunc(w.looks, func(at time.Time) bool { return !at.Before(from) && !at.After(until) })
}

func (w *world) clientOf(from address.Address) *party {
	for _, c := range w.everybody() {
		if c.address == from {
			return c
		}
	}
	return nil
}

func (w *world) checkMoney(booked map[address.Address]abi.TokenAmount) {
	earned, all := big.Zero(), w.everybody()
	for _, info := range w.chain.all() {
		want, ok := booked[info.Address]
		if !ok {
			want = big.Zero()
		}
		c := w.clientOf(info.From)
		if gone := !ok && c != nil && !c.now().up.Load(); !info.Collected && !gone {
			w.finding("channel %s of %s is not collected: settling at %d, balance %s", info.Address, c.name, info.SettlingAt, info.Balance)
		}
		if info.ToSend.LessThan(want) && w.unwatched(&info) {
			want = info.ToSend
		}
		if !info.ToSend.Equals(want) {
			w.finding("channel %s of %s paid %s on the chain, the provider's book says %s", info.Address, c.name, info.ToSend, want)
		}
		earned = big.Add(earned, want)
	}
	if sum, want := w.chain.money(), big.Mul(big.NewInt(wealth), big.NewInt(int64(len(all)))); !sum.Equals(want) {
		w.finding("there was %s at first, and is %s", want, sum)
	}
	w.chain.mu.Lock()
	got := big.Sub(w.chain.balance(w.provider.address), big.NewInt(wealth))
	w.chain.mu.Unlock()
	if !got.Equals(earned) {
		w.finding("the provider got %s on the chain, its book says %s", got, earned)
	}
}
