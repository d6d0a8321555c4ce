package accounting_test

import (
	"testing"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cartage-dev/cartage/internal/accounting"
)

// classes of facts: how what was vouchered and what is asked for compare with what is due.
const (
	nothing = iota
	below
	equal
	above
)

// expectedAction is the decision in words, row by row, for a deal of price 2 with 1,000 bytes verified and neither window nor unasked vouchers.
func expectedAction(demand accounting.DemandKind, vouchered, asked int, whole, quiet, restarted, denied bool) accounting.ActionKind {
	switch {
	case demand == accounting.DemandNothing:
		return accounting.ActionWait // nobody asks
	case vouchered < equal && (asked <= equal || whole || quiet):
		return accounting.ActionPay // what is due
	case vouchered < equal:
		return accounting.ActionWait // for the blocks that are asked for
	case demand == accounting.DemandLast && whole && restarted && !denied:
		return accounting.ActionRepeat // it may never have come
	case !quiet:
		return accounting.ActionWait // for the answer
	case !denied:
		return accounting.ActionRepeat
	case whole:
		return accounting.ActionOverpaid
	}
	return accounting.ActionRefuse
}

// TestDecide walks the product of the classes of facts of a client that pays for what it verified.
func TestDecide(t *testing.T) {
	terms := accounting.Terms{Price: big.NewInt(2), Unseal: big.Zero(), Interval: 100}
	const verified, due = 1000, 2000
	amounts := map[int]int64{nothing: 0, below: 1000, equal: due, above: 3000}
	rows := 0
	for _, demand := range []accounting.DemandKind{accounting.DemandNothing, accounting.DemandInterval, accounting.DemandLast} {
		for _, vouchered := range []int{nothing, below, equal} {
			for _, asked := range []int{below, equal, above} {
				for flags := range 16 {
					whole, quiet, restarted, denied := flags&1 > 0, flags&2 > 0, flags&4 > 0, flags&8 > 0
					f := accounting.BuyerFacts{Verified: verified, Whole: whole, Vouchered: big.NewInt(amounts[vouchered]), Requested: big.NewInt(amounts[asked]), Demand: demand,
						Quiet: quiet, Budget: big.NewInt(1 << 40)}
					if restarted {
						f.Link = accounting.LinkRestarted
					}
					if denied {
						f.Repeats = accounting.MaxRepeats
					}
					got := accounting.Decide(terms, f)
					require.Equal(t, expectedAction(demand, vouchered, asked, whole, quiet, restarted, denied), got.Kind, "%+v", f)
					switch got.Kind {
					case accounting.ActionPay:
						require.EqualValues(t, due, got.Amount.Int64(), "what is due is paid, not what is asked for")
					case accounting.ActionWait:
						require.Equal(t, got.For == accounting.WaitForNothing, got.Until == 0, "a wait has an end: %+v", f)
						require.Equal(t, demand == accounting.DemandNothing, got.For == accounting.WaitForNothing, "%+v", f)
					}
					rows++
				}
			}
		}
	}
	require.LessOrEqual(t, rows, 2000)
}

// TestDecideBudget: what the budget does not cover is not paid, and what is missing is named.
func TestDecideBudget(t *testing.T) {
	terms := accounting.Terms{Price: big.NewInt(2), Unseal: big.Zero(), Interval: 100}
	got := accounting.Decide(terms, accounting.BuyerFacts{Verified: 1000, Vouchered: big.NewInt(100), Requested: big.NewInt(2000), Demand: accounting.DemandInterval, Budget: big.NewInt(1999)})
	require.Equal(t, accounting.ActionTopUp, got.Kind)
	require.EqualValues(t, 1, got.Amount.Int64())
}

// TestDecideUnseal: the unseal price that was agreed is paid before the first byte, and one unit more is refused.
func TestDecideUnseal(t *testing.T) {
	terms := accounting.Terms{Price: big.NewInt(2), Unseal: big.NewInt(5), Interval: 100}
	f := accounting.BuyerFacts{Vouchered: big.Zero(), Requested: big.NewInt(5), Demand: accounting.DemandUnseal, Budget: big.NewInt(1000)}
	got := accounting.Decide(terms, f)
	require.Equal(t, accounting.ActionPay, got.Kind)
	require.EqualValues(t, 5, got.Amount.Int64())
	f.Requested = big.NewInt(6)
	require.Equal(t, accounting.ActionRefuse, accounting.Decide(terms, f).Kind)
	f.Window, f.Requested = 100, big.NewInt(205)
	got = accounting.Decide(terms, f)
	require.Equal(t, accounting.ActionPay, got.Kind)
	require.EqualValues(t, 205, got.Amount.Int64())
	f.Requested = big.NewInt(206)
	require.Equal(t, accounting.ActionRefuse, accounting.Decide(terms, f).Kind)
}

