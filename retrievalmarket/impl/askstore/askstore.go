// Package askstore keeps the ask of a provider.
package askstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-datastore"

	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/internal/wire"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/shared"
)

// Bounds of an ask: larger terms overflow somewhere or make no sense.
const (
	MaxInterval  = 1 << 40
	maxPriceBits = 96
)

// AskStore implements retrievalmarket.AskStore over a datastore.
type AskStore struct {
	ds  datastore.Batching
	key datastore.Key // below the version of the records
	mu  sync.RWMutex
	ask rm.Ask
}

var versionKey = datastore.NewKey("/versions/current")

// NewAskStore opens the ask under key, below the version of the records as the reference has it. One that lies directly under key, from before there was
// a version, is moved there; without any the default is stored. What does not decode is an error.
func NewAskStore(ds datastore.Batching, key datastore.Key) (*AskStore, error) {
	s := &AskStore{ds: ds, key: datastore.NewKey(store.RecordVersion).Child(key)}
	ctx, cancel := shared.Lifetime()
	defer cancel()
	data, err := ds.Get(ctx, s.key)
	if errors.Is(err, datastore.ErrNotFound) {
		if data, err = ds.Get(ctx, key); err == nil {
			if err := s.move(ctx, key, data); err != nil {
				return nil, err
			}
			return s, nil
		}
	}
	if errors.Is(err, datastore.ErrNotFound) {
		err = s.SetAsk(&rm.Ask{
			PricePerByte: rm.DefaultPricePerByte, UnsealPrice: rm.DefaultUnsealPrice,
			PaymentInterval: rm.DefaultPaymentInterval, // and no increase: a client that bounds what it risks would refuse it for a large payload
		})
		if err != nil {
			return nil, fmt.Errorf("failed setting a default retrieval ask: %w", err)
		}
		return s, nil
	}
	if err == nil {
		err = wire.Decode(data, &s.ask)
	}
	if err != nil {
		return nil, fmt.Errorf("ask under %s: %w", s.key, err)
	}
	return s, nil
}

// move brings an ask from before there was a version under it: a map, or the tuple of the releases before the maps.
func (s *AskStore) move(ctx context.Context, from datastore.Key, data []byte) error {
	var ask rm.Ask
	if err := wire.Decode(data, &ask); err != nil {
		r := bytes.NewReader(data)
		if terr := rm.ReadTuple(r, &ask); terr != nil || r.Len() > 0 {
			return fmt.Errorf("ask under %s: %w", from, err)
		}
	}
	if err := s.SetAsk(&ask); err != nil {
		return fmt.Errorf("ask under %s: %w", from, err)
	}
	return s.ds.Delete(ctx, from)
}

// GetAsk returns a copy.
func (s *AskStore) GetAsk() *rm.Ask {
	s.mu.RLock()
	defer s.mu.RUnlock()
	a := s.ask
	return &a
}

// SetAsk stores a copy; a bad ask is refused and the old one stays (M-21).
func (s *AskStore) SetAsk(ask *rm.Ask) error {
	if err := Check(ask); err != nil {
		return err
	}
	data, err := wire.Encode(ask)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := shared.Lifetime()
	defer cancel()
	b, err := s.ds.Batch(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(b.Put(ctx, s.key, data), b.Put(ctx, versionKey, []byte(store.RecordVersion))); err != nil {
		return err
	}
	if err := store.Commit(ctx, s.ds, b); err != nil {
		return err
	}
	s.ask = *ask
	return nil
}

// Check tells what is wrong with an ask.
func Check(ask *rm.Ask) error {
	if ask == nil {
		return errors.New("no ask given")
	}
	for name, a := range map[string]abi.TokenAmount{"price per byte": ask.PricePerByte, "unseal price": ask.UnsealPrice} {
		if a.Nil() || a.LessThan(big.Zero()) || a.BitLen() > maxPriceBits {
			return fmt.Errorf("%s %s must be between 0 and 2^%d", name, a, maxPriceBits)
		}
	}
	if ask.PaymentInterval > MaxInterval || ask.PaymentIntervalIncrease > MaxInterval {
		return fmt.Errorf("payment interval %d and its increase %d must be at most 2^40", ask.PaymentInterval, ask.PaymentIntervalIncrease)
	}
	if ask.PricePerByte.GreaterThan(big.Zero()) && ask.PaymentInterval == 0 {
		return errors.New("a price per byte needs a payment interval above 0")
	}
	return nil
}
