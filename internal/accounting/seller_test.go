package accounting_test

import (
	"math"
	"testing"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cartage-dev/cartage/internal/accounting"
)

// TestMaySend walks the decision to release data row by row: price 2, unseal price 10, an interval of 100 bytes.
func TestMaySend(t *testing.T) {
	paid := accounting.Terms{Price: big.NewInt(2), Unseal: big.NewInt(10), Interval: 100}
	free := accounting.Terms{Price: big.Zero(), Unseal: big.Zero()}
	unsealOnly := accounting.Terms{Price: big.Zero(), Unseal: big.NewInt(10)}
	for _, row := range []struct {
		name     string
		terms    accounting.Terms
		paid     int64
		loan     uint64
		position uint64
		whole    bool
		size     uint64
		next     uint64
		send     bool
		limit    uint64
		demand   accounting.DemandKind
		owed     int64
	}{
		{"nothing is owed for what is free", free, 0, 0, 1 << 40, false, 0, 0, true, math.MaxUint64, accounting.DemandNothing, 0},
		{"the unseal price alone", unsealOnly, 9, 0, 0, false, 0, 0, false, 0, accounting.DemandUnseal, 1},
		{"behind the unseal price", unsealOnly, 10, 0, 1 << 40, false, 0, 0, true, math.MaxUint64, accounting.DemandNothing, 0},
		{"before the unseal price", paid, 0, 100, 0, false, 1000, 0, false, 0, accounting.DemandUnseal, 10},
		{"on credit", paid, 10, 100, 99, false, 1000, 0, true, 100, accounting.DemandNothing, 0},
		{"at the limit", paid, 10, 100, 100, false, 1000, 0, false, 100, accounting.DemandInterval, 200},
		{"a block beyond the limit", paid, 10, 100, 130, false, 1000, 0, false, 100, accounting.DemandInterval, 260},
		{"half of it paid", paid, 110, 100, 130, false, 1000, 0, true, 150, accounting.DemandNothing, 0},
		{"a loan below an interval", paid, 10, 60, 60, false, 1000, 0, false, 60, accounting.DemandInterval, 120},
		{"a loan above an interval counts as one", paid, 10, 500, 100, false, 1000, 0, false, 100, accounting.DemandInterval, 200},
		{"the rest at the end", paid, 210, 100, 130, true, 1000, 0, false, 200, accounting.DemandLast, 60},
		{"all paid at the end", paid, 270, 100, 130, true, 1000, 0, false, 230, accounting.DemandNothing, 0},
		{"in advance, before the first byte", paid, 0, 0, 0, false, 1000, 0, false, 0, accounting.DemandUnseal, 210},
		{"in advance, a payload below an interval", paid, 0, 0, 0, false, 40, 0, false, 0, accounting.DemandUnseal, 90},
		{"in advance, a byte buys a look", paid, 12, 0, 0, false, 1000, 0, true, 1, accounting.DemandNothing, 0},
		{"in advance, and no block", paid, 12, 0, 0, false, 1000, 30, false, 1, accounting.DemandInterval, 198},
		{"in advance, paid", paid, 210, 0, 0, false, 1000, 100, true, 100, accounting.DemandNothing, 0},
		{"in advance, a block that is not covered whole", paid, 210, 0, 80, false, 1000, 21, false, 100, accounting.DemandInterval, 160},
		{"in advance, one that is", paid, 210, 0, 80, false, 1000, 20, true, 100, accounting.DemandNothing, 0},
		{"in advance, one that is larger than an interval", paid, 210, 0, 80, false, 1000, 300, false, 100, accounting.DemandInterval, 560},
		{"in advance, used up: is there more?", paid, 210, 0, 100, false, 1000, 0, true, 100, accounting.DemandNothing, 0},
		{"in advance, there is", paid, 210, 0, 100, false, 1000, 1, false, 100, accounting.DemandInterval, 200},
		{"in advance, the end is near", paid, 210, 0, 100, false, 150, 400, false, 100, accounting.DemandInterval, 100},
		{"in advance, more than all", paid, 210, 0, 90, true, 150, 0, false, 100, accounting.DemandNothing, 0},
		{"in advance, all is paid, and the size of the block is not known", paid, 310, 0, 80, false, 150, 2 << 20, true, math.MaxUint64, accounting.DemandNothing, 0},
		{"in advance, all is paid and sent", paid, 310, 0, 150, false, 150, 2 << 20, true, math.MaxUint64, accounting.DemandNothing, 0},
	} {
		v := accounting.MaySend(row.terms, accounting.SellerFacts{Paid: big.NewInt(row.paid), Loan: row.loan, Position: row.position, Whole: row.whole, Size: row.size, Next: row.next})
		require.Equal(t, row.send, v.Send, row.name)
		require.Equal(t, row.limit, v.Limit, row.name)
		require.Equal(t, row.demand, v.Demand, row.name)
		if row.demand != accounting.DemandNothing {
			require.EqualValues(t, row.owed, v.Owed(big.NewInt(row.paid)).Int64(), row.name)
		}
	}
}

