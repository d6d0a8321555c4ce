// Package askstore keeps the ask of a provider.
package askstore

import (
	"errors"
	"fmt"
	"sync"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-datastore"

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
	key datastore.Key
	mu  sync.RWMutex
	ask rm.Ask
}

// NewAskStore opens the ask under key; without one it stores the default.
func NewAskStore(ds datastore.Batching, key datastore.Key) (*AskStore, error) {
	s := &AskStore{ds: ds, key: key}
	ctx, cancel := shared.Lifetime()
	defer cancel()
	data, err := ds.Get(ctx, key)
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
	return s, err
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
	if err := s.ds.Put(ctx, s.key, data); err != nil {
		return err
	}
	if err := s.ds.Sync(ctx, s.key); err != nil {
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
