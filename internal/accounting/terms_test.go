package accounting_test

import (
	"testing"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cartage-dev/cartage/internal/accounting"
)

func TestBoundaries(t *testing.T) {
	m := accounting.Terms{Price: big.NewInt(2), Interval: 10, Increase: 5}
	for n, want := range []uint64{0, 10, 25, 45, 70} {
		require.Equal(t, want, m.Boundary(uint64(n)))
	}
}

// TestE1ProviderLimit follows the provider's side of example E1.
func TestE1ProviderLimit(t *testing.T) {
	m := accounting.Terms{Price: big.NewInt(2), Unseal: big.Zero(), Interval: 1000, Increase: 500}
	limit := func(paid int64) uint64 {
		return accounting.MaySend(m, accounting.SellerFacts{Paid: big.NewInt(paid), Loan: 1 << 20}).Limit
	}
	require.Equal(t, uint64(1000), limit(0))
	require.Equal(t, uint64(1200+1500), limit(2400))
	require.Equal(t, uint64(3000+2000), limit(6000))
	require.Equal(t, big.NewInt(3600), m.Owed(4800, big.NewInt(6000)))
}

func TestPaymentsInvertBoundary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := accounting.Terms{Price: big.NewInt(1), Interval: rapid.Uint64Range(1, 1<<40).Draw(t, "P"), Increase: rapid.Uint64Range(0, 1<<40).Draw(t, "I")}
		x := rapid.Uint64Range(0, 1<<62).Draw(t, "x")
		k := m.Payments(x)
		if m.Boundary(k) > x || m.Boundary(k+1) <= x {
			t.Fatalf("payments(%d) = %d, B = %d, %d", x, k, m.Boundary(k), m.Boundary(k+1))
		}
	})
}

// TestLimitIsPaidPlusInterval: a provider never releases more than what is paid plus one interval.
func TestLimitIsPaidPlusInterval(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := accounting.Terms{
			Price: big.NewInt(rapid.Int64Range(1, 1<<40).Draw(t, "p")), Unseal: big.NewInt(rapid.Int64Range(0, 1<<40).Draw(t, "u")),
			Interval: rapid.Uint64Range(1, 1<<30).Draw(t, "P"), Increase: rapid.Uint64Range(0, 1<<20).Draw(t, "I"),
		}
		n := rapid.Uint64Range(0, 1<<40).Draw(t, "bytes")
		due := m.Due(n)
		if m.PaidBytes(due) != n {
			t.Fatalf("due(%d) pays for %d", n, m.PaidBytes(due))
		}
		loan := rapid.Uint64Range(1, 1<<31).Draw(t, "loan")
		if v := accounting.MaySend(m, accounting.SellerFacts{Paid: due, Loan: loan}); v.Limit != n+min(loan, m.CurrentInterval(n)) {
			t.Fatalf("limit %d", v.Limit)
		}
		if owed := m.Owed(n, due); !owed.IsZero() {
			t.Fatal("owed after payment")
		}
	})
}