// TestMaySendProperties: what is released is at most what is paid and lent; a payment never lowers the limit; whoever waits is told how much ends the
// wait, and paying it does.
func TestMaySendProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		terms := accounting.Terms{Price: big.NewInt(rapid.Int64Range(1, 1<<20).Draw(t, "price")), Unseal: big.NewInt(rapid.Int64Range(0, 1<<20).Draw(t, "unseal")),
			Interval: rapid.Uint64Range(1, 1<<24).Draw(t, "interval"), Increase: rapid.Uint64Range(0, 1<<10).Draw(t, "increase")}
		f := accounting.SellerFacts{Paid: big.NewInt(rapid.Int64Range(0, 1<<44).Draw(t, "paid")), Loan: rapid.Uint64Range(0, 1<<25).Draw(t, "loan"),
			Position: rapid.Uint64Range(0, 1<<26).Draw(t, "position"), Whole: rapid.Bool().Draw(t, "whole"), Size: rapid.Uint64Range(1, 1<<26).Draw(t, "size"), Next: rapid.Uint64Range(0, 1<<22).Draw(t, "next")}
		v := accounting.MaySend(terms, f)
		covered := terms.PaidBytes(f.Paid)
		if f.Loan > 0 || covered < f.Size {
			require.LessOrEqual(t, v.Limit, covered+min(f.Loan, terms.CurrentInterval(covered)))
		}
		priced := f.Paid.GreaterThanEqual(terms.Unseal)
		require.Equal(t, f.Loan == 0 && covered < f.Size && priced, v.Exact && priced)
		if f.Loan == 0 && v.Send && f.Position < f.Size { // not one byte is lent
			require.LessOrEqual(t, f.Position+min(f.Next, max(f.Size, f.Position)-f.Position), max(covered, f.Position))
		}
		require.False(t, v.Send && v.Demand != accounting.DemandNothing, "it sends and waits")
		more := f
		more.Paid = big.Add(f.Paid, big.NewInt(rapid.Int64Range(0, 1<<30).Draw(t, "more")))
		require.GreaterOrEqual(t, accounting.MaySend(terms, more).Limit, v.Limit)
		if v.Demand == accounting.DemandNothing {
			return
		}
		more.Paid = big.Max(f.Paid, v.Total)
		after := accounting.MaySend(terms, more)
		if v.Demand == accounting.DemandUnseal { // what was released before it is asked for next
			require.NotEqual(t, accounting.DemandUnseal, after.Demand)
			return
		}
		require.True(t, f.Whole || !after.Exact || f.Position+f.Next <= after.Limit, "%+v paid %s, and the block does not fit", f, v.Total)
		require.True(t, after.Send || f.Whole, "%+v waits for %s and then for %d %s", f, v.Total, after.Demand, after.Total)
		if f.Whole && f.Position > 0 && !terms.Due(f.Position).GreaterThan(more.Paid) {
			require.True(t, accounting.Settled(terms, more.Paid, f.Position))
		}
	})
}
