// Package multistore keeps many isolated stores of blocks in one datastore, one for each deal.
package multistore

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
	"github.com/ipfs/go-datastore/query"
	format "github.com/ipfs/go-ipld-format"
	"github.com/ipld/go-ipld-prime/linking"

	"github.com/cartage-dev/cartage/shared"
)

// StoreID identifies one isolated store of blocks.
type StoreID uint64

// StoreIDList is the stored list of ids, as JSON.
type StoreIDList []StoreID

// Store is one store of blocks, by multihash, and what reads and writes it for programs that have nodes or links.
type Store struct {
	Bstore blockstore.Blockstore
	DAG    format.DAGService
	Loader linking.BlockReadOpener
	Storer linking.BlockWriteOpener

	service blockservice.BlockService
}

// ErrClosed is what a closed MultiStore answers.
var ErrClosed = errors.New("multistore closed")

var listKey = datastore.NewKey("/list")

// MultiStore hands out stores by id. The list of ids is under /list, the blocks of a store under /multi/<id>. It is safe for
// concurrent use.
type MultiStore struct {
	ds     datastore.Batching
	mu     sync.Mutex
	stores map[StoreID]*Store
	next   StoreID
	closed bool
}

// NewMultiDstore opens the stores in a datastore.
func NewMultiDstore(ds datastore.Batching) (*MultiStore, error) {
	m := &MultiStore{ds: ds, stores: map[StoreID]*Store{}, next: 1}
	ctx, cancel := shared.Lifetime()
	defer cancel()
	data, err := ds.Get(ctx, listKey)
	if errors.Is(err, datastore.ErrNotFound) {
		return m, nil
	}
	var ids StoreIDList
	if err == nil {
		err = json.Unmarshal(data, &ids)
	}
	if err != nil {
		return nil, fmt.Errorf("list of stores %q: %w", data, err)
	}
	for _, id := range ids {
		m.open(id)
	}
	return m, nil
}

// open makes a store known; mu is held.
func (m *MultiStore) open(id StoreID) *Store {
	s := newStore(blockstore.NewBlockstore(m.space(id), blockstore.NoPrefix()))
	m.stores[id] = s
	m.next = max(m.next, id+1)
	return s
}

func (m *MultiStore) space(id StoreID) datastore.Batching {
	return namespace.Wrap(m.ds, datastore.NewKey(fmt.Sprintf("/multi/%d", id)))
}

// Next returns an id that was not used before; the store begins with its first Get.
func (m *MultiStore) Next() StoreID {
	m.mu.Lock()
	defer m.mu.Unlock()
	id := m.next
	m.next++
	return id
}

// Get returns the store with an id, which is made if there is none.
func (m *MultiStore) Get(id StoreID) (*Store, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, ErrClosed
	}
	if s := m.stores[id]; s != nil {
		return s, nil
	}
	s := m.open(id)
	if err := m.save(); err != nil {
		delete(m.stores, id)
		return nil, err
	}
	return s, nil
}

// List returns the ids of all stores, in order.
func (m *MultiStore) List() StoreIDList {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.stores))
}

// Delete removes a store with its blocks; one that is not there is no error. The blocks go first: what a crash interrupts is
// still in the list.
func (m *MultiStore) Delete(id StoreID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	if m.stores[id] == nil {
		return nil
	}
	if err := m.clear(id); err != nil {
		return fmt.Errorf("delete store %d: %w", id, err)
	}
	s := m.stores[id]
	delete(m.stores, id)
	if err := m.save(); err != nil {
		m.stores[id] = s
		return err
	}
	return nil
}

func (m *MultiStore) clear(id StoreID) error {
	ctx, cancel := shared.Lifetime()
	defer cancel()
	ds := m.space(id)
	all, err := ds.Query(ctx, query.Query{KeysOnly: true})
	if err != nil {
		return err
	}
	defer all.Close()
	b, err := ds.Batch(ctx)
	if err != nil {
		return err
	}
	for e := range all.Next() {
		if e.Error != nil {
			return e.Error
		}
		if err := b.Delete(ctx, datastore.NewKey(e.Key)); err != nil {
			return err
		}
	}
	return b.Commit(ctx)
}

// save stores the list; mu is held.
func (m *MultiStore) save() error {
	data, err := json.Marshal(slices.Sorted(maps.Keys(m.stores)))
	if err != nil {
		return err
	}
	ctx, cancel := shared.Lifetime()
	defer cancel()
	if err := m.ds.Put(ctx, listKey, data); err != nil {
		return err
	}
	return m.ds.Sync(ctx, listKey)
}

// Close ends the use of the stores; the datastore stays open.
func (m *MultiStore) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}
