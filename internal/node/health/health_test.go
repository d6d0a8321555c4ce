package health

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestSince: a state is told with the time at which it began, however often it was looked at since.
func TestSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bad atomic.Bool
		m := NewMonitor([]Check{{ID: "part", Look: func(context.Context) Result {
			if bad.Load() {
				return Result{State: Bad, Text: "broken"}
			}
			return Result{Text: "fine"}
		}}}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { m.Keep(ctx); close(ended) }()
		time.Sleep(time.Minute + time.Second)
		bad.Store(true)
		time.Sleep(10 * time.Minute)
		r := m.Look(ctx, false, "part")
		require.Len(t, r, 1)
		require.Equal(t, Bad, r[0].State)
		require.Equal(t, 9*time.Minute+31*time.Second, time.Since(r[0].Since))
		require.Equal(t, Bad, Worst(r))
		cancel()
		<-ended
	})
}

// TestPatience: a quick look that hangs ends; a deep one takes the time that it needs.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wait := func(ctx context.Context) Result {
			select {
			case <-ctx.Done():
				return Result{State: Unknown, Text: ctx.Err().Error()}
			case <-time.After(time.Minute):
				return Result{}
			}
		}
		m := NewMonitor([]Check{{ID: "slow", Look: wait, Deep: wait}, {ID: "other", Look: func(context.Context) Result { return Result{} }}}, nil)
		begun := time.Now()
		require.Equal(t, []State{Unknown, OK}, statesOf(m.Look(t.Context(), false)))
		require.Equal(t, patience, time.Since(begun))
		require.Equal(t, []State{OK}, statesOf(m.Look(t.Context(), true, "slow")))
		require.Empty(t, m.Look(t.Context(), false, "none"))
		require.Equal(t, []string{"slow", "other"}, m.Names())
	})
}

func statesOf(results []Result) (out []State) {
	for _, r := range results {
		out = append(out, r.State)
	}
	return out
}

// TestTally: what is older than a day counts no more.
func TestTally(t *testing.T) {
	var tally Tally
	start := time.Unix(1_800_000_000, 0)
	for h := range 30 {
		tally.Add(start.Add(time.Duration(h)*time.Hour), Counts{Well: 1, Theirs: 2})
	}
	end := start.Add(29 * time.Hour)
	require.Equal(t, Counts{Well: 24, Theirs: 48}, tally.Last(end, 24))
	require.Equal(t, Counts{Well: 1, Theirs: 2}, tally.Last(end, 1))
	require.Equal(t, 3, tally.Last(end, 1).Total())
	require.Zero(t, tally.Last(end.Add(48*time.Hour), 24))
}
