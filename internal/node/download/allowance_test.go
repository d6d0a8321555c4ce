package download

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/reason"
)

// TestTokenBudget: the orders of a token have its budget together. One that has not ended holds all that it may cost, also after a crash; one that
// has ended what it did cost, in its period; nobody else's order for the same is touched with it.
func TestTokenBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, func(ctx context.Context, m *fakeMarket, a Attempt, d Deal) (Outcome, error) {
			if a.Order.Key == "ends" {
				return Outcome{Moved: true}, m.pay(d, 30)
			}
			return waits(ctx, m, a, d)
		})
		defer func() { w.close() }()
		since := time.Time{}
		allow := func() {
			w.cfg.Allowance = func(string) (Allowance, error) { return Allowance{big.NewInt(100), since}, nil }
		}
		allow()
		try := func(key, token string, budget int64) (ID, error) {
			b := big.NewInt(budget)
			id, err := w.Place(t.Context(), Order{Key: key, Want: []byte("{}"), Owner: Queue, Budget: &b, Token: token}, "me")
			synctest.Wait()
			return id, err
		}
		used := func() string {
			sum, err := w.Used(t.Context(), "a", since, 0)
			require.NoError(t, err)
			return sum.String()
		}
		_, err := try("ends", "a", 101)
		require.ErrorIs(t, err, reason.TokenBudget)
		require.Equal(t, "0", used(), "what was refused counts nothing")
		w.market.mu.Lock()
		w.market.all = false
		w.market.mu.Unlock()
		first, err := try("one", "a", 60)
		require.NoError(t, err)
		_, err = try("two", "a", 41)
		require.ErrorIs(t, err, reason.TokenBudget)
		second, err := try("two", "a", 40)
		require.NoError(t, err)
		require.Equal(t, "100", used())
		more := big.NewInt(61)
		require.ErrorIs(t, w.Resume(t.Context(), first, &more, nil, "me"), reason.TokenBudget)
		_, err = try("one", "b", 1)
		require.ErrorIs(t, err, reason.TokenPermission)

		w.crash()
		w.reopen()
		allow()
		require.Equal(t, "100", used(), "nothing is forgotten")
		_, err = w.Cancel(t.Context(), second)
		require.NoError(t, err)
		require.Equal(t, "60", used(), "what it did not spend comes back")
		_, err = w.Cancel(t.Context(), first)
		require.NoError(t, err)
		_, err = try("ends", "a", 100)
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.Equal(t, "30", used())
		_, err = try("three", "a", 71)
		require.ErrorIs(t, err, reason.TokenBudget)
		since = time.Now().Add(time.Hour)
		require.Equal(t, "0", used(), "another day")
	})
}