// drawFacts are facts as a client could have them: it never signed more than what was payable at some time before.
func drawFacts(t *rapid.T, terms accounting.Terms) accounting.BuyerFacts {
	f := accounting.BuyerFacts{
		Verified: rapid.Uint64Range(0, 1<<20).Draw(t, "verified"), Whole: rapid.Bool().Draw(t, "whole"),
		Demand: accounting.DemandKind(rapid.IntRange(0, 3).Draw(t, "demand")), Window: rapid.Uint64Range(0, 1<<16).Draw(t, "window"),
		Size: rapid.Uint64Range(0, 1<<20).Draw(t, "size"), Ahead: rapid.Bool().Draw(t, "ahead"), Step: rapid.Uint64Range(1, 1<<16).Draw(t, "step"),
		Link: accounting.Link(rapid.IntRange(0, 1).Draw(t, "link")), Quiet: rapid.Bool().Draw(t, "quiet"), Repeats: rapid.IntRange(0, 12).Draw(t, "repeats"),
		Requested: big.NewInt(rapid.Int64Range(0, 1<<44).Draw(t, "asked")), Budget: big.NewInt(rapid.Int64Range(0, 1<<44).Draw(t, "budget")),
	}
	f.Vouchered = terms.Due(rapid.Uint64Range(0, f.Verified).Draw(t, "paid for"))
	if rapid.Bool().Draw(t, "nothing signed") {
		f.Vouchered = big.Zero()
	}
	return f
}

// TestDecideProperties: never above what is due and the agreed window, never above the budget, never less than before; a lost or repeated message
// never ends the deal; each wait for somebody has an end.
func TestDecideProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		terms := accounting.Terms{Price: big.NewInt(rapid.Int64Range(0, 1<<20).Draw(t, "price")), Unseal: big.NewInt(rapid.Int64Range(0, 1<<30).Draw(t, "unseal")), Interval: 1 << 16}
		f := drawFacts(t, terms)
		act := accounting.Decide(terms, f)
		switch act.Kind {
		case accounting.ActionPay:
			require.True(t, act.Amount.LessThanEqual(terms.Due(f.Verified+f.Window)), "%s for %+v", act.Amount, f)
			require.True(t, act.Amount.LessThanEqual(f.Budget), "%s for %+v", act.Amount, f)
			require.True(t, act.Amount.GreaterThan(f.Vouchered), "%s for %+v", act.Amount, f)
			after := f
			after.Vouchered, after.Requested, after.Demand = act.Amount, big.Max(f.Requested, act.Amount), accounting.DemandInterval
			after.Quiet, after.Repeats = false, 0
			if next := accounting.Decide(terms, after); next.Kind == accounting.ActionRefuse || next.Kind == accounting.ActionOverpaid {
				t.Fatalf("a repeated request after %+v ends the deal", f)
			}
		case accounting.ActionWait:
			require.Equal(t, act.For == accounting.WaitForNothing, act.Until == 0)
		case accounting.ActionRefuse:
			require.True(t, f.Repeats >= accounting.MaxRepeats || f.Demand == accounting.DemandUnseal && f.Verified == 0, "%+v", f)
		}
	})
}

// TestNextPayment: below the bytes that NextPayment names nothing but a wait comes out of more bytes.
func TestNextPayment(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		terms := accounting.Terms{Price: big.NewInt(rapid.Int64Range(1, 1000).Draw(t, "price")), Unseal: big.Zero(), Interval: 1 << 16}
		f := drawFacts(t, terms)
		f.Whole, f.Quiet, f.Budget, f.Link = false, false, big.Lsh(big.NewInt(1), 80), accounting.LinkFresh
		if f.Demand == accounting.DemandUnseal || f.Requested.LessThanEqual(f.Vouchered) {
			return
		}
		f.Requested = big.Mul(big.Div(f.Requested, terms.Price), terms.Price)
		next := accounting.NextPayment(terms, f)
		if next <= f.Verified {
			return
		}
		f.Verified = rapid.Uint64Range(f.Verified, next-1).Draw(t, "more")
		require.Equal(t, accounting.ActionWait, accounting.Decide(terms, f).Kind, "%d below %d: %+v", f.Verified, next, f)
	})
}
