package accounting_test

import (
	stdbig "math/big"
	"testing"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cartage-dev/cartage/internal/accounting"
)

// TestRate (T-06; G-30, G-31, G-32): whatever way a body is split, and whatever the prices of the parts, the charges add up to the exact sum,
// rounded up once; no charge is above what was asked for.
func TestRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		exact, charged, spare := new(stdbig.Int), big.Zero(), uint64(0)
		for range rapid.IntRange(1, 60).Draw(t, "windows") {
			price := rapid.SampledFrom([]int64{0, 1, 7_000_000, 1 << 40, 1<<62 + 12345}).Draw(t, "price")
			r := accounting.Rate{PerTiB: big.Mul(big.NewInt(price), big.NewInt(rapid.Int64Range(1, 1<<33).Draw(t, "factor")))}
			n := rapid.Uint64Range(0, 1<<36).Draw(t, "bytes")
			var charge big.Int
			before := spare
			charge, spare = r.Charge(n, before)
			require.Less(t, spare, uint64(1)<<40)
			require.True(t, charge.Sign() >= 0 && charge.LessThanEqual(r.Ceiling(n)))
			charged = big.Add(charged, charge)
			exact.Add(exact, new(stdbig.Int).Mul(r.PerTiB.Int, new(stdbig.Int).SetUint64(n)))
		}
		up := new(stdbig.Int).Add(exact, new(stdbig.Int).SetUint64(1<<40-1))
		require.Equal(t, up.Rsh(up, 40).String(), charged.String())
	})
	// 64 windows of 64 KiB at 7 USDC/TiB.
	r, sum, spare := accounting.Rate{PerTiB: big.NewInt(7_000_000)}, big.Zero(), uint64(0)
	for range 64 {
		var charge big.Int
		charge, spare = r.Charge(64<<10, spare)
		sum = big.Add(sum, charge)
	}
	require.Equal(t, "27", sum.String())
	require.Equal(t, "27", r.Ceiling(4<<20).String())
	// One formula for both doors: a price per byte owes the same by the TiB.
	terms := accounting.Terms{Price: big.NewInt(3)}
	require.Equal(t, terms.Due(1_000_001).String(), terms.Rate().Ceiling(1_000_001).String())
	require.Equal(t, "0", accounting.Rate{}.Ceiling(1<<62).String())
}
