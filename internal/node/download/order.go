// Package download keeps the orders of a client: what somebody wants, what it may cost, and who asked for it. Money is spent for an order
// that is running, and for nothing else. An order runs while somebody holds it, or for as long as it takes if it is the daemon's own; given
// up, interrupted or without a holder it is parked, and only a person, or the same request, goes on with it.
//
// An order has deals, one after another; its budget is theirs together. The deals themselves are the business of a Market.
package download

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-datastore"
	cbg "github.com/whyrusleeping/cbor-gen"

	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/internal/wire"
)

// ID numbers the orders of a home.
type ID uint64

// String is the name of an order: o17.
func (id ID) String() string { return "o" + strconv.FormatUint(uint64(id), 10) }

// ParseID reads the name of an order.
func ParseID(s string) (ID, bool) {
	digits, ok := strings.CutPrefix(s, "o")
	n, err := strconv.ParseUint(digits, 10, 64)
	return ID(n), ok && err == nil && n > 0
}

// Deal is the number of a deal of the client.
type Deal uint64

// State is where an order stands.
type State uint64

// The states; their numbers are stored.
const (
	Running State = iota + 1
	Waiting
	Parked
	Done
	Failed
	Cancelled
)

var stateNames = map[State]string{Running: "running", Waiting: "waiting", Parked: "parked", Done: "done", Failed: "failed", Cancelled: "cancelled"}

// String is the name of the state.
func (s State) String() string { return stateNames[s] }

// Final tells whether nothing happens any more.
func (s State) Final() bool { return s == Done || s == Failed || s == Cancelled }

// Owner is who asked for an order, and so how long it runs.
type Owner uint64

// The owners; their numbers are stored. A command holds its order by asking for news of it; the others run until they are over.
const (
	Command Owner = iota
	Queue
	API
)

// Limits of a record.
const (
	recordVersion = 1
	maxRecord     = 64 << 10
	maxDeals      = 1000
)

// Order is the record of what somebody wants. Amounts are attoFIL, times UTC.
type Order struct {
	ID          ID
	Key         string // root, selector and destination: equal requests share an order
	Want        []byte // the request, as its Market wrote it
	Providers   []string
	Transport   string
	Budget      *abi.TokenAmount // for all deals together; nil: only what is free
	Asset       string
	MaxExposure uint64
	Owner       Owner
	Token       string
	State       State
	Reason      reason.Reason // why it is in its state
	Created     time.Time
	Changed     time.Time
	Deals       []Deal
	Output      string

	leaving reason.Reason // why it is about to stop running
	tries   int           // attempts without progress, of one that waits
	next    time.Time     // when it tries again
}

// encode is the stored form: a tuple, so that a reader of another version refuses it by its first item.
func (o *Order) encode() ([]byte, error) {
	version := uint64(recordVersion)
	data, err := wire.EncodeTuple(o.fields(&version))
	if err == nil && len(data) > maxRecord {
		err = fmt.Errorf("%s: a record of %d bytes, the limit is %d", o.ID, len(data), maxRecord)
	}
	return data, err
}

func decode(id ID, data []byte) (Order, error) {
	o := Order{ID: id}
	var version uint64
	if err := wire.DecodeTuple(data, "order", o.fields(&version)); err != nil {
		return o, reason.StoreFailed.Errorf("the record of order %s: %w", id, err)
	}
	if version != recordVersion || o.State.String() == "" || o.Owner > API {
		return o, reason.HomeNewer.Errorf("the record of order %s has version %d, state %d, owner %d", id, version, o.State, o.Owner)
	}
	return o, nil
}

func (o *Order) fields(version *uint64) []wire.Field {
	return []wire.Field{
		wire.Uint("version", version), wire.Text("key", &o.Key), wire.Bytes("want", &o.Want, maxRecord),
		wire.List("providers", &o.Providers, func(p *string) wire.Field { return wire.Text("provider", p) }),
		wire.Text("transport", &o.Transport), wire.Nullable("budget", &o.Budget, func(a *abi.TokenAmount) wire.Field { return wire.Amount("budget", a) }),
		wire.Text("asset", &o.Asset), wire.Uint("maxExposure", &o.MaxExposure), wire.Uint("owner", &o.Owner), wire.Text("token", &o.Token),
		wire.Uint("state", &o.State), reasonField(&o.Reason), timeField("created", &o.Created), timeField("changed", &o.Changed),
		wire.List("deals", &o.Deals, func(d *Deal) wire.Field { return wire.Uint("deal", d) }), wire.Text("output", &o.Output),
	}
}

func reasonField(r *reason.Reason) wire.Field {
	n := r.Number()
	f := wire.Uint("reason", &n)
	read := f.Read
	f.Read = func(from *cbg.CborReader) error {
		err := read(from)
		*r = reason.FromNumber(n)
		return err
	}
	return f
}

// timeField is a time in microseconds since 1970.
func timeField(name string, t *time.Time) wire.Field {
	n := uint64(t.UnixMicro())
	f := wire.Uint(name, &n)
	read := f.Read
	f.Read = func(from *cbg.CborReader) error {
		err := read(from)
		*t = time.UnixMicro(int64(n)).UTC()
		return err
	}
	return f
}

// key of the record: digits instead of bytes, which the keys of a datastore cannot hold.
func (id ID) key() datastore.Key { return datastore.NewKey(fmt.Sprintf("%016x", uint64(id))) }

// Left is what the deals of an order may still spend of its budget; nil: it may spend nothing at all.
func (o *Order) Left(spent abi.TokenAmount) *abi.TokenAmount {
	if o.Budget == nil {
		return nil
	}
	left := big.Max(big.Zero(), big.Sub(*o.Budget, spent))
	return &left
}
