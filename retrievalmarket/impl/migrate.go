package retrievalimpl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/ipfs/go-datastore"

	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/internal/wire"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

// Layouts of deal records. Ours is the map form with a value-typed channel id.
const (
	dealVersion     = "1"
	versionUnmarked = 0 // tuples, at the root, with no version key
	versionNullable = 2 // as ours, the channel id null before the transfer
)

var versionKey = datastore.NewKey("/versions/current")

// open makes an empty store ours, brings older and nullable layouts to ours in one atomic step, and refuses a newer one
// untouched (docs/protocol/retrievalmarket.md 2.8). A record that does not decode fails it and changes nothing.
func (s deals[T, P]) open(ctx context.Context) error {
	v, err := s.ds.Get(ctx, versionKey)
	if errors.Is(err, datastore.ErrNotFound) {
		return s.migrate(ctx, "/", versionUnmarked)
	}
	if err != nil || string(v) == dealVersion {
		return err
	}
	if n, err := strconv.ParseUint(string(v), 10, 32); err == nil && n == versionNullable {
		return s.migrate(ctx, "/2/", versionNullable)
	}
	return fmt.Errorf("deal store has version %q, this program reads versions up to %d: run the program that wrote it", v, versionNullable)
}

// migrate moves the records below a prefix to our layout.
func (s deals[T, P]) migrate(ctx context.Context, prefix string, from int) error {
	b, err := s.ds.Batch(ctx)
	if err != nil {
		return err
	}
	err = store.Each(ctx, s.ds, strings.TrimSuffix(prefix, "/"), func(key string, value []byte) error {
		if from == versionUnmarked && notADeal(key) {
			return nil
		}
		rec, err := s.decode(value, from)
		if err != nil {
			return fmt.Errorf("deal record %s of store version %d: %w", key, from, err)
		}
		data, err := wire.Encode(P(&rec))
		if err != nil {
			return err
		}
		return errors.Join(b.Put(ctx, s.key(strings.TrimPrefix(key, prefix)), data), b.Delete(ctx, datastore.NewKey(key)))
	})
	if err != nil {
		return err
	}
	if err := b.Put(ctx, versionKey, []byte(dealVersion)); err != nil {
		return err
	}
	return store.Commit(ctx, s.ds, b)
}

// notADeal tells what else may lie in the namespace of an unmarked store: the ask, and what a store of ours holds.
func notADeal(key string) bool {
	return key == versionKey.String() || key == "/retrieval-ask" || strings.HasPrefix(key, "/retrieval-ask/") || strings.HasPrefix(key, "/"+dealVersion+"/")
}

func (s deals[T, P]) decode(data []byte, from int) (rec T, err error) {
	if from != versionUnmarked {
		return rec, wire.Decode(data, P(&rec))
	}
	r := bytes.NewReader(data)
	if err := rm.ReadTuple(r, P(&rec)); err != nil {
		return rec, err
	}
	if r.Len() > 0 {
		return rec, fmt.Errorf("%d bytes after its end", r.Len())
	}
	s.legacy(P(&rec))
	return rec, nil
}

// ProviderDeals reads the deals of a provider that does not run out of its store. A store of another layout has to be opened by a provider first.
func ProviderDeals(ctx context.Context, ds datastore.Batching) (out []rm.ProviderDealState, err error) {
	v, err := ds.Get(ctx, versionKey)
	if errors.Is(err, datastore.ErrNotFound) { // there never was one
		return nil, nil
	}
	if err == nil && string(v) != dealVersion {
		err = fmt.Errorf("deal store has version %q: a provider of this version brings it to %s when it starts", v, dealVersion)
	}
	if err != nil {
		return nil, err
	}
	s := deals[rm.ProviderDealState, *rm.ProviderDealState]{ds: ds}
	err = s.each(ctx, func(d rm.ProviderDealState) error {
		out = append(out, d)
		return nil
	})
	return out, err
}
