package dagstore

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	mh "github.com/multiformats/go-multihash"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/internal/blob"
)

// Accessor reads the blocks of one shard until it is closed; closing it twice is harmless.
type Accessor struct {
	store *Store
	shard Shard
	file  blob.File
	once  sync.Once
}

// Acquire gives read access to a shard. Readers of one shard share one open file.
func (s *Store) Acquire(_ context.Context, piece cid.Cid) (*Accessor, error) {
	sh, err := s.Info(piece)
	if err != nil {
		return nil, err
	}
	if sh.State != StateAvailable && sh.State != StateServing {
		return nil, fmt.Errorf("shard %s is %s: %s", piece, sh.State, sh.Error)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.open[sh.Number]
	if r == nil {
		f, err := s.fs.Open(sh.Path)
		if err != nil {
			return nil, fmt.Errorf("open piece %s: %w", piece, err)
		}
		size, err := f.Size()
		if err != nil || uint64(size) < sh.Offset+sh.CarSize {
			_ = f.Close()
			return nil, fmt.Errorf("piece %s: %s has %d bytes, it had at least %d when it was registered (%v)", piece, sh.Path, size, sh.Offset+sh.CarSize, err)
		}
		r = &reader{file: f}
		s.open[sh.Number] = r
	}
	r.refs++
	return &Accessor{store: s, shard: sh, file: r.file}, nil
}

// Close gives the access back.
func (a *Accessor) Close() (err error) {
	a.once.Do(func() {
		a.store.mu.Lock()
		defer a.store.mu.Unlock()
		r := a.store.open[a.shard.Number]
		if r == nil {
			return
		}
		if r.refs--; r.refs == 0 {
			delete(a.store.open, a.shard.Number)
			err = r.file.Close()
		}
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

// Get reads a block and checks its hash before it leaves (R-B4). Identity CIDs carry their own bytes.
func (a *Accessor) Get(c cid.Cid) ([]byte, error) {
	if dec, err := mh.Decode(c.Hash()); err == nil && dec.Code == mh.IDENTITY {
		return dec.Digest, nil
	}
	rows, err := a.store.Find(c.Hash())
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		if r.Shard == a.shard.Number {
			return carstore.ReadSection(a.file, int64(a.shard.Offset+r.Offset), int64(r.Size), c)
		}
	}
	return nil, fmt.Errorf("%w: %s is not in piece %s", ErrNotFound, c, a.shard.Piece)
}

// LinkSystem reads the blocks of the shard.
func (a *Accessor) LinkSystem() ipld.LinkSystem { return carstore.Links(a.Get) }

// ReadAll reads the whole CARv1 of the piece.
func (a *Accessor) ReadAll() io.Reader {
	return io.NewSectionReader(a.file, int64(a.shard.Offset), int64(a.shard.CarSize))
}

// Shard is what is being read.
func (a *Accessor) Shard() Shard { return a.shard }
