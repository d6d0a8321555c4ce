package dagstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
)

// Initialize reads a shard that was registered only, and waits for it. Any other state is refused.
func (s *Store) Initialize(ctx context.Context, piece cid.Cid) error {
	return s.only(ctx, piece, "initialize", StateNew)
}

// Recover reads a failed shard again, and waits for it. Any other state is refused.
func (s *Store) Recover(ctx context.Context, piece cid.Cid) error {
	return s.only(ctx, piece, "recover", StateErrored)
}

func (s *Store) only(ctx context.Context, piece cid.Cid, verb string, state State) error {
	sh, err := s.Info(piece)
	if err != nil {
		return err
	}
	if sh.State != state {
		return fmt.Errorf("cannot %s shard; expected state %s, was: %s", verb, state, sh.State)
	}
	return s.await(ctx, sh.Number)
}

// Destroy forgets a shard: its record, its rows, its copy, and its file if that is the store's own. One that is being read stays.
func (s *Store) Destroy(_ context.Context, piece cid.Cid) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	sh, err := s.Info(piece)
	if err != nil {
		return err
	}
	s.mu.Lock()
	r, j := s.open[sh.Number], s.jobs[jobKey{number: sh.Number}]
	if r != nil && r.refs > 0 {
		s.mu.Unlock()
		return fmt.Errorf("%w: failed to destroy shard; active references: %d", ErrShardInUse, r.refs)
	}
	if r != nil {
		delete(s.open, sh.Number)
		err = r.close()
	}
	if j != nil {
		j.cancel() // who waits for it hears that the shard is not there
	}
	s.mu.Unlock()
	// The record first: without it nothing of the rest is found, and the number is noted as one to clean up.
	if err := errors.Join(err, s.cat.removeLater(sh)); err != nil {
		return err
	}
	if sh.Owned && sh.Path != "" {
		err = s.cfg.FS.RemoveAll(sh.Path)
	}
	if j == nil {
		err = errors.Join(err, s.forget(sh.Number))
	}
	sh.State, sh.Error = StateUnknown, ""
	s.tell(OpDestroy, sh)
	return err
}

// Collected is the outcome of a collection for one shard.
type Collected struct {
	Piece cid.Cid
	Error error
}

// Collect removes the copies of pieces that nobody reads. It writes nothing else, and nothing at all when there are none (R-D10).
func (s *Store) Collect(ctx context.Context) (out []Collected, err error) {
	for _, n := range s.trans.idle() {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		sh, err := s.cat.get(n)
		if err != nil && !errors.Is(err, ErrShardUnknown) {
			return out, err
		}
		out = append(out, Collected{sh.Piece, s.trans.drop(n)})
	}
	return out, nil
}
