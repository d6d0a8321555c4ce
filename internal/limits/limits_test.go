package limits_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/limits"
	"github.com/cartage-dev/cartage/internal/reason"
)

// TestValues: each limit takes 1 and its hard cap, and neither 0 nor one beyond the cap; the fault names key, value and bounds.
func TestValues(t *testing.T) {
	for _, row := range limits.Default().Rows() {
		name := string(row.Name)
		t.Run(name, func(t *testing.T) {
			require.NotZero(t, row.Value)
			require.LessOrEqual(t, row.Value, row.Max)
			require.NotEmpty(t, row.Doc)
			require.NotEqual(t, reason.None, row.Code)
			for v, taken := range map[int64]bool{row.Min: true, row.Max: true, row.Min - 1: false, row.Max + 1: false} {
				var in any = v
				if row.Unit == limits.Duration {
					in = time.Duration(v).String()
				}
				r, err := limits.New(map[string]any{name: in}, inFile)
				if !taken {
					require.ErrorIs(t, err, reason.ConfigValue)
					require.ErrorContains(t, err, "limits."+name)
					continue
				}
				require.NoError(t, err)
				require.Equal(t, v, r.Value(row.Name))
				require.Equal(t, "config.toml", r.Rows()[index(t, r, row.Name)].Origin)
			}
		})
	}
}

func index(t *testing.T, r *limits.Registry, n limits.Name) int {
	for i, row := range r.Rows() {
		if row.Name == n {
			return i
		}
	}
	t.Fatal("no row", n)
	return 0
}

// TestFaults: all faults of a table are told at once, with the keys that were perhaps meant.
func TestFaults(t *testing.T) {
	_, err := limits.New(map[string]any{"memory_nod": int64(1), "deals_peer": "many", "yield": int64(60), "rpc_body": "2GiB"}, inFile)
	for _, text := range []string{"limits.memory_nod is not a key", `limits.deals_peer: "many" is not a number`, "limits.yield: 60 has no unit", "limits.rpc_body is 2GiB"} {
		require.ErrorContains(t, err, text)
	}
}

// TestHit: a refusal has the code of the limit and its value, and is counted.
func TestHit(t *testing.T) {
	r, err := limits.New(map[string]any{"deals_peer": int64(3), "memory_node": "512MiB"}, inFile)
	require.NoError(t, err)
	r.Use(limits.DealsPeer, func() int64 { return 2 })
	err = r.Hit(limits.DealsPeer)
	require.ErrorIs(t, err, reason.PeerLimit)
	require.ErrorContains(t, err, "deals_peer is 3")
	row := r.Rows()[index(t, r, limits.DealsPeer)]
	require.EqualValues(t, 1, row.Hits)
	require.EqualValues(t, 2, row.InUse)
	require.EqualValues(t, 512<<20, r.Value(limits.MemoryNode))
	require.Equal(t, "512MiB", limits.Bytes.Format(r.Value(limits.MemoryNode)))
}

// inFile is where the values of the tests stand.
func inFile(limits.Name) string { return "config.toml" }
