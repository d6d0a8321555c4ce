package paychannel

import (
	"context"
	"errors"
	"fmt"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/ipfs/go-datastore"

	"github.com/cartage-dev/cartage/internal/wire"
)

// Bounds of a record.
const (
	maxReceipt = 2 << 10
	keySize    = 32
)

// record is the last purchase of a lane: what a client is answered that asks again.
type record struct {
	Key     []byte
	Nonce   uint64
	Charge  abi.TokenAmount
	Receipt []byte
	At      uint64 // Unix seconds
	Replays uint64
}

func (r *record) fields() []wire.Field {
	return []wire.Field{wire.Bytes("key", &r.Key, keySize), wire.Uint("nonce", &r.Nonce), wire.Amount("charge", &r.Charge), wire.Bytes("receipt", &r.Receipt, maxReceipt),
		wire.Uint("at", &r.At), wire.Uint("replays", &r.Replays)}
}

// recordKey is where the record of the lane is, in the store of the manager.
func (d *draft) recordKey() datastore.Key { return datastore.NewKey("/i/http/" + d.Channel()) }

func (r *record) put(ctx context.Context, w datastore.Write, k datastore.Key) error {
	data, err := wire.EncodeTuple(r.fields())
	if err != nil {
		return err
	}
	return w.Put(ctx, k, data)
}

// store writes a record by itself.
func (r *record) store(ctx context.Context, ds datastore.Batching, k datastore.Key) error {
	if err := r.put(ctx, ds, k); err != nil {
		return err
	}
	return ds.Sync(ctx, k)
}

// readRecord reads a record; nil if there is none.
func readRecord(ctx context.Context, ds datastore.Batching, k datastore.Key) (*record, error) {
	data, err := ds.Get(ctx, k)
	if errors.Is(err, datastore.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := &record{}
	if err := wire.DecodeTuple(data, fmt.Sprintf("record %s", k), r.fields()); err != nil {
		return nil, err
	}
	return r, nil
}
