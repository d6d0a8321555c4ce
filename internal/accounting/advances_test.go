package accounting_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/accounting"
)

// TestManyFakePayees: a hundred payees that take an advance and send nothing get one interval of an order, and the limit over all orders.
func TestManyFakePayees(t *testing.T) {
	ds, clock := dssync.MutexWrap(datastore.NewMapDatastore()), time.Unix(1<<30, 0)
	open := func() *accounting.Advances {
		a, err := accounting.OpenAdvances(t.Context(), ds, accounting.AdvanceLimits{Bytes: 8 * interval, Memory: 24 * time.Hour}, func() time.Time { return clock })
		require.NoError(t, err)
		return a
	}
	lost := func(a *accounting.Advances, order func(i int) string) (total uint64) {
		for i := range 100 {
			deal := fmt.Sprint(order(i), "-", i)
			ok, err := a.Reserve(t.Context(), deal, order(i), fmt.Sprint("payee", i), interval)
			require.NoError(t, err)
			if ok {
				require.Equal(t, uint64(interval), a.Granted(deal))
				total += interval
				require.NoError(t, a.End(t.Context(), deal, interval))
			}
		}
		return total
	}
	a := open()
	require.Equal(t, uint64(interval), lost(a, func(int) string { return "one order" }))
	require.Equal(t, uint64(7*interval), lost(a, func(i int) string { return fmt.Sprint("order", i) }))
	a = open()
	require.Zero(t, lost(a, func(i int) string { return fmt.Sprint("later", i) }), "also after a restart")
	require.Len(t, a.Losses(), 8)
	clock = clock.Add(25 * time.Hour)
	require.Equal(t, uint64(8*interval), lost(a, func(i int) string { return fmt.Sprint("tomorrow", i) }))
}

// TestAdvanceIsGivenBack: what came is no loss, and makes room for the next.
func TestAdvanceIsGivenBack(t *testing.T) {
	a, err := accounting.OpenAdvances(t.Context(), dssync.MutexWrap(datastore.NewMapDatastore()), accounting.AdvanceLimits{Bytes: interval, Memory: time.Hour}, nil)
	require.NoError(t, err)
	for i := range 3 {
		deal := fmt.Sprint(i)
		ok, err := a.Reserve(t.Context(), deal, "order", "payee", interval)
		require.NoError(t, err)
		require.True(t, ok)
		other, err := a.Reserve(t.Context(), "other", "another", "other payee", 1)
		require.NoError(t, err)
		require.False(t, other, "the limit is over all payees")
		require.NoError(t, a.End(t.Context(), deal, 0))
		require.Zero(t, a.Granted(deal))
	}
}
