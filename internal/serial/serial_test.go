package serial_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/serial"
)

// TestQueueKeepsOrder: items are served one at a time in their order, those that serving adds too, and Flush waits for all.
func TestQueueKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g lifecycle.Group
		var got []int
		busy := false
		var q *serial.Queue[int]
		q = serial.New(&g, func(n int) {
			require.False(t, busy)
			busy = true
			time.Sleep(time.Second)
			busy = false
			if got = append(got, n); n == 2 {
				require.True(t, q.Put(100))
			}
		})
		require.NoError(t, q.Flush(t.Context()), "an idle queue")
		for n := range 4 {
			require.True(t, q.Put(n))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, q.Flush(ctx), context.DeadlineExceeded)
		require.NoError(t, q.Flush(t.Context()))
		require.Equal(t, []int{0, 1, 2, 3, 100}, got)
		require.NoError(t, g.Close(t.Context()))
		require.False(t, q.Put(5), "the group is closed")
	})
}

// TestQueueReplaces: what waits and is out of date can give its place to what is new; what is being served cannot.
func TestQueueReplaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g lifecycle.Group
		var got []int
		q := serial.New(&g, func(n int) {
			time.Sleep(time.Second)
			got = append(got, n)
		})
		for n := range 5 {
			synctest.Wait()
			q.PutWith(func(waiting []int) []int { return append(waiting[:0], n) })
		}
		require.NoError(t, g.Close(t.Context()))
		require.Equal(t, []int{0, 4}, got)
	})
}

// TestKeyed: queues of different keys do not wait for each other, each keeps its order and its bound.
func TestKeyed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g lifecycle.Group
		var mu sync.Mutex
		got := map[string][]int{}
		q := serial.NewKeyed(&g, 2, func(key string, n int) {
			time.Sleep(time.Second)
			mu.Lock()
			defer mu.Unlock()
			got[key] = append(got[key], n)
		})
		began := time.Now()
		for n := range 2 {
			require.True(t, q.Put("a", n))
			require.True(t, q.Put("b", 10+n))
		}
		require.False(t, q.Put("a", 9), "two wait")
		synctest.Wait() // one of them is being served
		require.True(t, q.Put("a", 2))
		require.NoError(t, g.Close(t.Context()))
		require.Equal(t, map[string][]int{"a": {0, 1, 2}, "b": {10, 11}}, got)
		require.Equal(t, 3*time.Second, time.Since(began))
		require.False(t, q.Put("c", 1), "the group is closed")
	})
}
