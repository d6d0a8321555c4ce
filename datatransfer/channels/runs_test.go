package channels_test

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/channels"
)

// queue counts blocks from one index to another, of 10 bytes each.
func queue(t *testing.T, c *channels.Channel, from, to int64) {
	t.Helper()
	for i := from; i <= to; i++ {
		_, total, err := c.Block(dt.DataQueued, dt.DataQueuedProgress, 10, i, true)
		require.NoError(t, err)
		require.EqualValues(t, 10*i, total)
	}
}

// TestRuns: while nobody listens to each block, many are told of together: exact counts, states in order, nothing of another kind is
// late or missing, and the last block is told soon.
func TestRuns(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		each := atomic.Bool{}
		f.set.Coarse(func() bool { return !each.Load() })
		c := f.create(1)
		require.NoError(t, c.Apply(dt.Accept))
		queue(t, c, 1, 5000)
		require.NoError(t, c.Apply(dt.PauseResponder))
		queue(t, c, 5001, 6000)
		require.NoError(t, c.Apply(dt.ResumeResponder))
		synctest.Wait()
		notes := f.seen()
		require.Less(t, len(notes), 60)
		last := note{}
		var order []dt.EventCode
		for _, n := range notes {
			require.GreaterOrEqual(t, n.queued, last.queued, "states never go back")
			if n.event != dt.DataQueued && n.event != dt.DataQueuedProgress {
				order = append(order, n.event)
			}
			switch n.event {
			case dt.PauseResponder:
				require.EqualValues(t, 50_000, n.queued, "the state right after it")
			case dt.ResumeResponder:
				require.EqualValues(t, 60_000, n.queued)
			}
			last = n
		}
		require.Equal(t, []dt.EventCode{dt.Open, dt.Accept, dt.PauseResponder, dt.ResumeResponder}, order)

		queue(t, c, 6001, 6001)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		notes = f.seen()
		require.Equal(t, note{dt.DataQueued, dt.Ongoing, 60_010}, notes[len(notes)-1], "without anything behind it")

		each.Store(true)
		before := len(notes)
		queue(t, c, 6002, 6011)
		synctest.Wait()
		require.Len(t, f.seen(), before+20, "somebody listens to each")
	})
}

// TestRunsAreStored: what was told of together is stored as often as blocks that are told one by one, and whole: no stored count has the
// bytes of a block without its index.
func TestRunsAreStored(t *testing.T) {
	ds := &watchedStore{Batching: dssync.MutexWrap(datastore.NewMapDatastore())}
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, ds)
		f.set.Coarse(func() bool { return true })
		c := f.create(1)
		require.NoError(t, c.Apply(dt.Accept))
		rng := rand.New(rand.NewPCG(1, 2))
		for i := int64(1); i <= 3000; i++ {
			queue(t, c, i, i)
			if rng.IntN(20) == 0 {
				time.Sleep(time.Duration(rng.IntN(1000)) * time.Microsecond)
			}
			if rng.IntN(500) == 0 {
				synctest.Wait()
				again := newFixture(t, ds)
				stored, err := again.set.Get(t.Context(), c.ID())
				require.NoError(t, err)
				s := stored.State()
				require.EqualValues(t, 10*s.QueuedCidsTotal(), s.Queued())
				again.close()
			}
		}
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		require.Greater(t, int(ds.commits.Load()), 20)
		f.close()
		later := newFixture(t, ds)
		stored, err := later.set.Get(t.Context(), c.ID())
		require.NoError(t, err)
		require.EqualValues(t, 30_000, stored.State().Queued())
		later.close()
	})
}

// watchedStore counts commits.
type watchedStore struct {
	datastore.Batching
	commits atomic.Int64
}

func (w *watchedStore) Batch(ctx context.Context) (datastore.Batch, error) {
	w.commits.Add(1)
	return w.Batching.Batch(ctx)
}
