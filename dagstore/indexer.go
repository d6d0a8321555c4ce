package dagstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/dagstore/index"
)

// indexer reads the bytes of shards and makes their rows.
type indexer struct {
	life  *lifetime
	cat   catalogue
	index *index.Embedded
	files *pieceFiles
	jobs  *jobSet
	subs  *subscribers
	count *counters

	indexSlots chan struct{} // of Config.MaxConcurrentIndex
	changing   sync.Mutex    // held while the catalogue changes who a piece's shard is
}

// startIndexing starts the initialisation of a shard that goes on whoever waits, and does not wait itself.
func (x *indexer) startIndexing(n uint64) {
	x.jobs.keepJob(jobKey{number: n}, func(ctx context.Context) error { return x.indexShard(ctx, n) })
}

// awaitIndexing waits for the initialisation of a shard.
func (x *indexer) awaitIndexing(ctx context.Context, n uint64) error {
	return x.jobs.shareJob(ctx, jobKey{number: n}, func(ctx context.Context) error { return x.indexShard(ctx, n) })
}

// waitForSlot waits for a place among those who read pieces for their index (R-D14).
func (x *indexer) waitForSlot(ctx context.Context) (release func(), err error) {
	x.count.queued.Add(1)
	defer x.count.queued.Add(-1)
	select {
	case x.indexSlots <- struct{}{}:
		x.count.running.Add(1)
		return func() { x.count.running.Add(-1); <-x.indexSlots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// indexShard reads the bytes of a shard and makes its rows. What failed is remembered as the shard's state, and nowhere else: the next
// one tries again (R-D3). What was cancelled is as if it had not begun.
func (x *indexer) indexShard(ctx context.Context, n uint64) error {
	before, sh, err := x.claimShard(n)
	if errors.Is(err, ErrShardUnknown) { // numbered only, when the process ended, or destroyed meanwhile
		return errors.Join(err, x.clearNumber(n))
	}
	if err != nil || before.State == StateAvailable {
		return err
	}
	release, err := x.waitForSlot(ctx)
	if err != nil {
		return x.restoreState(before, err)
	}
	defer release()
	fresh := sh
	if err = x.readPiece(ctx, &fresh, nil); err == nil {
		fresh.State, fresh.Error, fresh.Attempts, fresh.IndexedAt = StateAvailable, "", 0, time.Now()
		return x.storeOutcome(OpMakeAvailable, fresh)
	}
	if ctx.Err() != nil {
		return x.restoreState(before, ctx.Err())
	}
	countFailure(&x.count.inits, err)
	if sh.State == StateRecovering {
		sh.Attempts++
	}
	sh.State, sh.Error = StateErrored, clipText(err.Error())
	return errors.Join(fmt.Errorf("%w: %s: %w", ErrShardInit, sh.Piece, err), x.storeOutcome(OpFail, sh))
}

// claimShard notes that a shard is being read: before is what it was.
func (x *indexer) claimShard(n uint64) (before, sh Shard, err error) {
	x.changing.Lock()
	defer x.changing.Unlock()
	if before, err = x.cat.shardOf(n); err != nil || before.State == StateAvailable {
		return before, before, err
	}
	op := OpInitialize
	sh = before
	sh.State = StateInitializing
	if before.State == StateErrored || before.State == StateRecovering {
		sh.State, op = StateRecovering, OpRecover
	}
	if sh.State != before.State {
		err = x.cat.putShard(sh)
	}
	x.subs.tellState(op, sh)
	return before, sh, err
}

// storeOutcome stores the outcome of an initialisation, unless the shard is gone or another has taken its place.
func (x *indexer) storeOutcome(op string, sh Shard) error {
	x.changing.Lock()
	if n, err := x.cat.numberOf(sh.Piece); err != nil || n != sh.Number {
		x.changing.Unlock()
		return errors.Join(fmt.Errorf("%w: %s", ErrShardUnknown, sh.Piece), x.clearNumber(sh.Number))
	}
	defer x.changing.Unlock()
	if err := x.cat.putShard(sh); err != nil {
		return err
	}
	x.subs.tellState(op, sh)
	return nil
}

// restoreState puts a shard back whose initialisation nobody wants any more. When the store closes it stays as it is: the next start goes on.
func (x *indexer) restoreState(before Shard, cause error) error {
	if x.life.ctx.Err() != nil {
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
	return errors.Join(cause, x.storeOutcome(op, before))
}

// clearNumber removes what a number has: rows, copies, and the file of its own.
func (x *indexer) clearNumber(n uint64) error {
	if err := errors.Join(x.index.Remove(context.WithoutCancel(x.life.ctx), n), x.files.transients.drop(n), x.files.cfg.FS.RemoveAll(x.files.ownPath(n))); err != nil {
		return err // the note that there is something to clear away stays
	}
	return x.cat.clearWork(n)
}

// clipText keeps an error's text within what a record may hold.
func clipText(s string) string { return s[:min(len(s), 4096)] }

// findMissing notes which blocks below its roots a shard lacks, whose rows are there. Only a CAR that links something it does not hold is walked.
func (x *indexer) findMissing(ctx context.Context, f Reader, sh *Shard, closure *carstore.Closure) error {
	dangling, err := closure.Missing(func(hash mh.Multihash) (bool, error) {
		row, err := x.rowOfPiece(ctx, sh.Number, hash)
		return row != nil, err
	})
	if err != nil {
		return err
	}
	sh.Checked, sh.Missing, sh.Lacks = true, 0, nil
	if len(dangling) == 0 {
		return nil
	}
	sh.Lacks, sh.Missing, err = carstore.MissingBelow(sh.Roots(), func(c cid.Cid) ([]byte, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if data, ok := carstore.Inlined(c); ok {
			return data, nil
		}
		row, err := x.rowOfPiece(ctx, sh.Number, c.Hash())
		if err != nil {
			return nil, err
		}
		if row == nil {
			return nil, carstore.ErrNotFound
		}
		if c.Prefix().Codec == cid.Raw {
			return nil, nil // it is there, and links nothing
		}
		return carstore.ReadSection(f, int64(sh.Offset+row.Offset), int64(row.Section()), c)
	})
	return err
}

// rowOfPiece finds a multihash in one piece; nil if it is not there.
func (x *indexer) rowOfPiece(ctx context.Context, number uint64, hash mh.Multihash) (*index.Row, error) {
	rows, err := x.index.Find(ctx, hash)
	for i := range rows {
		if rows[i].Piece == number {
			return &rows[i], nil
		}
	}
	return nil, err
}
