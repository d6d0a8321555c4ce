package dagstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipldformat "github.com/ipfs/go-ipld-format"
)

// ErrReadOnly is what writing to a piece answers.
var ErrReadOnly = errors.New("not implemented: pieces are read only")

// Set is access to several shards at once, as one store of blocks: each is read from whichever piece has it (R-N12). It is safe for
// concurrent use.
type Set struct{ list []*Accessor }

var _ blockstore.Blockstore = (*Set)(nil)

// AcquireSet gives read access to several shards, or to none.
func (s *Store) AcquireSet(ctx context.Context, pieces ...cid.Cid) (*Set, error) {
	set := &Set{}
	for _, p := range pieces {
		a, err := s.Acquire(ctx, p)
		if err != nil {
			return nil, errors.Join(err, set.Close())
		}
		set.list = append(set.list, a)
	}
	return set, nil
}

// Blockstore is the shard as a store of blocks. It ends with the accessor.
func (a *Accessor) Blockstore() *Set { return &Set{[]*Accessor{a}} }

// Close gives all access back.
func (s *Set) Close() error {
	var errs []error
	for _, a := range s.list {
		errs = append(errs, a.Close())
	}
	return errors.Join(errs...)
}

// Get implements blockstore.Blockstore. A block that one piece cannot give is tried in the next.
func (s *Set) Get(_ context.Context, c cid.Cid) (blocks.Block, error) {
	var errs []error
	for _, a := range s.list {
		data, err := a.Get(c)
		if err == nil {
			return blocks.NewBlockWithCid(data, c)
		}
		if !errors.Is(err, ErrNotFound) {
			errs = append(errs, fmt.Errorf("piece %s: %w", a.r.shard.Piece, err))
		}
	}
	if len(errs) == 0 {
		return nil, ipldformat.ErrNotFound{Cid: c}
	}
	return nil, errors.Join(errs...)
}

// GetSize implements blockstore.Blockstore, out of the index.
func (s *Set) GetSize(_ context.Context, c cid.Cid) (int, error) {
	for _, a := range s.list {
		n, err := a.Size(c)
		if !errors.Is(err, ErrNotFound) {
			return n, err
		}
	}
	return 0, ipldformat.ErrNotFound{Cid: c}
}

// Has implements blockstore.Blockstore, out of the index.
func (s *Set) Has(ctx context.Context, c cid.Cid) (bool, error) {
	_, err := s.GetSize(ctx, c)
	if ipldformat.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// AllKeysChan implements blockstore.Blockstore: the keys as raw CIDs, in the order of multihashes, those of several pieces several times.
func (s *Set) AllKeysChan(ctx context.Context) (<-chan cid.Cid, error) {
	out := make(chan cid.Cid)
	if len(s.list) == 0 {
		close(out)
		return out, nil
	}
	ok := s.list[0].store.group.Go(func() {
		defer close(out)
		for _, a := range s.list {
			for r, err := range a.store.index.Iterate(ctx, a.r.shard.Number, nil) {
				if err != nil {
					return
				}
				select {
				case out <- cid.NewCidV1(cid.Raw, r.Multihash):
				case <-ctx.Done():
					return
				case <-a.store.ctx.Done():
					return
				}
			}
		}
	})
	if !ok {
		return nil, ErrClosed
	}
	return out, nil
}

// Put implements blockstore.Blockstore.
func (s *Set) Put(context.Context, blocks.Block) error { return ErrReadOnly }

// PutMany implements blockstore.Blockstore.
func (s *Set) PutMany(context.Context, []blocks.Block) error { return ErrReadOnly }

// DeleteBlock implements blockstore.Blockstore.
func (s *Set) DeleteBlock(context.Context, cid.Cid) error { return ErrReadOnly }
