package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/reason"
	pay "github.com/cartage-dev/cartage/paych"
)

// killedLedger is a home as a kill leaves it after 40 answered mints of 1, and the account that has them.
func killedLedger(t *testing.T) (home string, to address.Address) {
	live, home := t.TempDir(), t.TempDir()
	require.NoError(t, Init(live, Options{Epoch: time.Second, SettleDelay: 10}))
	l, err := Open(t.Context(), live)
	require.NoError(t, err)
	key, err := pay.NewKey()
	require.NoError(t, err)
	for range 40 {
		_, err := l.Mint(t.Context(), key.Address, big.NewInt(1))
		require.NoError(t, err)
	}
	require.NoError(t, os.CopyFS(home, os.DirFS(live)))
	require.NoError(t, l.Close())
	return home, key.Address
}

// balanceOf opens a ledger, verifies it and reads a balance.
func balanceOf(t *testing.T, home string, of address.Address) (int64, error) {
	l, err := Open(t.Context(), home)
	if err != nil {
		return 0, err
	}
	require.NoError(t, l.Verify())
	a, err := newView(l.kv).account(of, false, nil)
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return a.Balance.Int64(), nil
}

// damages are ways to damage a file of so many used bytes.
func damages() map[string]func(data []byte) []byte {
	out := map[string]func(data []byte) []byte{}
	for _, percent := range []int{10, 50, 90, 99} {
		at := func(d []byte) int { return len(bytes.TrimRight(d, "\x00")) * percent / 100 }
		out[fmt.Sprintf("bit at %d %%", percent)] = func(d []byte) []byte { d[at(d)] ^= 1; return d }
		out[fmt.Sprintf("zeros at %d %%", percent)] = func(d []byte) []byte { clear(d[at(d):min(len(d), at(d)+512)]); return d }
		out[fmt.Sprintf("cut at %d %%", percent)] = func(d []byte) []byte { return d[:at(d)] }
	}
	return out
}

func damage(t *testing.T, pattern string, f func([]byte) []byte) {
	m, err := filepath.Glob(pattern)
	require.NoError(t, err)
	require.Len(t, m, 1)
	data, err := os.ReadFile(m[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(m[0], f(data), 0o600))
}

func copied(t *testing.T, home string) string {
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(home)))
	return dir
}

// TestDamagedStoreIsRepaired: however the log of the store is damaged, the ledger does not open with less than it answered, and the repair
// brings all of it back.
func TestDamagedStoreIsRepaired(t *testing.T) {
	clean, to := killedLedger(t)
	for name, f := range damages() {
		t.Run(name, func(t *testing.T) {
			home := copied(t, clean)
			damage(t, filepath.Join(home, "ledger", "*.log"), f)
			_, err := balanceOf(t, home, to)
			require.ErrorIs(t, err, reason.StateRolledBack)
			var told *reason.Error
			require.ErrorAs(t, err, &told)
			require.Contains(t, told.Hint, "ledger repair --from-log")
			r, err := Repair(t.Context(), home, false)
			require.NoError(t, err)
			require.Equal(t, uint64(40), r.Transactions)
			require.DirExists(t, r.Aside)
			n, err := balanceOf(t, home, to)
			require.NoError(t, err)
			require.Equal(t, int64(40), n)
		})
	}
}

// TestDamagedJournalIsHealed: a journal that is damaged or gone is written again from the store, so that it can repair the store after it.
func TestDamagedJournalIsHealed(t *testing.T) {
	clean, to := killedLedger(t)
	all := damages()
	all["gone"] = nil
	for name, f := range all {
		t.Run(name, func(t *testing.T) {
			home := copied(t, clean)
			if f == nil {
				require.NoError(t, os.Remove(filepath.Join(home, journalName)))
			} else {
				damage(t, filepath.Join(home, journalName), f)
			}
			n, err := balanceOf(t, home, to)
			require.NoError(t, err)
			require.Equal(t, int64(40), n)
			require.NoError(t, os.RemoveAll(filepath.Join(home, "ledger")))
			_, err = Repair(t.Context(), home, false)
			require.NoError(t, err)
			n, err = balanceOf(t, home, to)
			require.NoError(t, err)
			require.Equal(t, int64(40), n)
		})
	}
}

// TestBothDamaged: with both copies damaged the repair says what it cannot bring back, and does it only when told to.
func TestBothDamaged(t *testing.T) {
	home, to := killedLedger(t)
	half := damages()["bit at 50 %"]
	damage(t, filepath.Join(home, "ledger", "*.log"), half)
	damage(t, filepath.Join(home, journalName), half)
	r, err := Repair(t.Context(), home, false)
	require.ErrorIs(t, err, ErrJournalDamaged)
	require.Positive(t, r.Unread)
	r, err = Repair(t.Context(), home, true)
	require.NoError(t, err)
	n, err := balanceOf(t, home, to)
	require.NoError(t, err)
	require.Equal(t, int64(r.Transactions), n)
	require.Less(t, n, int64(40))
}

// TestOlderStore: a store that was put back from an older copy is behind the journal, and is not taken for the present one.
func TestOlderStore(t *testing.T) {
	home, to := killedLedger(t)
	old := t.TempDir()
	require.NoError(t, os.CopyFS(old, os.DirFS(filepath.Join(home, "ledger"))))
	l, err := Open(t.Context(), home)
	require.NoError(t, err)
	_, err = l.Mint(t.Context(), to, big.NewInt(1))
	require.NoError(t, err)
	require.NoError(t, l.Close())
	require.NoError(t, os.RemoveAll(filepath.Join(home, "ledger")))
	require.NoError(t, os.CopyFS(filepath.Join(home, "ledger"), os.DirFS(old)))
	_, err = balanceOf(t, home, to)
	require.ErrorIs(t, err, reason.StateRolledBack)
	require.False(t, errors.Is(err, reason.StoreFailed))
	_, err = Repair(t.Context(), home, false)
	require.NoError(t, err)
	n, err := balanceOf(t, home, to)
	require.NoError(t, err)
	require.Equal(t, int64(41), n)
}
