package lifecycle_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/lifecycle"
)

// TestRetryPauses: the pauses double up to the longest, and the last error is the outcome.
func TestRetryPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, at := time.Now(), []time.Duration{}
		away := errors.New("away")
		err := lifecycle.Retry(t.Context(), lifecycle.Backoff{Min: time.Second, Max: 4 * time.Second}, func() (bool, error) {
			at = append(at, time.Since(began))
			return len(at) < 5, away
		})
		require.ErrorIs(t, err, away)
		require.Equal(t, []time.Duration{0, 1 * time.Second, 3 * time.Second, 7 * time.Second, 11 * time.Second}, at)
	})
}

// TestRetryEndsWithContext: a pause ends with the context, and the error is that of the attempt.
func TestRetryEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		n, away := 0, errors.New("away")
		err := lifecycle.Retry(ctx, lifecycle.Backoff{Min: time.Second, Max: time.Minute}, func() (bool, error) {
			n++
			return true, away
		})
		require.Equal(t, 2, n)
		require.Equal(t, away, err)
	})
}

// TestEvery: once a period, not before the first, and not after the end.
func TestEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
		defer cancel()
		n := 0
		lifecycle.Every(ctx, time.Second, func() { n++ })
		require.Equal(t, 3, n)
	})
}

// TestGroupStops: a stopped group takes nothing more, and Close waits for what runs.
func TestGroupStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g lifecycle.Group
		ended := false
		require.True(t, g.Enter())
		require.True(t, g.Go(func() {
			time.Sleep(time.Second)
			ended = true
		}))
		g.Stop()
		require.True(t, g.Closed())
		require.False(t, g.Enter())
		require.False(t, g.Go(func() { t.Error("it ran") }))
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		require.ErrorIs(t, g.Close(ctx), context.DeadlineExceeded, "a call has not left")
		g.Leave()
		require.NoError(t, g.Close(t.Context()))
		require.True(t, ended)
	})
}

// TestGroup: Close waits for what runs, lets nothing more begin, and gives up when its context ends.
func TestGroup(t *testing.T) {
	var g lifecycle.Group
	release := make(chan struct{})
	var ran atomic.Int32
	for range 10 {
		require.True(t, g.Go(func() {
			<-release
			ran.Add(1)
		}))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, g.Close(ctx), context.Canceled)
	require.True(t, g.Closed())
	require.False(t, g.Go(func() { ran.Add(100) }))
	close(release)
	require.NoError(t, g.Close(t.Context()))
	require.EqualValues(t, 10, ran.Load())
}
