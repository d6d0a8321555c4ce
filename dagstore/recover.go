package dagstore

import (
	"context"
	"errors"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/internal/reason"
)

// Initialize reads a shard that was registered only, and waits for it. Any other state is refused.
func (s *Store) Initialize(ctx context.Context, piece cid.Cid) error {
	return s.indexInState(ctx, piece, "initialize", StateNew)
}

// Recover reads a failed shard again, and waits for it. Any other state is refused.
func (s *Store) Recover(ctx context.Context, piece cid.Cid) error {
	return s.indexInState(ctx, piece, "recover", StateErrored)
}

func (s *Store) indexInState(ctx context.Context, piece cid.Cid, verb string, state State) error {
	sh, err := s.Info(piece)
	if err != nil {
		return err
	}
	if sh.State != state {
		return reason.Usage.Errorf("cannot %s piece %s, which is %s: only one that is %s can be", verb, piece, sh.State.Word(), state.Word())
	}
	return s.awaitIndexing(ctx, sh.Number)
}

// InitializeAnyway is Initialize that goes on when who asked for it has left.
func (s *Store) InitializeAnyway(ctx context.Context, piece cid.Cid) error {
	sh, err := s.Info(piece)
	if err == nil && sh.State == StateNew {
		s.startIndexing(sh.Number)
		return s.awaitIndexing(ctx, sh.Number)
	}
	return errors.Join(err, s.Initialize(ctx, piece))
}

// Destroy forgets a shard: its record, its rows, its copy, and its file if that is the store's own. One that is being read stays. It
// returns when nothing is left; what cannot be cleared away before ctx ends is cleared at the next start.
func (s *Store) Destroy(ctx context.Context, piece cid.Cid) error {
	leave, err := s.enter()
	if err != nil {
		return err
	}
	defer leave()
	s.changing.Lock()
	sh, err := s.formerShard(piece)
	if err == nil {
		err = s.closeUnread(sh.Number)
	}
	if err == nil {
		// The record first: without it nothing of the rest is found, and the number is noted as one to clear away.
		err = s.cat.removeLater(sh)
	}
	s.changing.Unlock()
	if err != nil {
		return err
	}
	sh.State, sh.Error = StateUnknown, ""
	s.subscribers.tellState(OpDestroy, sh)
	if sh.Owned && sh.Path != "" {
		err = s.cfg.FS.RemoveAll(s.filePath(&sh))
	}
	return errors.Join(err, s.clearAfterJobs(ctx, sh.Number))
}

// clearAfterJobs ends the work on a number that no shard has any more, and removes what it has.
func (s *Store) clearAfterJobs(ctx context.Context, n uint64) error {
	for _, key := range []jobKey{{n, false}, {n, true}} {
		if err := s.jobs.endJob(ctx, key); err != nil {
			return err // the note stays: a start clears it away
		}
	}
	s.detachReader(n)
	return s.clearNumber(n)
}

// Collected is the outcome of a collection for one shard.
type Collected struct {
	Piece cid.Cid
	Error error
}

// Collect removes the copies of pieces that nobody reads. It writes nothing else, and nothing at all when there are none (R-D10).
func (s *Store) Collect(ctx context.Context) (out []Collected, err error) {
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	for _, n := range s.transients.idle() {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		sh, err := s.cat.shardOf(n)
		if err != nil && !errors.Is(err, ErrShardUnknown) {
			return out, err
		}
		out = append(out, Collected{sh.Piece, s.transients.drop(n)})
	}
	return out, nil
}
