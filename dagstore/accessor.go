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

// reader is the one open file of a piece. It is closed some time after its last user.
type reader struct {
	file  Reader
	refs  int
	timer *time.Timer
}

func (r *reader) close() error {
	if r.timer != nil {
		r.timer.Stop()
	}
	return r.file.Close()
}

// Accessor reads the blocks of one shard until it is closed; closing it twice is harmless. It is safe for concurrent use.
type Accessor struct {
	store *Store
	shard Shard
	file  Reader
	once  sync.Once
}

// Acquire gives read access to a shard. One that was not read yet is read first, and a failed one is recovered, once for all who wait;
// who leaves does not disturb the others. Readers of one shard share one open file.
func (s *Store) Acquire(ctx context.Context, piece cid.Cid) (*Accessor, error) {
	for {
		sh, err := s.Info(piece)
		if err != nil {
			return nil, err
		}
		switch sh.State {
		case StateAvailable, StateServing:
			return s.take(ctx, sh)
		case StateErrored:
			if int64(sh.Attempts) >= int64(s.cfg.RecoverAttempts) {
				return nil, fmt.Errorf("shard %s is %s: %s", piece, sh.State, sh.Error)
			}
		}
		if err := s.await(ctx, sh.Number); err != nil {
			return nil, err
		}
	}
}

// take takes a reference to the open file of a shard, which it opens if it has to.
func (s *Store) take(ctx context.Context, sh Shard) (*Accessor, error) {
	for {
		s.mu.Lock()
		if r := s.open[sh.Number]; r != nil {
			r.refs++
			if r.timer != nil {
				r.timer.Stop()
				r.timer = nil
			}
			s.mu.Unlock()
			return &Accessor{store: s, shard: sh, file: r.file}, nil
		}
		s.mu.Unlock()
		if err := s.share(ctx, jobKey{sh.Number, true}, func(ctx context.Context) error { return s.openShard(ctx, sh) }); err != nil {
			return nil, err
		}
	}
}

// unclaimed is how long an opened file waits for who asked for it.
const unclaimed = time.Second

// openShard opens the file of a shard, unless the one before has done so in the meantime. It runs once at a time for a shard.
func (s *Store) openShard(ctx context.Context, sh Shard) error {
	s.mu.Lock()
	there := s.open[sh.Number] != nil
	s.mu.Unlock()
	if there {
		return nil
	}
	f, err := s.openMount(ctx, &sh)
	if err != nil {
		return fmt.Errorf("open piece %s: %w", sh.Piece, err)
	}
	size, err := f.Size()
	if err != nil || uint64(size) < sh.Offset+sh.CarSize {
		return errors.Join(fmt.Errorf("piece %s: %s has %d bytes, it had at least %d when it was registered (%w)", sh.Piece, sh.Where(), size, sh.Offset+sh.CarSize, errors.Join(io.ErrUnexpectedEOF, err)), f.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &reader{file: f}
	s.open[sh.Number] = r
	s.idle(sh.Number, r, max(unclaimed, s.cfg.ReaderIdle))
	return nil
}

// idle closes a file after some time without users. mu is held.
func (s *Store) idle(n uint64, r *reader, after time.Duration) {
	r.timer = time.AfterFunc(after, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.open[n] == r && r.refs == 0 {
			delete(s.open, n)
			_ = r.file.Close()
		}
	})
}

// Close gives the access back.
func (a *Accessor) Close() (err error) {
	a.once.Do(func() {
		s, n := a.store, a.shard.Number
		s.mu.Lock()
		defer s.mu.Unlock()
		r := s.open[n]
		if r == nil || r.file != a.file {
			return // the store was closed
		}
		if r.refs--; r.refs > 0 {
			return
		}
		if s.cfg.ReaderIdle > 0 {
			s.idle(n, r, s.cfg.ReaderIdle)
			return
		}
		delete(s.open, n)
		err = r.close()
	})
	return err
}

// Readers is the number of open accessors of a shard.
func (s *Store) Readers(number uint64) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.open[number]; r != nil {
		return r.refs
	}
	return 0
}

// row finds a block of the shard; of an identity CID it returns the bytes.
func (a *Accessor) row(c cid.Cid) (index.Row, []byte, error) {
	if dec, err := mh.Decode(c.Hash()); err == nil && dec.Code == mh.IDENTITY {
		return index.Row{}, dec.Digest, nil
	}
	rows, err := a.store.rows.Find(a.store.ctx, c.Hash())
	if err != nil {
		return index.Row{}, nil, err
	}
	for _, r := range rows {
		if r.Piece == a.shard.Number {
			return r, nil, nil
		}
	}
	return index.Row{}, nil, fmt.Errorf("%w: %s is not in piece %s", ErrNotFound, c, a.shard.Piece)
}

// Get reads a block and checks its hash before it leaves (R-B4). Identity CIDs carry their own bytes.
func (a *Accessor) Get(c cid.Cid) ([]byte, error) { return a.GetInto(nil, c) }

// GetInto is Get into a buffer of the caller: the block lies in it if it has room for the block and its section head (64 bytes are
// enough for that with usual CIDs), which saves memory that would be made and thrown away for each block.
func (a *Accessor) GetInto(buf []byte, c cid.Cid) ([]byte, error) {
	r, data, err := a.row(c)
	if err != nil || data != nil || r.Piece == 0 {
		return data, err
	}
	return carstore.ReadSectionInto(buf, a.file, int64(a.shard.Offset+r.Offset), int64(r.Section()), c)
}

// Size is the size of a block, out of the index.
func (a *Accessor) Size(c cid.Cid) (int, error) {
	r, data, err := a.row(c)
	if err != nil || r.Piece == 0 {
		return len(data), err
	}
	return int(r.Size), nil
}

// LinkSystem reads the blocks of the shard.
func (a *Accessor) LinkSystem() ipld.LinkSystem { return carstore.Links(a.Get) }

// ReadAll reads the whole CARv1 of the piece.
func (a *Accessor) ReadAll() io.Reader {
	return io.NewSectionReader(a.file, int64(a.shard.Offset), int64(a.shard.CarSize))
}

// Shard is what is being read.
func (a *Accessor) Shard() Shard { return a.shard }
