package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	ipldformat "github.com/ipfs/go-ipld-format"
	"github.com/ipld/go-ipld-prime"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/shared"
)

// sharedAtOnce is how many bytes of blocks go into the shared store in one batch.
const sharedAtOnce = 8 << 20

// sharedStore is the blockstore that retrievals into "store" share (node spec 2.6). Blocks are kept once, whatever payloads they are of, and
// none is ever removed. It is opened when it is first used.
type sharedStore struct {
	open func() (datastore.Batching, error)

	mu sync.Mutex
	ds datastore.Batching
}

func (s *sharedStore) blocks() (blockstore.Blockstore, error) {
	ds, err := s.store()
	if err != nil {
		return nil, err
	}
	return blockstore.NewBlockstore(ds, blockstore.NoPrefix(), blockstore.WriteThrough(true)), nil
}

func (s *sharedStore) store() (datastore.Batching, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ds == nil {
		if s.open == nil {
			return nil, errors.New("this node has no shared store of blocks")
		}
		ds, err := s.open()
		if err != nil {
			return nil, fmt.Errorf("shared store of blocks: %w", err)
		}
		s.ds = ds
	}
	return s.ds, nil
}

// take puts the blocks of a CAR into the store, each checked, and returns when they are durable. Done again it changes nothing.
func (s *sharedStore) take(ctx context.Context, c *carstore.Store) error {
	bs, err := s.blocks()
	if err != nil {
		return err
	}
	car := c.Payload()
	l, err := carstore.Inspect(car, car.Size())
	if err != nil {
		return err
	}
	if err := carstore.Batches(car, l, sharedAtOnce, func(list []blocks.Block) error { return putNew(ctx, bs, list) }); err != nil {
		return fmt.Errorf("put blocks into the shared store: %w", err)
	}
	ds, err := s.store()
	if err != nil {
		return err
	}
	return ds.Sync(ctx, datastore.NewKey("/"))
}

// putNew puts the blocks that are not there, or are there with other bytes.
func putNew(ctx context.Context, bs blockstore.Blockstore, list []blocks.Block) error {
	fresh := list[:0]
	for _, b := range list {
		there, err := bs.Get(ctx, b.Cid())
		if err != nil && !ipldformat.IsNotFound(err) {
			return err
		}
		if err != nil || !bytes.Equal(there.RawData(), b.RawData()) {
			fresh = append(fresh, b)
		}
	}
	return bs.PutMany(ctx, fresh)
}

// get reads a block and checks its hash.
func (s *sharedStore) get(ctx context.Context) carstore.Getter {
	return func(c cid.Cid) ([]byte, error) {
		bs, err := s.blocks()
		if err != nil {
			return nil, err
		}
		data, err := carstore.InBlockstore(ctx, bs)(c)
		if errors.Is(err, carstore.ErrBadHash) { // as if it were not there: it is retrieved again
			err = fmt.Errorf("%w: %w", carstore.ErrNotFound, err)
		}
		return data, err
	}
}

// links reads the store.
func (s *sharedStore) links(ctx context.Context) ipld.LinkSystem { return carstore.Links(s.get(ctx)) }

func (s *sharedStore) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ds == nil {
		return nil
	}
	err := s.ds.Close()
	s.ds = nil
	return err
}

// here tells whether everything is where it is wanted, and brings it there if it is elsewhere on this node: then nothing is asked for and
// nothing is paid.
func (n *Node) here(r *run, w Want, req api.RetrieveRequest) (bool, error) {
	if req.Into != intoStore {
		return n.completeHere(r, w, req)
	}
	pos, err := carstore.LocateIn(w.Root, w.Part.Node(), n.blocks.get(n.ctx))
	if err != nil {
		return false, err
	}
	if !pos.Complete {
		here, err := n.completeHere(r, w, req)
		if err != nil || !here {
			return here, err
		}
		return true, n.share(w)
	}
	if req.Read {
		if err := n.unshare(w); err != nil {
			return false, err
		}
		return n.complete(r, w)
	}
	r.set(func(v *api.Retrieval) {
		v.CarPath = ""
		v.OK, v.Status, v.Size, v.Bytes, v.Blocks = true, "Completed", pos.Bytes, pos.Bytes, int(pos.Blocks)
	})
	return true, nil
}

// unshare makes the file of a payload again, out of the shared store.
func (n *Node) unshare(w Want) error {
	c, err := n.targets.Acquire(w.Root, w.Part.Node())
	if err != nil {
		return err
	}
	get := n.blocks.get(n.ctx)
	if !c.Final() {
		_, err = carstore.LocateIn(w.Root, w.Part.Node(), func(c2 cid.Cid) ([]byte, error) {
			data, err := get(c2)
			if err == nil {
				err = c.Put(c2, data)
			}
			return data, err
		})
	}
	return errors.Join(err, n.targets.Release(c))
}

// share puts what was retrieved of a payload into the shared store. The file stays a while, as part of the cache.
func (n *Node) share(w Want) error {
	of := w.Part.Node()
	has, err := n.targets.has(w.Root, of)
	if err != nil {
		return err
	}
	if !has { // it is in the file of the whole
		of = shared.AllSelector()
	}
	c, err := n.targets.Acquire(w.Root, of)
	if err != nil {
		return err
	}
	return errors.Join(n.blocks.take(n.ctx, c.Store), n.targets.Release(c))
}

// Destinations of a retrieval.
const (
	intoCAR   = "car"
	intoStore = "store"
)

// destination is where a retrieval goes: as the request says, or the configuration.
func (n *Node) destination(req api.RetrieveRequest) (string, error) {
	into := req.Into
	if into == "" {
		into = n.live.Load().Retrieval.Into
	}
	switch into {
	case "", intoCAR:
		return intoCAR, nil
	case intoStore:
		return intoStore, nil
	}
	return "", api.Errorf(api.CodeUsage, "Say car or store.", "%q is no place for a payload", into)
}
