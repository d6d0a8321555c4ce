package sim_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/sim"
)

// oneDeal is a plan of one client that buys one payload, with faults that come whatever the order of goroutines.
func oneDeal(d sim.DealPlan, faults ...sim.FaultPlan) sim.Plan {
	d.Budget = 1
	return sim.Plan{Seed: 1, Latency: 2 * time.Millisecond, Epoch: 2 * time.Second, Stream: true, Ahead: true, Clients: []sim.ClientPlan{{Stream: true, Ahead: true}},
		Ask: sim.AskPlan{Price: 2, Interval: 1 << 14}, Deals: []sim.DealPlan{d}, Faults: faults}
}

// findsNothing runs a plan, in which everything has to end well.
func findsNothing(t *testing.T, plan sim.Plan) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := sim.Run(context.Background(), plan)
		require.Empty(t, r.Findings, "%s%s", plan, strings.Join(r.Trace, "\n"))
		require.Equal(t, len(plan.Deals), r.Completed)
	})
}

// TestLastVoucherOfProviderAway: a client that has everything signs the last voucher while its provider is away, and delivers the file without its word.
// The voucher reaches the provider when it is back, also from the next process of the client.
func TestLastVoucherOfProviderAway(t *testing.T) {
	provider := sim.FaultPlan{Kind: sim.Crash, Who: -1, At: 500 * time.Millisecond, For: 5 * time.Minute} // the payment channel is there after two epochs
	client := sim.FaultPlan{Kind: sim.Restart, Who: 0, At: 2 * time.Minute, For: time.Second}
	deal := sim.DealPlan{Range: true, Shape: sim.Shape{Leaves: 20, Size: 1000, Seed: 7}}
	t.Run("the same process", func(t *testing.T) { findsNothing(t, oneDeal(deal, provider)) })
	t.Run("the next process", func(t *testing.T) { findsNothing(t, oneDeal(deal, provider, client)) })
}

// TestPowerLossBehindLastBlock: a client that loses power when everything has come and is signed, and before its provider has said that it is done, has the
// file: what came is synced before its transfer is stored as finished, which the sync of the voucher makes durable.
func TestPowerLossBehindLastBlock(t *testing.T) {
	for seed := range uint64(12) { // each loses another part
		for _, at := range []time.Duration{6500 * time.Millisecond, 6900 * time.Millisecond} { // between the last voucher and its answer
			plan := oneDeal(sim.DealPlan{Range: true, Shape: sim.Shape{Leaves: 20, Size: 1000, Seed: 7}}, sim.FaultPlan{Kind: sim.Crash, Who: 0, At: at, For: time.Second})
			plan.Seed, plan.Latency, plan.Stream, plan.Clients[0] = seed, 500*time.Millisecond, false, sim.ClientPlan{}
			findsNothing(t, plan)
		}
	}
}

// TestClaimAtRestart: a client that has claimed blocks at a restart keeps them over a loss of power. The provider, which has forgotten that it sent them,
// withholds what was claimed until it is paid, and both waited for each other. A crash of each side at its time is drawn by these seeds.
func TestClaimAtRestart(t *testing.T) {
	for _, seed := range []uint64{53253, 54209} {
		synctest.Test(t, func(t *testing.T) {
			plan := sim.NewPlan(seed)
			require.Empty(t, sim.Run(context.Background(), plan).Findings, "%s", plan)
		})
	}
}
