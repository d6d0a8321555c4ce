package multistore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/ipld/merkledag"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	format "github.com/ipfs/go-ipld-format"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
)

func newStore(bs blockstore.Blockstore) *Store {
	service := blockservice.New(bs, nil)
	return &Store{Bstore: bs, DAG: merkledag.NewDAGService(service), Loader: loader(bs), Storer: storer(bs), service: service}
}

// Close ends the use of DAG; the blocks stay.
func (s *Store) Close() error { return s.service.Close() }

func linkCid(l datamodel.Link) (cid.Cid, error) {
	cl, ok := l.(cidlink.Link)
	if !ok {
		return cid.Undef, fmt.Errorf("link of type %T has no CID", l)
	}
	return cl.Cid, nil
}

func loader(bs blockstore.Blockstore) linking.BlockReadOpener {
	return func(lc linking.LinkContext, l datamodel.Link) (io.Reader, error) {
		c, err := linkCid(l)
		if err != nil {
			return nil, err
		}
		b, err := bs.Get(lc.Ctx, c)
		if err != nil {
			return nil, err
		}
		return bytes.NewReader(b.RawData()), nil
	}
}

func storer(bs blockstore.Blockstore) linking.BlockWriteOpener {
	return func(lc linking.LinkContext) (io.Writer, linking.BlockWriteCommitter, error) {
		var data bytes.Buffer
		return &data, func(l datamodel.Link) error {
			c, err := linkCid(l)
			if err != nil {
				return err
			}
			b, err := blocks.NewBlockWithCid(data.Bytes(), c)
			if err != nil {
				return err
			}
			return bs.Put(lc.Ctx, b)
		}, nil
	}
}

// MultiReadBlockstore reads from all stores that there are at the time of a call; the one with the lowest id that has a block answers. It takes nothing.
func (m *MultiStore) MultiReadBlockstore() blockstore.Blockstore { return reader{m} }

type reader struct{ m *MultiStore }

var _ blockstore.Blockstore = reader{}

var errReadOnly = errors.New("operation not supported: choose a store and write there")

// first finds the store that has a block; one that fails hides the others only when none has it.
func (r reader) first(ctx context.Context, c cid.Cid) (*Store, error) {
	var errs []error
	for _, id := range r.m.List() {
		s, err := r.m.Get(id)
		if err == nil {
			var has bool
			if has, err = s.Bstore.Has(ctx, c); has {
				return s, nil
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("store %d: %w", id, err))
		}
	}
	return nil, errors.Join(errs...)
}

// Has implements blockstore.Blockstore.
func (r reader) Has(ctx context.Context, c cid.Cid) (bool, error) {
	s, err := r.first(ctx, c)
	return s != nil, err
}

func (r reader) holder(ctx context.Context, c cid.Cid) (*Store, error) {
	s, err := r.first(ctx, c)
	if s == nil && err == nil {
		err = format.ErrNotFound{Cid: c}
	}
	return s, err
}

// Get implements blockstore.Blockstore.
func (r reader) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	s, err := r.holder(ctx, c)
	if err != nil {
		return nil, err
	}
	return s.Bstore.Get(ctx, c)
}

// GetSize implements blockstore.Blockstore.
func (r reader) GetSize(ctx context.Context, c cid.Cid) (int, error) {
	s, err := r.holder(ctx, c)
	if err != nil {
		return 0, err
	}
	return s.Bstore.GetSize(ctx, c)
}

// AllKeysChan implements blockstore.Blockstore; a block that is in several stores comes several times.
func (r reader) AllKeysChan(ctx context.Context) (<-chan cid.Cid, error) {
	out := make(chan cid.Cid)
	ids := r.m.List()
	go func() {
		defer close(out)
		for _, id := range ids {
			s, err := r.m.Get(id)
			if err != nil {
				return
			}
			keys, err := s.Bstore.AllKeysChan(ctx)
			if err != nil {
				return
			}
			for c := range keys {
				select {
				case out <- c:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return out, nil
}

// Put implements blockstore.Blockstore: it is refused.
func (reader) Put(context.Context, blocks.Block) error { return errReadOnly }

// PutMany implements blockstore.Blockstore: it is refused.
func (reader) PutMany(context.Context, []blocks.Block) error { return errReadOnly }

// DeleteBlock implements blockstore.Blockstore: it is refused.
func (reader) DeleteBlock(context.Context, cid.Cid) error { return errReadOnly }
