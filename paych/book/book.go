// Package book keeps what was paid through channels whose money is on another chain than that of deals: an entry for each channel, with its
// version, and what it brought on each day.
//
// A payment is taken in three steps: Get the entry, let an [Instrument] make the next one of it, and Apply that. Apply compares the version and
// writes entry and day in one synced commit, so that of two who take one payment, in one process or in two, one is applied. The chain is
// behind [Escrow].
package book

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"sync"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-datastore"

	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/internal/wire"
)

// ErrConflict means that an entry was changed by another: nothing was written. Get it again and check anew.
var ErrConflict = errors.New("the entry was changed by another")

// stripes is how many entries can be written at once.
const stripes = 64

// AssetKey is an asset on a network, for example eip155:8453 and 0x8335...
type AssetKey struct{ Network, Asset string }

// Book is the entries of all channels. It is safe for concurrent use.
type Book struct {
	ds   datastore.Batching
	now  func() time.Time
	seed maphash.Seed

	writing [stripes]sync.Mutex // an entry at a time

	mu        sync.Mutex
	open      int // entries that are not closed
	unclaimed map[AssetKey]abi.TokenAmount
}

// Keys of the records.
const (
	entryPrefix  = "/book/1/e"
	dayPrefix    = "/book/1/d"
	intentPrefix = "/book/1/f"
)

// Open reads the book. A record that cannot be decoded is an error that names it. now is time.Now if it is nil.
func Open(ctx context.Context, ds datastore.Batching, now func() time.Time) (*Book, error) {
	if now == nil {
		now = time.Now
	}
	b := &Book{ds: ds, now: now, seed: maphash.MakeSeed(), unclaimed: map[AssetKey]abi.TokenAmount{}}
	err := b.Each(ctx, func(e Entry) error {
		b.count(Entry{}, e)
		return nil
	})
	if err == nil {
		_, err = b.Days(ctx)
	}
	if err == nil {
		_, err = b.Intents(ctx)
	}
	return b, err
}

func entryKey(k ChannelKey) datastore.Key {
	return datastore.NewKey(entryPrefix + "/" + k.Kind + "/" + k.Channel)
}

// Get is the entry of a channel; one without a Version if there is none.
func (b *Book) Get(ctx context.Context, k ChannelKey) (Entry, error) {
	data, err := b.ds.Get(ctx, entryKey(k))
	if errors.Is(err, datastore.ErrNotFound) {
		return newEntry(k), nil
	}
	if err != nil {
		return Entry{}, err
	}
	return decodeEntry(entryKey(k).String(), data)
}

// Each calls f with all entries until it returns an error.
func (b *Book) Each(ctx context.Context, f func(Entry) error) error {
	return store.Each(ctx, b.ds, entryPrefix, func(key string, value []byte) error {
		e, err := decodeEntry(key, value)
		if err != nil {
			return err
		}
		return f(e)
	})
}

// Apply replaces an entry by the next one, with what that adds to the day, and what else is to be written with it. When it returns nil all of it is on
// stable storage; with an error nothing is. old has the version that next follows; of the first entry of a channel it has what was earned before.
func (b *Book) Apply(ctx context.Context, old, next Entry, also ...Intent) error {
	lock := &b.writing[maphash.String(b.seed, old.Key.Channel)%stripes]
	lock.Lock()
	defer lock.Unlock()
	have, err := b.Get(ctx, old.Key)
	if err != nil {
		return err
	}
	if have.Version != old.Version {
		return ErrConflict
	}
	if have.Version > 0 {
		old = have
	}
	if err := next.check(old); err != nil {
		return err
	}
	next.Version = old.Version + 1
	batch, err := b.ds.Batch(ctx)
	if err != nil {
		return err
	}
	if err := b.write(ctx, batch, old, next, also); err != nil {
		return err
	}
	if err := store.Commit(ctx, b.ds, batch); err != nil {
		return err
	}
	b.count(have, next)
	return nil
}

func (b *Book) write(ctx context.Context, w datastore.Write, old, next Entry, also []Intent) error {
	data, err := wire.EncodeTuple(next.fields())
	if err != nil {
		return err
	}
	if err := w.Put(ctx, entryKey(next.Key), data); err != nil {
		return err
	}
	for i := range also {
		if err := also[i].put(ctx, w); err != nil {
			return err
		}
	}
	return b.addDay(ctx, w, old, next)
}

// count keeps what is known of all entries together.
func (b *Book) count(old, next Entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if old.Version == 0 || old.State == Closed {
		b.open++
	}
	if next.State == Closed {
		b.open--
	}
	k := AssetKey{next.Key.Network, next.Key.Asset}
	sum, ok := b.unclaimed[k]
	if !ok {
		sum = big.Zero()
	}
	sum = big.Add(sum, next.Unclaimed())
	if old.Version > 0 {
		sum = big.Sub(sum, old.Unclaimed())
	}
	b.unclaimed[k] = sum
}

// Open is how many entries are not closed.
func (b *Book) Open() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}

// Unclaimed is what was earned and not yet redeemed, by asset.
func (b *Book) Unclaimed() map[AssetKey]abi.TokenAmount {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.unclaimed)
}

// keptClosed is how long a closed entry is kept.
const keptClosed = 30 * 24 * time.Hour

// keptIntent is how long an intent is kept that is done: as long as its payment may come again.
const keptIntent = 24 * time.Hour

// Prune deletes entries that were closed long ago, and intents that nobody asks for again.
func (b *Book) Prune(ctx context.Context) error {
	now := b.now()
	var gone []datastore.Key
	err := b.Each(ctx, func(e Entry) error {
		if e.State == Closed && now.Sub(e.LastAt) > keptClosed && e.Unclaimed().Sign() == 0 {
			gone = append(gone, entryKey(e.Key))
		}
		return nil
	})
	if err != nil {
		return err
	}
	intents, err := b.Intents(ctx)
	if err != nil {
		return err
	}
	for _, i := range intents {
		if i.Done && now.Sub(i.Created) > keptIntent {
			gone = append(gone, i.key())
		}
	}
	for _, k := range gone {
		if err := b.ds.Delete(ctx, k); err != nil {
			return fmt.Errorf("delete %s: %w", k, err)
		}
	}
	return nil
}
