package book

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-datastore"
	cbg "github.com/whyrusleeping/cbor-gen"

	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/internal/wire"
)

// seconds is a time in whole seconds; the zero time is 0.
func seconds(name string, v *time.Time) wire.Field {
	return wire.Field{Name: name,
		Write: func(w *cbg.CborWriter) error {
			n := uint64(0)
			if !v.IsZero() {
				n = uint64(max(0, v.Unix()))
			}
			return wire.Uint(name, &n).Write(w)
		},
		Read: func(r *cbg.CborReader) error {
			n := uint64(0)
			err := wire.Uint(name, &n).Read(r)
			if *v = (time.Time{}); n > 0 {
				*v = time.Unix(int64(min(n, maxSeconds)), 0)
			}
			return err
		}}
}

// maxSeconds bounds times, so that none is before 1970.
const maxSeconds = 1 << 40

// Day is what a channel brought on a day (UTC).
type Day struct {
	Date                   string
	Key                    ChannelKey
	Earned, Redeemed, Lost abi.TokenAmount
	Bytes, Payments        uint64
}

func (d *Day) fields() []wire.Field {
	return []wire.Field{wire.Text("date", &d.Date), wire.Text("kind", &d.Key.Kind), wire.Text("network", &d.Key.Network), wire.Text("asset", &d.Key.Asset), wire.Text("channel", &d.Key.Channel),
		wire.Amount("earned", &d.Earned), wire.Amount("redeemed", &d.Redeemed), wire.Amount("lost", &d.Lost), wire.Uint("bytes", &d.Bytes), wire.Uint("payments", &d.Payments)}
}

func dayKey(date string, k ChannelKey) datastore.Key {
	return datastore.NewKey(strings.Join([]string{dayPrefix, date, k.Kind, k.Channel}, "/"))
}

// addDay writes what an entry adds to the day of its channel. The lock of the entry is held: nobody else writes that record.
func (b *Book) addDay(ctx context.Context, w datastore.Write, old, next Entry) error {
	earned, redeemed, lost := big.Sub(next.Earned, old.Earned), big.Sub(next.Redeemed, old.Redeemed), big.Sub(next.Lost, old.Lost)
	if next.Bytes == old.Bytes && earned.Sign() == 0 && redeemed.Sign() == 0 && lost.Sign() == 0 {
		return nil
	}
	date := b.now().UTC().Format(time.DateOnly)
	d := Day{Date: date, Key: next.Key, Earned: big.Zero(), Redeemed: big.Zero(), Lost: big.Zero()}
	k := dayKey(date, next.Key)
	switch data, err := b.ds.Get(ctx, k); {
	case err == nil:
		if err := wire.DecodeTuple(data, "record "+k.String(), d.fields()); err != nil {
			return err
		}
	case !errors.Is(err, datastore.ErrNotFound):
		return err
	}
	d.Earned, d.Redeemed, d.Lost = big.Add(d.Earned, earned), big.Add(d.Redeemed, redeemed), big.Add(d.Lost, lost)
	d.Bytes += next.Bytes - old.Bytes
	if next.Bytes != old.Bytes {
		d.Payments++
	}
	data, err := wire.EncodeTuple(d.fields())
	if err != nil {
		return err
	}
	return w.Put(ctx, k, data)
}

// Days are all days of all channels, the oldest first.
func (b *Book) Days(ctx context.Context) (out []Day, err error) {
	err = store.Each(ctx, b.ds, dayPrefix, func(key string, value []byte) error {
		d := Day{}
		if err := wire.DecodeTuple(value, "record "+key, d.fields()); err != nil {
			return err
		}
		out = append(out, d)
		return nil
	})
	return out, err
}

// Intent is a deposit that is to be relayed: it is on stable storage before the chain hears of it, and Done with the commit that books it.
type Intent struct {
	Key     ChannelKey
	Nonce   string // of the authorization, in hexadecimal digits: the deposit is the same wherever it is the same
	Payload []byte // the payment as it came
	Config  []byte
	Before  abi.TokenAmount // what the channel held then: a deposit that was relayed before a crash is seen by what it holds now
	Created time.Time
	Done    bool
}

const maxPayload = 32 << 10

func (i *Intent) fields() []wire.Field {
	return []wire.Field{wire.Text("kind", &i.Key.Kind), wire.Text("network", &i.Key.Network), wire.Text("asset", &i.Key.Asset), wire.Text("channel", &i.Key.Channel), wire.Text("nonce", &i.Nonce),
		wire.Bytes("payload", &i.Payload, maxPayload), wire.Bytes("config", &i.Config, maxConfig), wire.Amount("before", &i.Before), seconds("created", &i.Created), wire.Bool("done", &i.Done)}
}

func (i *Intent) key() datastore.Key {
	return datastore.NewKey(strings.Join([]string{intentPrefix, i.Key.Channel, i.Nonce}, "/"))
}

func (i *Intent) put(ctx context.Context, w datastore.Write) error {
	data, err := wire.EncodeTuple(i.fields())
	if err != nil {
		return err
	}
	return w.Put(ctx, i.key(), data)
}

// Intent is the one that is there for a deposit, if there is one.
func (b *Book) Intent(ctx context.Context, i Intent) (have Intent, found bool, err error) {
	data, err := b.ds.Get(ctx, i.key())
	if errors.Is(err, datastore.ErrNotFound) {
		return i, false, nil
	}
	if err != nil {
		return i, false, err
	}
	return have, true, wire.DecodeTuple(data, "record "+i.key().String(), have.fields())
}

// Intend stores an intent, or gives the one that is there.
func (b *Book) Intend(ctx context.Context, i Intent) (Intent, error) {
	if have, found, err := b.Intent(ctx, i); found || err != nil {
		return have, err
	}
	if err := i.put(ctx, b.ds); err != nil {
		return Intent{}, err
	}
	return i, b.ds.Sync(ctx, i.key())
}

// Drop forgets an intent of which nothing can come any more.
func (b *Book) Drop(ctx context.Context, i Intent) error {
	return errors.Join(b.ds.Delete(ctx, i.key()), b.ds.Sync(ctx, i.key()))
}

// Intents are all deposits that are to be relayed, or were a short while ago.
func (b *Book) Intents(ctx context.Context) (out []Intent, err error) {
	err = store.Each(ctx, b.ds, intentPrefix, func(key string, value []byte) error {
		i := Intent{}
		if err := wire.DecodeTuple(value, "record "+key, i.fields()); err != nil {
			return err
		}
		out = append(out, i)
		return nil
	})
	return out, err
}
