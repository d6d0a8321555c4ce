package storagedeal

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/ipfs/go-datastore"
)

// SimulatedPublisher numbers deals instead of publishing them on a chain. Numbers are kept in its store: a deal has one.
type SimulatedPublisher struct {
	Store datastore.Batching

	mu sync.Mutex
}

// Publish implements Publisher.
func (s *SimulatedPublisher) Publish(ctx context.Context, d Deal) (abi.DealID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	mine, next := datastore.NewKey("/numbers/"+d.ProposalCid.String()), datastore.NewKey("/next")
	if n, err := s.number(ctx, mine); err != nil || n != 0 {
		return n, err
	}
	n, err := s.number(ctx, next)
	if err != nil {
		return 0, err
	}
	b, err := s.Store.Batch(ctx)
	if err != nil {
		return 0, err
	}
	put := func(k datastore.Key, n abi.DealID) error {
		return b.Put(ctx, k, binary.BigEndian.AppendUint64(nil, uint64(n)))
	}
	if err := errors.Join(put(mine, n+1), put(next, n+1), b.Commit(ctx)); err != nil {
		return 0, err
	}
	return n + 1, s.Store.Sync(ctx, datastore.NewKey("/"))
}

func (s *SimulatedPublisher) number(ctx context.Context, k datastore.Key) (abi.DealID, error) {
	data, err := s.Store.Get(ctx, k)
	if errors.Is(err, datastore.ErrNotFound) {
		return 0, nil
	}
	if err == nil && len(data) != 8 {
		err = errors.New("not a number of a deal")
	}
	if err != nil {
		return 0, err
	}
	return abi.DealID(binary.BigEndian.Uint64(data)), nil
}
