package storagedeal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"

	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/internal/wire"
)

// ErrUnknownDeal means that there is no deal of a proposal.
var ErrUnknownDeal = errors.New("storage deal not found")

// record is what is kept of a deal, by the CID of its proposal.
type record interface {
	proposal() cid.Cid
	fields(created *uint64) []wire.Field
	createdAt() *time.Time
	isUnfinished() bool // a start has to go on with it
}

// recordStore is a store of records of one type: all below one prefix, and the names of those that a start goes on with below another.
type recordStore[T any, P interface {
	*T
	record
}] struct {
	ds           datastore.Batching
	all, started string
}

// putRecord stores a record durably.
func (k recordStore[T, P]) putRecord(ctx context.Context, v T) error {
	p := P(&v)
	created := uint64(p.createdAt().Unix())
	data, err := wire.EncodeTuple(p.fields(&created))
	if err != nil {
		return err
	}
	b, err := k.ds.Batch(ctx)
	if err != nil {
		return err
	}
	name, started := p.proposal(), datastore.NewKey(k.started+"/"+p.proposal().String())
	err = b.Put(ctx, datastore.NewKey(k.all+"/"+name.String()), data)
	if p.isUnfinished() {
		err = errors.Join(err, b.Put(ctx, started, nil))
	} else {
		err = errors.Join(err, b.Delete(ctx, started))
	}
	if err == nil {
		err = store.Commit(ctx, k.ds, b)
	}
	if err != nil {
		return fmt.Errorf("store deal %s: %w", name, err)
	}
	return nil
}

func (k recordStore[T, P]) decodeRecord(data []byte) (v T, err error) {
	var created uint64
	if err := wire.DecodeTuple(data, "record of a storage deal", P(&v).fields(&created)); err != nil {
		return v, err
	}
	*P(&v).createdAt() = time.Unix(int64(created), 0)
	return v, nil
}

func (k recordStore[T, P]) getRecord(ctx context.Context, name cid.Cid) (v T, err error) {
	data, err := k.ds.Get(ctx, datastore.NewKey(k.all+"/"+name.String()))
	if errors.Is(err, datastore.ErrNotFound) {
		return v, fmt.Errorf("%w: proposal %s", ErrUnknownDeal, name)
	}
	if err != nil {
		return v, err
	}
	return k.decodeRecord(data)
}

func (k recordStore[T, P]) listRecords(ctx context.Context) (out []T, err error) {
	err = store.Each(ctx, k.ds, k.all, func(key string, value []byte) error {
		v, err := k.decodeRecord(value)
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		out = append(out, v)
		return nil
	})
	return out, err
}

// unfinishedRecords are the records that a start goes on with.
func (k recordStore[T, P]) unfinishedRecords(ctx context.Context) (out []T, err error) {
	var names []cid.Cid
	err = store.Each(ctx, k.ds, k.started, func(key string, _ []byte) error {
		c, err := cid.Decode(datastore.RawKey(key).BaseNamespace())
		names = append(names, c)
		return err
	})
	for _, name := range names {
		v, gerr := k.getRecord(ctx, name)
		if err = errors.Join(err, gerr); gerr == nil {
			out = append(out, v)
		}
	}
	return out, err
}
