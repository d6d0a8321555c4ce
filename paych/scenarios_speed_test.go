package paych_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// fullSpeed: a payer that sends vouchers of one unit as fast as it can is slowed down, and the book does not grow.
func fullSpeed(w *world) {
	synctest.Test(w.t, func(t *testing.T) {
		w := newWorld(t, "M")
		ch, lane := w.payer.fund("d", w.payee.addr, 100_000)
		first := w.payer.pay("d", ch, lane, 1)
		w.payee.mustTake("d", first, 1)
		keys := storedKeys(t, w.payee)
		begun := time.Now()
		count, least := int64(10_000), 2*time.Second
		if testing.Short() {
			count, least = 5000, 400*time.Millisecond
		}
		for i := range count {
			w.payee.mustTake("d", w.payer.pay("d", ch, lane, i+2), 1)
		}
		require.GreaterOrEqual(t, time.Since(begun), least)
		require.Equal(t, keys, storedKeys(t, w.payee))
	})
}
