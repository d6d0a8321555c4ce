package paych

import (
	"context"
	"errors"
	"fmt"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/ipfs/go-datastore"

	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/internal/wire"
)

// laneRecord is the best voucher of a lane with the deal it pays for: the entry of the voucher book. It is written in
// one atomic, synced batch and never rewritten with less.
type laneRecord struct {
	Channel  address.Address
	Lane     uint64
	Deal     string
	Nonce    uint64
	Amount   abi.TokenAmount
	Bytes    uint64
	Reserved abi.TokenAmount
	Closed   bool
	Voucher  *paych.SignedVoucher
	Base     abi.TokenAmount // what the lane had before its deal: no credit for it

	chainOnly bool // known from the chain and not in the book
}

func (l *laneRecord) fields() []wire.Field {
	return []wire.Field{
		wire.Address("channel", &l.Channel), wire.Uint("lane", &l.Lane), wire.Text("deal", &l.Deal), wire.Uint("nonce", &l.Nonce),
		wire.Amount("amount", &l.Amount), wire.Uint("bytes", &l.Bytes), wire.Amount("reserved", &l.Reserved), wire.Bool("closed", &l.Closed),
		wire.Nullable("voucher", &l.Voucher, func(v *paych.SignedVoucher) wire.Field { return wire.Object("voucher", v) }),
		wire.Amount("base", &l.Base),
	}
}

// record is something that lists its fields.
type record interface{ fields() []wire.Field }

func putRecord(ctx context.Context, w datastore.Write, k datastore.Key, r record) error {
	data, err := wire.EncodeTuple(r.fields())
	if err != nil {
		return err
	}
	return w.Put(ctx, k, data)
}

// getRecord reads a record; found is false when there is none.
func getRecord(ctx context.Context, ds datastore.Datastore, k datastore.Key, r record) (found bool, err error) {
	data, err := ds.Get(ctx, k)
	if errors.Is(err, datastore.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, wire.DecodeTuple(data, "record "+k.String(), r.fields())
}

// eachRecord calls f with every record below a prefix.
func eachRecord[T any, P interface {
	*T
	record
}](ctx context.Context, ds datastore.Datastore, prefix string, f func(P) error) error {
	return eachKeyedRecord(ctx, ds, prefix, func(_ string, r P) error { return f(r) })
}

// eachKeyedRecord is each, with the keys.
func eachKeyedRecord[T any, P interface {
	*T
	record
}](ctx context.Context, ds datastore.Datastore, prefix string, f func(string, P) error) error {
	return store.Each(ctx, ds, prefix, func(key string, value []byte) error {
		r := P(new(T))
		if err := wire.DecodeTuple(value, "record "+key, r.fields()); err != nil {
			return err
		}
		return f(key, r)
	})
}

// Keys. "o" is what we pay (outbound), "i" is what we are paid (inbound).
func laneKey(side string, ch address.Address, lane uint64) datastore.Key {
	return datastore.NewKey(fmt.Sprintf("/%s/lane/%s/%020d", side, ch, lane))
}

func dealKey(side, deal string) datastore.Key { return datastore.NewKey("/" + side + "/deal/" + deal) }

// dealRef finds the lane of a deal.
type dealRef struct {
	Channel address.Address
	Lane    uint64
}

func (d *dealRef) fields() []wire.Field {
	return []wire.Field{wire.Address("channel", &d.Channel), wire.Uint("lane", &d.Lane)}
}

// Entry is an entry of a voucher book: the best voucher of a deal's lane.
type Entry struct {
	Deal    string
	Channel address.Address
	Lane    uint64
	Nonce   uint64
	Amount  abi.TokenAmount // of the voucher, cumulative for the lane
	Credit  abi.TokenAmount // of it, what the deal itself has paid
	Bytes   uint64
	Voucher *paych.SignedVoucher
}

func (l *laneRecord) bookEntry() Entry {
	return Entry{l.Deal, l.Channel, l.Lane, l.Nonce, l.Amount, big.Sub(l.Amount, l.Base), l.Bytes, l.Voucher}
}

// ShortfallError says how much a payment channel lacks for a voucher.
type ShortfallError struct{ Missing abi.TokenAmount }

func (e *ShortfallError) Error() string {
	return fmt.Sprintf("payment channel is short by %s", e.Missing)
}
