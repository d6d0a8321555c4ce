package accounting_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/internal/reason"
)

const interval = 1 << 20

// loan is what is lent for it: the block that may go beyond counts.
const loan = 2 * interval

// bank is a provider's accounts with a clock and with channels whose standing a test sets.
type bank struct {
	*accounting.Payers
	t        require.TestingT
	ctx      context.Context
	ds       datastore.Batching
	clock    time.Time
	payer    map[string]string // by channel
	secured  map[string]int64  // by channel
	released uint64            // bytes that left unpaid over all deals, at the most
}

func newBank(t require.TestingT, limits accounting.CreditLimits) *bank {
	b := &bank{t: t, ctx: context.Background(), ds: dssync.MutexWrap(datastore.NewMapDatastore()), clock: time.Unix(1<<30, 0), payer: map[string]string{}, secured: map[string]int64{}}
	b.open(limits)
	return b
}

func (b *bank) open(limits accounting.CreditLimits) {
	standing := func(_ context.Context, ch string) (string, abi.TokenAmount, error) {
		return b.payer[ch], big.NewInt(b.secured[ch]), nil
	}
	p, err := accounting.OpenPayers(b.ctx, b.ds, limits, standing, func() time.Time { return b.clock })
	require.NoError(b.t, err)
	b.Payers = p
}

func terms(price int64) accounting.Terms {
	return accounting.Terms{Price: big.NewInt(price), Unseal: big.Zero(), Interval: interval}
}

func (b *bank) lend(deal, peer string, price int64) (accounting.Loan, error) {
	return b.Lend(b.ctx, b.ds, accounting.Applicant{Deal: deal, Peer: peer, Terms: terms(price), Size: 1 << 40})
}

// walkOut takes what a loan covers and leaves.
func (b *bank) walkOut(deal, peer string, price int64) uint64 {
	l, err := b.lend(deal, peer, price)
	if err != nil {
		return 0
	}
	require.NoError(b.t, b.End(b.ctx, b.ds, deal, l.Bytes(), reason.Theirs))
	b.released += l.Bytes()
	return l.Bytes()
}

// pays tells of a voucher on a channel of a payer that brings its secured total to an amount.
func (b *bank) pays(deal, channel, payer string, secured int64, unpaid uint64) {
	b.payer[channel], b.secured[channel] = payer, secured
	require.NoError(b.t, b.Paid(b.ctx, deal, channel, big.NewInt(secured), unpaid))
}

// TestEverNewKeys: new identities take the allowance and what it is refilled with, whatever their number (theft 1).
func TestEverNewKeys(t *testing.T) {
	b := newBank(t, accounting.DefaultCredit())
	for i := range 1000 {
		b.walkOut(fmt.Sprint("d", i), fmt.Sprint("p", i), 1)
	}
	require.Equal(t, uint64(16<<20), b.released)
	for h := range 24 {
		b.clock = b.clock.Add(time.Hour)
		for i := range 100 {
			b.walkOut(fmt.Sprint("e", h, "-", i), fmt.Sprint("q", h, "-", i), 1)
		}
	}
	require.LessOrEqual(t, b.released, uint64((16+24*16)<<20))
}

// TestOnePeerOneInterval: one peer has one interval of the allowance, and gets it anew when it is paid.
func TestOnePeerOneInterval(t *testing.T) {
	b := newBank(t, accounting.DefaultCredit())
	_, err := b.lend("a", "p", 1)
	require.NoError(t, err)
	_, err = b.lend("b", "p", 1)
	var none *accounting.NoCreditError
	require.ErrorAs(t, err, &none)
	require.False(t, none.Debt)
	require.NoError(t, b.End(b.ctx, b.ds, "a", 0, reason.Nobody))
	_, err = b.lend("b", "p", 1)
	require.NoError(t, err)
}

// TestPrefixes: strangers of one network share one interval, those of one allocation eight.
func TestPrefixes(t *testing.T) {
	b := newBank(t, accounting.DefaultCredit())
	got := 0
	for i := range 12 {
		_, err := b.Lend(b.ctx, b.ds, accounting.Applicant{Deal: fmt.Sprint(i), Peer: fmt.Sprint("p", i), Terms: terms(1), Size: 1 << 40,
			Origins: []accounting.Origin{{Key: fmt.Sprint("net", i/2), Intervals: 1}, {Key: "allocation", Intervals: 5}}})
		if err == nil {
			got++
		}
	}
	require.Equal(t, 5, got)
}

// TestManyDealsOfOnePayer: what one payer has out over all deals together is at most a sixteenth of what is secured and one interval of the
// strangers' (theft 2).
func TestManyDealsOfOnePayer(t *testing.T) {
	for _, secured := range []int64{2000, 64 << 20, 1 << 40} {
		b := newBank(t, accounting.DefaultCredit())
		_, err := b.lend("first", "p", 1)
		require.NoError(t, err)
		b.pays("first", "ch", "payer", secured, 0)
		require.NoError(t, b.End(b.ctx, b.ds, "first", 0, reason.Nobody))
		for i := range 65 {
			b.walkOut(fmt.Sprint("d", i), "p", 1)
		}
		// An ended deal is a debt: the second one is refused. Running deals at once:
		c := newBank(t, accounting.DefaultCredit())
		_, err = c.lend("first", "p", 1)
		require.NoError(t, err)
		c.pays("first", "ch", "payer", secured, 0)
		require.NoError(t, c.End(c.ctx, c.ds, "first", 0, reason.Nobody))
		var out uint64
		for i := range 65 {
			if l, err := c.lend(fmt.Sprint("d", i), "p", 1); err == nil {
				out += l.Bytes()
			}
		}
		bound := min(uint64(64<<20), uint64(secured)/16) + loan
		require.LessOrEqual(t, out, bound, "secured %d", secured)
		require.LessOrEqual(t, b.released, bound, "secured %d", secured)
	}
}

