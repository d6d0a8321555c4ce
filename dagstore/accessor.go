package dagstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	mh "github.com/multiformats/go-multihash"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/dagstore/index"
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

// Accessor reads the blocks of one shard until it is closed; closing it twice is harmless. It is safe for concurrent use.
type Accessor struct {
	store *Store
	r     *reader
	once  sync.Once
}

// Acquire gives read access to a shard. One that was not read yet is read first, and a failed one is recovered, once for all who wait;
// who leaves does not disturb the others. Readers of one shard share one open file.
func (s *Store) Acquire(ctx context.Context, piece cid.Cid) (*Accessor, error) {
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	for {
		sh, err := s.Info(piece)
		if err != nil {
			return nil, err
		}
		switch sh.State {
		case StateAvailable, StateServing:
			return s.acquireReader(ctx, sh)
		case StateErrored:
			if int64(sh.Attempts) >= int64(s.cfg.RecoverAttempts) {
				return nil, fmt.Errorf("piece %s has %s: %s", piece, sh.State.Word(), sh.Error)
			}
		}
		if err := s.awaitIndexing(ctx, sh.Number); err != nil {
			return nil, err
		}
	}
}

// acquireReader takes a reference to the open file of a shard, which it opens if it has to.
func (s *Store) acquireReader(ctx context.Context, sh Shard) (*Accessor, error) {
	for {
		s.mu.Lock()
		if r := s.readers[sh.Number]; r != nil {
			r.refs++
			if r.timer != nil {
				r.timer.Stop()
				r.timer = nil
			}
			s.mu.Unlock()
			s.tellReading(OpAcquire, sh.Piece, StateServing)
			return &Accessor{store: s, r: r}, nil
		}
		s.mu.Unlock()
		if err := s.shareJob(ctx, jobKey{sh.Number, true}, func(ctx context.Context) error { return s.openShard(ctx, sh.Number) }); err != nil {
			return nil, err
		}
	}
}

// unclaimedLimit is how long an opened file waits for who asked for it.
const unclaimedLimit = time.Second

// openShard opens the file of a shard, unless the one before has done so in the meantime. It runs once at a time for a shard.
func (s *Store) openShard(ctx context.Context, n uint64) error {
	s.mu.Lock()
	there := s.readers[n] != nil
	s.mu.Unlock()
	if there {
		return nil
	}
	sh, err := s.cat.shardOf(n)
	if err != nil {
		return err
	}
	f, err := s.openMount(ctx, &sh)
	if err != nil {
		err = fmt.Errorf("open piece %s: %w", sh.Piece, err)
	} else if err = checkLength(f, &sh); err != nil {
		err = errors.Join(err, f.Close())
	}
	if ctx.Err() == nil {
		countFailure(&s.count.opens, err)
		s.noteOutcome(n, err)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &reader{file: f, shard: sh, slots: make(chan struct{}, readsAtOnce)}
	s.readers[n] = r
	s.closeAfter(n, r, max(unclaimedLimit, s.cfg.ReaderIdle))
	return s.closeSpare()
}

// closeSpare closes idle files above the bound. mu is held.
func (s *Store) closeSpare() (err error) {
	idle := 0
	for _, r := range s.readers {
		if r.refs == 0 {
			idle++
		}
	}
	for n, r := range s.readers {
		if idle <= s.cfg.OpenReaders {
			break
		}
		if r.refs == 0 {
			delete(s.readers, n)
			err = errors.Join(err, r.close())
			idle--
		}
	}
	return err
}

// detachReader lets go of the open file of a shard that is served from elsewhere from now on; who reads it goes on reading it.
func (s *Store) detachReader(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.readers[n]
	if r == nil {
		return
	}
	delete(s.readers, n)
	r.detached = true
	if r.refs == 0 {
		_ = r.close()
	}
}

// closeAfter closes a file after some time without users. mu is held.
func (s *Store) closeAfter(n uint64, r *reader, after time.Duration) {
	r.timer = time.AfterFunc(after, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.readers[n] == r && r.refs == 0 {
			delete(s.readers, n)
			_ = r.file.Close()
		}
	})
}

