package dagstore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"
)

// jobKey is what work is for: making a shard readable, or opening its bytes.
type jobKey struct {
	number uint64
	open   bool
}

// job is work that is done once for all who wait for it. It has a context of its own, which ends when the last of them has left,
// unless the store itself wants it (R-D4).
type job struct {
	done    chan struct{}
	err     error
	cancel  context.CancelFunc
	waiting int
	keepRunning    bool
	abandoned    bool // everybody has gone
}

// startJob returns the job of a key, a new one if there is none, or nil when the store closes. mu is held.
func (s *Store) startJob(key jobKey, f func(context.Context) error) *job {
	if j := s.jobs[key]; j != nil {
		return j
	}
	ctx, cancel := context.WithCancel(s.ctx)
	j := &job{done: make(chan struct{}), cancel: cancel}
	ok := s.group.Go(func() {
		defer cancel()
		err := f(ctx)
		s.mu.Lock()
		j.err = err
		delete(s.jobs, key)
		s.mu.Unlock()
		close(j.done)
	})
	if !ok {
		cancel()
		return nil
	}
	s.jobs[key] = j
	return j
}

// shareJob waits for the work of a key, which it begins if nobody did.
func (s *Store) shareJob(ctx context.Context, key jobKey, f func(context.Context) error) error {
	for {
		s.mu.Lock()
		j := s.startJob(key, f)
		if j == nil {
			s.mu.Unlock()
			return ErrClosed
		}
		j.waiting++
		s.mu.Unlock()
		select {
		case <-j.done:
			if j.abandoned && j.err != nil && ctx.Err() == nil && s.ctx.Err() == nil {
				continue // of those who had left before: it begins anew
			}
			return j.err
		case <-ctx.Done():
		}
		s.mu.Lock()
		if j.waiting--; j.waiting == 0 && !j.keepRunning {
			j.abandoned = true
			j.cancel()
		}
		s.mu.Unlock()
		return ctx.Err()
	}
}

// startIndexing starts the initialisation of a shard that goes on whoever waits, and does not wait itself.
func (s *Store) startIndexing(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j := s.startJob(jobKey{number: n}, func(ctx context.Context) error { return s.indexShard(ctx, n) }); j != nil {
		j.keepRunning = true
	}
}

// awaitIndexing waits for the initialisation of a shard.
func (s *Store) awaitIndexing(ctx context.Context, n uint64) error {
	return s.shareJob(ctx, jobKey{number: n}, func(ctx context.Context) error { return s.indexShard(ctx, n) })
}

// waitForSlot waits for a place among those who read pieces for their index (R-D14).
func (s *Store) waitForSlot(ctx context.Context) (release func(), err error) {
	s.count.queued.Add(1)
	defer s.count.queued.Add(-1)
	select {
	case s.indexSlots <- struct{}{}:
		s.count.running.Add(1)
		return func() { s.count.running.Add(-1); <-s.indexSlots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// indexShard reads the bytes of a shard and makes its rows. What failed is remembered as the shard's state, and nowhere else: the next
// one tries again (R-D3). What was cancelled is as if it had not begun.
func (s *Store) indexShard(ctx context.Context, n uint64) error {
	before, sh, err := s.claimShard(n)
	if errors.Is(err, ErrShardUnknown) { // numbered only, when the process ended, or destroyed meanwhile
		return errors.Join(err, s.clearNumber(n))
	}
	if err != nil || before.State == StateAvailable {
		return err
	}
	release, err := s.waitForSlot(ctx)
	if err != nil {
		return s.restoreState(before, err)
	}
	defer release()
	fresh := sh
	if err = s.readPiece(ctx, &fresh, nil); err == nil {
		fresh.State, fresh.Error, fresh.Attempts, fresh.IndexedAt = StateAvailable, "", 0, time.Now()
		return s.storeOutcome(OpMakeAvailable, fresh)
	}
	if ctx.Err() != nil {
		return s.restoreState(before, ctx.Err())
	}
	countFailure(&s.count.inits, err)
	if sh.State == StateRecovering {
		sh.Attempts++
	}
	sh.State, sh.Error = StateErrored, clipText(err.Error())
	return errors.Join(fmt.Errorf("%w: %s: %w", ErrShardInit, sh.Piece, err), s.storeOutcome(OpFail, sh))
}

// claimShard notes that a shard is being read: before is what it was.
func (s *Store) claimShard(n uint64) (before, sh Shard, err error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	if before, err = s.cat.shardOf(n); err != nil || before.State == StateAvailable {
		return before, before, err
	}
	op := OpInitialize
	sh = before
	sh.State = StateInitializing
	if before.State == StateErrored || before.State == StateRecovering {
		sh.State, op = StateRecovering, OpRecover
	}
	if sh.State != before.State {
		err = s.cat.putShard(sh)
	}
	s.tellState(op, sh)
	return before, sh, err
}

// storeOutcome stores the outcome of an initialisation, unless the shard is gone or another has taken its place.
func (s *Store) storeOutcome(op string, sh Shard) error {
	s.changing.Lock()
	if n, err := s.cat.numberOf(sh.Piece); err != nil || n != sh.Number {
		s.changing.Unlock()
		return errors.Join(fmt.Errorf("%w: %s", ErrShardUnknown, sh.Piece), s.clearNumber(sh.Number))
	}
	defer s.changing.Unlock()
	if err := s.cat.putShard(sh); err != nil {
		return err
	}
	s.tellState(op, sh)
	return nil
}

// restoreState puts a shard back whose initialisation nobody wants any more. When the store closes it stays as it is: the next start goes on.
func (s *Store) restoreState(before Shard, cause error) error {
	if s.ctx.Err() != nil {
		return ErrClosed
	}
	op := OpInitialize
	switch before.State {
	case StateInitializing:
		before.State = StateNew
	case StateErrored:
		op = OpRecover
	case StateRecovering:
		before.State, op = StateErrored, OpRecover
	}
	return errors.Join(cause, s.storeOutcome(op, before))
}

// clearNumber removes what a number has: rows, copies, and the file of its own.
func (s *Store) clearNumber(n uint64) error {
	if err := errors.Join(s.index.Remove(context.WithoutCancel(s.ctx), n), s.transients.drop(n), s.cfg.FS.RemoveAll(s.ownPath(n))); err != nil {
		return err // the note that there is something to clear away stays
	}
	return s.cat.clearWork(n)
}

// ownPath is the file of a number that is the store's own.
func (s *Store) ownPath(n uint64) string { return filepath.Join(s.cfg.Pieces, ownName(n)) }

// ownName is how a record calls it: a home that is moved takes its pieces with it.
func ownName(n uint64) string { return strconv.FormatUint(n, 10) + ".car" }

// clipText keeps an error's text within what a record may hold.
func clipText(s string) string { return s[:min(len(s), 4096)] }