// TestCheapThenDear: a record of cheap data is worth its money on dear data, not its bytes.
func TestCheapThenDear(t *testing.T) {
	b := newBank(t, accounting.DefaultCredit())
	_, err := b.lend("cheap", "p", 1)
	require.NoError(t, err)
	b.pays("cheap", "ch", "payer", 256<<20, 0)
	require.NoError(t, b.End(b.ctx, b.ds, "cheap", 0, reason.Nobody))
	var owed uint64
	for i := range 50 {
		if l, err := b.lend(fmt.Sprint("dear", i), "p", 1000); err == nil {
			owed += l.Record * 1000
		}
	}
	require.LessOrEqual(t, owed, uint64(256<<20)/16)
}

// TestDefaultTwice: who pays much, leaves with a debt and waits until it is forgotten has no record any more.
func TestDefaultTwice(t *testing.T) {
	b := newBank(t, accounting.DefaultCredit())
	_, err := b.lend("first", "p", 1)
	require.NoError(t, err)
	b.pays("first", "ch", "payer", 256<<20, 0)
	require.NoError(t, b.End(b.ctx, b.ds, "first", 0, reason.Nobody))
	take := func(round int) (total uint64) {
		var deals []string
		for i := range 65 {
			deal := fmt.Sprint("r", round, "-", i)
			if l, err := b.lend(deal, "p", 1); err == nil {
				total += l.Bytes()
				deals = append(deals, deal)
			}
		}
		for _, d := range deals {
			require.NoError(t, b.End(b.ctx, b.ds, d, b.LoanOf(d).Bytes(), reason.Theirs))
		}
		return total
	}
	require.LessOrEqual(t, take(1), uint64(16<<20+loan))
	require.Zero(t, take(2), "a debt bars credit")
	b.open(accounting.DefaultCredit())
	require.Zero(t, take(3), "also after a restart")
	b.clock = b.clock.Add(25 * time.Hour)
	require.LessOrEqual(t, take(4), uint64(loan), "the record is gone")
}

// TestStrangersDoNotLockOut: while the allowance is used up a newcomer who shows money first is served (denial 3).
func TestStrangersDoNotLockOut(t *testing.T) {
	b := newBank(t, accounting.DefaultCredit())
	for i := range 8 {
		_, err := b.lend(fmt.Sprint(i), fmt.Sprint("p", i), 1)
		require.NoError(t, err)
	}
	a := accounting.Applicant{Deal: "new", Peer: "newcomer", Terms: terms(1), Size: 1 << 40}
	require.False(t, b.WouldLend(b.ctx, a))
	a.Deposit = big.NewInt(interval)
	require.False(t, b.WouldLend(b.ctx, a), "the block beyond it is not covered")
	a.Deposit = big.NewInt(loan)
	require.True(t, b.WouldLend(b.ctx, a))
	l, err := b.Lend(b.ctx, b.ds, a)
	require.NoError(t, err)
	require.Equal(t, uint64(loan), l.Bytes())
	require.Equal(t, uint64(interval), l.Reach())
}

// TestLoansCountAfterCrash: what was lent is out until somebody says otherwise.
func TestLoansCountAfterCrash(t *testing.T) {
	b := newBank(t, accounting.DefaultCredit())
	for i := range 8 {
		_, err := b.lend(fmt.Sprint(i), fmt.Sprint("p", i), 1)
		require.NoError(t, err)
	}
	b.open(accounting.DefaultCredit())
	_, err := b.lend("new", "newcomer", 1)
	var none *accounting.NoCreditError
	require.ErrorAs(t, err, &none)
	s, _ := b.Unpaid()
	require.Equal(t, uint64(16<<20), s)
	again, err := b.lend("3", "p3", 1)
	require.NoError(t, err)
	require.Equal(t, uint64(loan), again.Bytes(), "its own loan is kept")
}

// TestCreditBounds: whatever strangers, payers and the clock do, what is out unpaid stays within the bounds.
func TestCreditBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newBank(t, accounting.DefaultCredit())
		start, secured, deals := b.clock, int64(0), 0
		running := map[string]string{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			peer := fmt.Sprint("p", rapid.IntRange(0, 3).Draw(t, "peer"))
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0, 1:
				deals++
				deal := fmt.Sprint("d", deals)
				if _, err := b.lend(deal, peer, 1); err == nil {
					running[deal] = peer
				} else {
					var none *accounting.NoCreditError
					require.True(t, errors.As(err, &none), err)
				}
			case 2:
				for deal := range running {
					secured += rapid.Int64Range(1, 8<<20).Draw(t, "pays")
					b.pays(deal, "ch", "payer", secured, 0)
					break
				}
			case 3:
				for deal := range running {
					l := b.LoanOf(deal)
					require.NoError(t, b.End(b.ctx, b.ds, deal, rapid.Uint64Range(0, l.Bytes()).Draw(t, "unpaid"), reason.Blame(rapid.IntRange(0, 2).Draw(t, "blame"))))
					delete(running, deal)
					break
				}
			case 4:
				b.clock = b.clock.Add(time.Duration(rapid.IntRange(1, 90).Draw(t, "minutes")) * time.Minute)
			}
			strangers, records := b.Unpaid()
			hours := uint64(b.clock.Sub(start)/time.Hour) + 1
			require.LessOrEqual(t, strangers, 16<<20+hours*(16<<20))
			require.LessOrEqual(t, records, uint64(secured)/16+1)
		}
	})
}
