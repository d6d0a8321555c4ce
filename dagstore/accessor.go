package dagstore

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/dagstore/index"
)

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
			return s.accessShard(ctx, sh)
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

// accessShard gives read access to a shard that can be read.
func (s *Store) accessShard(ctx context.Context, sh Shard) (*Accessor, error) {
	r, err := s.acquireReader(ctx, sh)
	if err != nil {
		return nil, err
	}
	return &Accessor{store: s, r: r}, nil
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
