package dagstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// reader is the one open file of a shard, as the shard was when it was opened. It is closed some time after its last user; one that was
// detached, because the shard is served from elsewhere now, at once.
type reader struct {
	file     Reader
	slots    chan struct{} // of readsAtOnce
	shard    Shard
	refs     int
	timer    *time.Timer
	detached bool
}

// readsAtOnce is how many blocks of one shard are read and checked at once: a crowd of readers takes turns, so that its memory does not
// grow with it.
const readsAtOnce = 16

func (r *reader) close() error {
	if r.timer != nil {
		r.timer.Stop()
	}
	return r.file.Close()
}

// readerPool keeps the files of shards open that are read, and for some time those that were.
type readerPool struct {
	cfg   Config
	cat   catalogue
	files *pieceFiles
	jobs  *jobSet
	subs  *subscribers
	count *counters

	mu      sync.Mutex
	readers map[uint64]*reader
	failed  map[uint64]time.Time // when shards could not be opened or read, by number
}

// acquireReader takes a reference to the open file of a shard, which it opens if it has to.
func (rp *readerPool) acquireReader(ctx context.Context, sh Shard) (*reader, error) {
	for {
		rp.mu.Lock()
		if r := rp.readers[sh.Number]; r != nil {
			r.refs++
			if r.timer != nil {
				r.timer.Stop()
				r.timer = nil
			}
			rp.mu.Unlock()
			rp.subs.tellReading(OpAcquire, sh.Piece, StateServing)
			return r, nil
		}
		rp.mu.Unlock()
		if err := rp.jobs.shareJob(ctx, jobKey{sh.Number, true}, func(ctx context.Context) error { return rp.openShard(ctx, sh.Number) }); err != nil {
			return nil, err
		}
	}
}

// unclaimedLimit is how long an opened file waits for who asked for it.
const unclaimedLimit = time.Second

// openShard opens the file of a shard, unless the one before has done so in the meantime. It runs once at a time for a shard.
func (rp *readerPool) openShard(ctx context.Context, n uint64) error {
	rp.mu.Lock()
	there := rp.readers[n] != nil
	rp.mu.Unlock()
	if there {
		return nil
	}
	sh, err := rp.cat.shardOf(n)
	if err != nil {
		return err
	}
	f, err := rp.files.openMount(ctx, &sh)
	if err != nil {
		err = fmt.Errorf("open piece %s: %w", sh.Piece, err)
	} else if err = checkLength(f, &sh); err != nil {
		err = errors.Join(err, f.Close())
	}
	if ctx.Err() == nil {
		countFailure(&rp.count.opens, err)
		rp.noteOutcome(n, err)
	}
	if err != nil {
		return err
	}
	rp.mu.Lock()
	defer rp.mu.Unlock()
	r := &reader{file: f, shard: sh, slots: make(chan struct{}, readsAtOnce)}
	rp.readers[n] = r
	rp.closeAfter(n, r, max(unclaimedLimit, rp.cfg.ReaderIdle))
	return rp.closeSpare()
}

// closeSpare closes idle files above the bound. mu is held.
func (rp *readerPool) closeSpare() (err error) {
	idle := 0
	for _, r := range rp.readers {
		if r.refs == 0 {
			idle++
		}
	}
	for n, r := range rp.readers {
		if idle <= rp.cfg.OpenReaders {
			break
		}
		if r.refs == 0 {
			delete(rp.readers, n)
			err = errors.Join(err, r.close())
			idle--
		}
	}
	return err
}

// detachReader lets go of the open file of a shard that is served from elsewhere from now on; who reads it goes on reading it.
func (rp *readerPool) detachReader(n uint64) {
	rp.mu.Lock()
	defer rp.mu.Unlock()
	r := rp.readers[n]
	if r == nil {
		return
	}
	delete(rp.readers, n)
	r.detached = true
	if r.refs == 0 {
		_ = r.close()
	}
}

// closeAfter closes a file after some time without users. mu is held.
func (rp *readerPool) closeAfter(n uint64, r *reader, after time.Duration) {
	r.timer = time.AfterFunc(after, func() {
		rp.mu.Lock()
		defer rp.mu.Unlock()
		if rp.readers[n] == r && r.refs == 0 {
			delete(rp.readers, n)
			_ = r.file.Close()
		}
	})
}

// releaseReader takes a reference from an open file, and returns how many are left.
func (rp *readerPool) releaseReader(r *reader) (left int, err error) {
	n := r.shard.Number
	rp.mu.Lock()
	defer rp.mu.Unlock()
	if r.refs--; r.refs > 0 || rp.readers[n] != r && !r.detached {
		return r.refs, nil // others read it, or the store was closed
	}
	switch {
	case r.detached:
		err = r.close()
	case rp.cfg.ReaderIdle > 0:
		rp.closeAfter(n, r, rp.cfg.ReaderIdle)
		err = rp.closeSpare()
	default:
		delete(rp.readers, n)
		err = r.close()
	}
	return 0, err
}

// Readers is the number of open accessors of a shard.
func (rp *readerPool) Readers(number uint64) int {
	rp.mu.Lock()
	defer rp.mu.Unlock()
	if r := rp.readers[number]; r != nil {
		return r.refs
	}
	return 0
}

// closeUnread refuses a shard that somebody reads, and closes its file otherwise. changing is held.
func (rp *readerPool) closeUnread(n uint64) error {
	rp.mu.Lock()
	defer rp.mu.Unlock()
	r := rp.readers[n]
	if r == nil {
		return nil
	}
	if r.refs > 0 {
		return fmt.Errorf("%w: failed to destroy shard; active references: %d", ErrShardInUse, r.refs)
	}
	delete(rp.readers, n)
	return r.close()
}

// closeReaders closes all files.
func (rp *readerPool) closeReaders() (err error) {
	rp.mu.Lock()
	defer rp.mu.Unlock()
	for n, r := range rp.readers {
		err = errors.Join(err, r.close())
		delete(rp.readers, n)
	}
	return err
}

// openCount is how many files are open.
func (rp *readerPool) openCount() int {
	rp.mu.Lock()
	defer rp.mu.Unlock()
	return len(rp.readers)
}

// sortByCost puts first what costs least to read.
func (rp *readerPool) sortByCost(list []Shard) {
	rp.mu.Lock()
	defer rp.mu.Unlock()
	slices.SortStableFunc(list, func(a, b Shard) int { return cmp.Compare(rp.readCost(&a), rp.readCost(&b)) })
}

// failureWorth is how long a shard that could not be opened or read comes after the others.
const failureWorth = 10 * time.Minute

// readCost ranks what reading a shard costs. mu is held.
func (rp *readerPool) readCost(sh *Shard) int {
	c := 2
	switch {
	case sh.State == StateServing:
		c = 0
	case sh.Mount == "":
		c = 1
	}
	switch {
	case sh.Whole():
	case sh.Checked: // it lacks something: others first
		c += 12
	default:
		c += 6
	}
	if at, ok := rp.failed[sh.Number]; ok && time.Since(at) < failureWorth {
		c += 24
	}
	return c
}

// noteOutcome notes whether a shard could be opened or read.
func (rp *readerPool) noteOutcome(n uint64, err error) {
	rp.mu.Lock()
	defer rp.mu.Unlock()
	if err == nil {
		delete(rp.failed, n)
	} else {
		rp.failed[n] = time.Now()
	}
}