// Close gives the access back.
func (a *Accessor) Close() (err error) {
	a.once.Do(func() {
		var left int
		left, err = a.store.releaseReader(a.r)
		state := StateAvailable
		if left > 0 {
			state = StateServing
		}
		a.store.tellReading(OpRelease, a.r.shard.Piece, state)
	})
	return err
}

// releaseReader takes a reference from an open file, and returns how many are left.
func (s *Store) releaseReader(r *reader) (left int, err error) {
	n := r.shard.Number
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.refs--; r.refs > 0 || s.readers[n] != r && !r.detached {
		return r.refs, nil // others read it, or the store was closed
	}
	switch {
	case r.detached:
		err = r.close()
	case s.cfg.ReaderIdle > 0:
		s.closeAfter(n, r, s.cfg.ReaderIdle)
		err = s.closeSpare()
	default:
		delete(s.readers, n)
		err = r.close()
	}
	return 0, err
}

// Readers is the number of open accessors of a shard.
func (s *Store) Readers(number uint64) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.readers[number]; r != nil {
		return r.refs
	}
	return 0
}

// findRow finds a block of the shard; of an identity CID it returns the bytes.
func (a *Accessor) findRow(c cid.Cid) (index.Row, []byte, error) {
	if data, ok := carstore.Inlined(c); ok {
		return index.Row{}, data, nil
	}
	leave, err := a.store.enter()
	if err != nil {
		return index.Row{}, nil, err
	}
	defer leave()
	row, err := a.store.rowOfPiece(a.store.ctx, a.r.shard.Number, c.Hash())
	if err != nil {
		return index.Row{}, nil, err
	}
	a.store.count.countLookup(row != nil)
	if row != nil {
		return *row, nil, nil
	}
	return index.Row{}, nil, fmt.Errorf("%w: %s is not in piece %s", ErrNotFound, c, a.r.shard.Piece)
}

// rowOfPiece finds a multihash in one piece; nil if it is not there.
func (s *Store) rowOfPiece(ctx context.Context, number uint64, hash mh.Multihash) (*index.Row, error) {
	rows, err := s.index.Find(ctx, hash)
	for i := range rows {
		if rows[i].Piece == number {
			return &rows[i], nil
		}
	}
	return nil, err
}

// Get reads a block and checks its hash before it leaves (R-B4). Identity CIDs carry their own bytes.
func (a *Accessor) Get(c cid.Cid) ([]byte, error) { return a.GetInto(nil, c) }

// GetInto is Get into a buffer of the caller: the block lies in it if it has room for the block and its section head (64 bytes are
// enough for that with usual CIDs), which saves memory that would be made and thrown away for each block.
func (a *Accessor) GetInto(buf []byte, c cid.Cid) ([]byte, error) {
	r, data, err := a.findRow(c)
	if err != nil || data != nil || r.Piece == 0 {
		return data, err
	}
	return a.readRow(buf, c, r.Record)
}

// readRow reads the section of a row.
func (a *Accessor) readRow(buf []byte, c cid.Cid, r index.Record) ([]byte, error) {
	a.r.slots <- struct{}{}
	defer func() { <-a.r.slots }()
	data, err := carstore.ReadSectionInto(buf, a.r.file, int64(a.r.shard.Offset+r.Offset), int64(r.Section()), c)
	if err != nil {
		a.store.count.blocks.Add(1)
		a.store.noteOutcome(a.r.shard.Number, err)
		a.store.flagDamage(a.r.shard.Number, c, err)
	}
	return data, err
}

// Size is the size of a block, out of the index.
func (a *Accessor) Size(c cid.Cid) (int, error) {
	r, data, err := a.findRow(c)
	if err != nil || r.Piece == 0 {
		return len(data), err
	}
	return int(r.Size), nil
}

// LinkSystem reads the blocks of the shard.
func (a *Accessor) LinkSystem() ipld.LinkSystem { return carstore.Links(a.Get) }

// ReadAll reads the whole CARv1 of the piece.
func (a *Accessor) ReadAll() io.Reader {
	return io.NewSectionReader(a.r.file, int64(a.r.shard.Offset), int64(a.r.shard.CarSize))
}

// Shard is what is being read.
func (a *Accessor) Shard() Shard { return a.r.shard }
