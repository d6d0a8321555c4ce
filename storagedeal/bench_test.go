package storagedeal_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/commp"
	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/storagedeal"
)

// BenchmarkStatelessDeals is proposals to one provider over TCP, each stored durably before it is answered: proposals a second is the number to look at.
func BenchmarkStatelessDeals(b *testing.B) {
	m := newMarket(b, func(m *market) {
		ds, err := store.Open(filepath.Join(m.dir, "state"))
		require.NoError(b, err)
		b.Cleanup(func() { require.NoError(b, ds.Close()) })
		m.cfg.Store = ds
	})
	_, root, p := m.archive("data", 300_000)
	params := func(yield func(storagedeal.StartDealParams) bool) {
		for i := range b.N {
			q := m.params(root, commp.Piece{CID: p.CID, Padded: p.Padded})
			q.DealStartEpoch = abi.ChainEpoch(1_010_000 + i)
			if !yield(q) {
				return
			}
		}
	}
	b.ResetTimer()
	start := time.Now()
	for r := range m.client.StatelessDeals(b.Context(), params, 64) {
		if r.Err != nil {
			b.Fatal(r.Err)
		}
	}
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "proposals/s")
}
