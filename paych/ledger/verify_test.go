package ledger

import (
	"testing"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/stretchr/testify/require"
)

// TestScenario61Verify: scenario 61: whatever is edited is found, with its place.
func TestScenario61Verify(t *testing.T) {
	first := func(prefix string) func(b *bench) []byte {
		return func(b *bench) (key []byte) {
			require.NoError(b.t, b.kv.Scan([]byte(prefix), func(k, _ []byte) bool {
				key = append([]byte(nil), k...)
				return false
			}))
			return key
		}
	}
	for name, tc := range map[string]struct {
		key  func(b *bench) []byte
		says string
	}{
		"log":         {func(*bench) []byte { return []byte(keyLog + u64(2)) }, "log position 2"},
		"transaction": {first(keyTx), "log position"},
		"balance":     {first(keyAccount), "record"},
		"channel":     {first(keyChannel), "record"},
		"lane":        {first(keyLane), "record"},
		"receipt":     {first(keyReceipt), "record"},
		"head":        {func(*bench) []byte { return []byte(keyMeta) }, "record"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			require.Zero(t, b.redeem(b.voucher(0, 1, 100), nil).ExitCode)
			require.NoError(t, b.Verify())
			key := tc.key(b)
			value, err := b.kv.Get(key)
			require.NoError(t, err)
			if name == "head" {
				m, err := newView(b.kv).meta()
				require.NoError(t, err)
				m.Minted = big.Add(m.Minted, big.NewInt(1))
				v := newView(b.kv)
				require.NoError(t, v.put(keyMeta, m.fields()))
				require.NoError(t, v.commit(true))
			} else {
				value[len(value)-1] ^= 1
				w := b.kv.NewBatch()
				w.Set(key, value)
				require.NoError(t, w.Commit(true))
			}
			require.ErrorContains(t, b.Verify(), tc.says)
		})
	}
}
