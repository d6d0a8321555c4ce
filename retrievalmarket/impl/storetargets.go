package retrievalimpl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipld/go-ipld-prime"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/multistore"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/shared"
)

// BlockstoreAccessor supplies the blockstore of a deal. Get is called again after a restart of the process and answers the same
// store; Done is called once, when the deal has ended.
type BlockstoreAccessor interface {
	Get(rm.DealID, cid.Cid) (blockstore.Blockstore, error)
	Done(rm.DealID) error
}

// storeTargets receives deals into blockstores that others may use too.
type storeTargets struct {
	multi    *multistore.MultiStore
	accessor BlockstoreAccessor
	ds       datastore.Batching // what each store held when its deal began
}

// Open implements Targets; a deal without any store of its own receives into the transport's.
func (t *storeTargets) Open(ctx context.Context, d rm.ClientDealState) (Target, error) {
	var bs blockstore.Blockstore
	switch {
	case d.StoreID != nil:
		s, err := t.multi.Get(*d.StoreID)
		if err != nil {
			return nil, err
		}
		bs = s.Bstore
	case t.accessor != nil:
		var err error
		if bs, err = t.accessor.Get(d.ID, d.PayloadCID); err != nil {
			return nil, err
		}
	default:
		return nil, nil
	}
	sel, err := d.SelectorNode()
	if err != nil {
		return nil, err
	}
	s := &storeTarget{ctx: context.WithoutCancel(ctx), bs: bs, root: d.PayloadCID, counted: map[string]struct{}{}}
	at, err := carstore.LocateIn(s.root, sel, func(c cid.Cid) ([]byte, error) {
		data, err := s.get(c)
		if err == nil {
			s.counted[string(c.Hash())] = struct{}{}
		}
		return data, err
	})
	if err != nil {
		return nil, fmt.Errorf("store of deal %s: %w", d.ID, err)
	}
	s.held = at.Bytes
	s.base, err = t.base(ctx, d.ID, at.Bytes)
	return s, err
}

// base remembers what the store held when a deal began: it is not paid for again, and what the deal brings is.
func (t *storeTargets) base(ctx context.Context, id rm.DealID, now uint64) (uint64, error) {
	key := datastore.NewKey(id.String())
	data, err := t.ds.Get(ctx, key)
	if err == nil {
		n, size := binary.Uvarint(data)
		if size != len(data) {
			return 0, fmt.Errorf("what the store of deal %s held is stored as %x, which is not a number", id, data)
		}
		return n, nil
	}
	if !errors.Is(err, datastore.ErrNotFound) {
		return 0, err
	}
	if err := t.ds.Put(ctx, key, binary.AppendUvarint(nil, now)); err != nil {
		return 0, err
	}
	return now, t.ds.Sync(ctx, key)
}

// Done implements Targets.
func (t *storeTargets) Done(d rm.ClientDealState) {
	ctx, cancel := shared.Lifetime()
	defer cancel()
	err := t.ds.Delete(ctx, datastore.NewKey(d.ID.String()))
	if t.accessor != nil && d.StoreID == nil {
		err = errors.Join(err, t.accessor.Done(d.ID))
	}
	if err != nil {
		slog.Warn("give back the store of a deal", "deal", d.ID, "error", err)
	}
}

// storeTarget is the blockstore of one deal.
type storeTarget struct {
	ctx  context.Context
	bs   blockstore.Blockstore
	root cid.Cid
	base uint64

	mu      sync.Mutex
	held    uint64
	counted map[string]struct{} // the blocks in held, by multihash
}

// Base implements Target.
func (s *storeTarget) Base() uint64 { return s.base }

// Bytes implements Target.
func (s *storeTarget) Bytes() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

func (s *storeTarget) get(c cid.Cid) ([]byte, error) {
	return carstore.InBlockstore(s.ctx, s.bs)(c)
}

// Locate implements Target.
func (s *storeTarget) Locate(sel ipld.Node) (carstore.Position, error) {
	return carstore.LocateIn(s.root, sel, s.get)
}

// LinkSystem implements Target.
func (s *storeTarget) LinkSystem() ipld.LinkSystem {
	return carstore.Writing(carstore.Links(s.get), s.put)
}

// put counts what arrives once for this deal. A block that others put there before was sent all the same, and is due.
func (s *storeTarget) put(c cid.Cid, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, again := s.counted[string(c.Hash())]; again {
		return nil
	}
	b, err := blocks.NewBlockWithCid(data, c)
	if err != nil {
		return err
	}
	if err := s.bs.Put(s.ctx, b); err != nil {
		return err
	}
	s.counted[string(c.Hash())] = struct{}{}
	s.held += uint64(len(data))
	return nil
}
