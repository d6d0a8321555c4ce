package dagstore_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/dagstore"
)

// told drains what a listener was told so far: operations with the state after them.
func told(events <-chan dagstore.Event) (out []string) {
	for {
		select {
		case e := <-events:
			out = append(out, e.Op+" "+e.State.String())
		default:
			return out
		}
	}
}

// TestEventsOfAShard: each operation on a shard is told, with the state after it, in order: from its registration, at once or
// later, to its end.
func TestEventsOfAShard(t *testing.T) {
	w := newWorld(t)
	events, stop := w.Subscribe(100, nil)
	defer stop()
	car := filepath.Join(w.dir, "a.car")
	cids, _ := writeCAR(t, car, 1, 5)
	sh, err := w.Register(t.Context(), dagstore.Source{Path: car})
	require.NoError(t, err)
	require.Equal(t, []string{"OpShardRegister ShardStateNew", "OpShardInitialize ShardStateInitializing", "OpShardMakeAvailable ShardStateAvailable"}, told(events))

	a, err := w.Acquire(t.Context(), sh.Piece)
	require.NoError(t, err)
	b, err := w.Acquire(t.Context(), sh.Piece)
	require.NoError(t, err)
	_, err = a.Get(cids[0])
	require.NoError(t, err)
	require.NoError(t, a.Close())
	require.NoError(t, a.Close())
	require.NoError(t, b.Close())
	require.Equal(t, []string{"OpShardAcquire ShardStateServing", "OpShardAcquire ShardStateServing", "OpShardRelease ShardStateServing", "OpShardRelease ShardStateAvailable"}, told(events))
	again, err := w.Register(t.Context(), dagstore.Source{Path: car})
	require.NoError(t, err)
	require.Equal(t, sh.Number, again.Number)
	require.Empty(t, told(events), "nothing happened to the shard")
	require.NoError(t, w.Destroy(t.Context(), sh.Piece))
	require.Equal(t, []string{"OpShardDestroy ShardStateUnknown"}, told(events))

	o, piece, _ := w.origin("lazy", 2, false)
	w.lazy("lazy", piece)
	o.before = func(context.Context, int64) error { return errOrigin }
	_, err = w.Acquire(t.Context(), piece)
	require.Error(t, err)
	require.Equal(t, []string{"OpShardRegister ShardStateNew", "OpShardInitialize ShardStateInitializing", "OpShardFail ShardStateErrored"}, told(events))
	o.before = nil
	a, err = w.Acquire(t.Context(), piece)
	require.NoError(t, err)
	require.NoError(t, a.Close())
	require.Equal(t, []string{"OpShardRecover ShardStateRecovering", "OpShardMakeAvailable ShardStateAvailable", "OpShardAcquire ShardStateServing", "OpShardRelease ShardStateAvailable"}, told(events))
}

// TestEventsOfWhatWasGivenUp: an initialisation that nobody wants any more is told as what it was, with the state that the shard has again.
func TestEventsOfWhatWasGivenUp(t *testing.T) {
	w := newWorld(t)
	o, piece, _ := w.origin("a", 1, false)
	w.lazy("a", piece)
	events, stop := w.Subscribe(100, nil)
	defer stop()
	ctx, cancel := context.WithCancel(t.Context())
	o.before = func(ctx context.Context, _ int64) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}
	_, err := w.Acquire(ctx, piece)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, "OpShardInitialize", (<-events).Op)
	e := <-events
	require.Equal(t, "OpShardInitialize", e.Op)
	require.Equal(t, dagstore.StateNew, e.State)
}
