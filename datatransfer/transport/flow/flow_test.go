package flow_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/datatransfer/transport/flow"
)

func TestDecide(t *testing.T) {
	at := func(position, limit, highWater uint64) flow.Facts {
		return flow.Facts{HighWater: highWater, Limited: true, Open: position < limit}
	}
	held, paused, plain := at(0, 100, 0), at(0, 100, 0), flow.Facts{}
	held.HeldByUs, paused.HeldByPeer = true, true
	for _, tc := range []struct {
		name     string
		facts    flow.Facts
		next     uint64
		withheld bool
		want     flow.Verdict
	}{
		{"below the limit", at(99, 100, 5), 6, false, flow.Send},
		{"at the limit", at(100, 100, 5), 6, false, flow.AwaitPayment},
		{"lost, whatever is owed", at(500, 100, 5), 5, false, flow.Send},
		{"claimed and never handed out, not paid", at(100, 100, 5), 3, true, flow.AwaitPayment},
		{"claimed and never handed out, paid", at(99, 100, 5), 3, true, flow.Send},
		{"held by this side", held, 1, false, flow.AwaitHold},
		{"paused by the other side", paused, 1, false, flow.AwaitHold},
		{"without a limit", plain, 1, false, flow.AsTold},
	} {
		require.Equal(t, tc.want, flow.Decide(tc.facts, tc.next, tc.withheld), tc.name)
	}
}

// TestNothingStaysPaused: whatever the facts, raising the limit above the position or ending the holds lets the next block go, and a limit
// that grows never stops one.
func TestNothingStaysPaused(t *testing.T) {
	for position := range uint64(4) {
		for limit := range uint64(5) {
			for highWater := range uint64(4) {
				for next := uint64(1); next < 5; next++ {
					for _, withheld := range []bool{false, true} {
						f := flow.Facts{HighWater: highWater, Limited: true, Open: position < limit}
						before := flow.Decide(f, next, withheld)
						f.Open = position < limit+1
						if before == flow.Send {
							require.Equal(t, flow.Send, flow.Decide(f, next, withheld))
						}
						f.Open = true
						require.Equal(t, flow.Send, flow.Decide(f, next, withheld))
						f.HeldByPeer = true
						require.Equal(t, flow.AwaitHold, flow.Decide(f, next, withheld))
					}
				}
			}
		}
	}
}
