package book

import (
	"fmt"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"

	"github.com/cartage-dev/cartage/internal/wire"
)

// ChannelKey names a channel: the kind of its instrument, for example evm.batch, the network and the asset, and its id there.
type ChannelKey struct{ Kind, Network, Asset, Channel string }

// Balance is what the chain has of a channel, as of SeenAt.
type Balance struct {
	Deposit, Claimed abi.TokenAmount
	WithdrawAt       time.Time // when a withdrawal was begun; zero: none was
	RefundNonce      uint64
	SeenAt           time.Time
}

// State is how an entry stands.
type State uint64

// States of entries. A refund is Refunding from the moment its amount is fixed until the chain shows it.
const (
	Active State = iota
	Withdrawing
	Refunding
	Closed
)

// Entry is the book of a channel. Amounts are in units of the asset, each of Secured, Earned, Redeemed and Lost only grows,
// and Redeemed + Lost <= Earned <= Secured.
type Entry struct {
	Version uint64 // 0: there is none
	Key     ChannelKey
	Secured abi.TokenAmount // the most that was signed for
	Earned  abi.TokenAmount // what was charged
	// Redeemed is what the chain shows as claimed, and Lost what could not be claimed in time.
	Redeemed, Lost abi.TokenAmount
	Spare          uint64 // what was charged too much so far, in 2^-40 units
	Bytes          uint64
	Balance
	Config, Proof []byte // what the channel is, and the last payment, as the instrument writes them

	// The last payment, for one that comes again.
	LastKey     []byte
	LastReceipt []byte
	LastAt      time.Time
	Replays     uint64

	State  State
	Refund abi.TokenAmount // what is being given back, while Refunding
}

func newEntry(k ChannelKey) Entry {
	zero := big.Zero()
	return Entry{Key: k, Secured: zero, Earned: zero, Redeemed: zero, Lost: zero, Refund: zero, Balance: Balance{Deposit: zero, Claimed: zero}}
}

// Unclaimed is what was earned, and neither redeemed nor lost.
func (e Entry) Unclaimed() abi.TokenAmount { return big.Sub(e.Earned, big.Add(e.Redeemed, e.Lost)) }

// Left is what of the deposit was not earned.
func (e Entry) Left() abi.TokenAmount {
	return big.Max(big.Zero(), big.Sub(e.Deposit, big.Max(e.Earned, e.Claimed)))
}

// Seen is the entry with what the chain has now. What it shows as claimed was redeemed.
func (e Entry) Seen(b Balance) Entry {
	e.Balance = b
	claimed := big.Min(b.Claimed, big.Sub(e.Earned, e.Lost))
	e.Redeemed = big.Max(e.Redeemed, claimed)
	switch {
	case e.State == Refunding:
	case !b.WithdrawAt.IsZero():
		e.State = Withdrawing
	case e.State == Withdrawing || e.State == Closed && b.Deposit.GreaterThan(b.Claimed):
		e.State = Active
	}
	return e
}

// check refuses an entry that cannot follow another.
func (e Entry) check(old Entry) error {
	for _, c := range []struct {
		name     string
		low, top abi.TokenAmount
	}{
		{"redeemed and lost are above earned", big.Add(e.Redeemed, e.Lost), e.Earned}, {"earned is above secured", e.Earned, e.Secured},
		{"secured shrinks", old.Secured, e.Secured}, {"earned shrinks", old.Earned, e.Earned}, {"redeemed shrinks", old.Redeemed, e.Redeemed}, {"lost shrinks", old.Lost, e.Lost},
	} {
		if c.low.GreaterThan(c.top) {
			return fmt.Errorf("entry of channel %s: %s: %s, %s", e.Key.Channel, c.name, c.low, c.top)
		}
	}
	if e.Key != old.Key {
		return fmt.Errorf("entry of channel %s replaced by one of %s", old.Key.Channel, e.Key.Channel)
	}
	return nil
}

// Bounds of what entries hold.
const (
	maxConfig  = 1 << 10
	maxProof   = 1 << 10
	maxReceipt = 2 << 10
	keySize    = 32
)

func (e *Entry) fields() []wire.Field {
	return []wire.Field{wire.Uint("version", &e.Version), wire.Text("kind", &e.Key.Kind), wire.Text("network", &e.Key.Network), wire.Text("asset", &e.Key.Asset), wire.Text("channel", &e.Key.Channel),
		wire.Amount("secured", &e.Secured), wire.Amount("earned", &e.Earned), wire.Amount("redeemed", &e.Redeemed), wire.Amount("lost", &e.Lost), wire.Uint("spare", &e.Spare), wire.Uint("bytes", &e.Bytes),
		wire.Amount("deposit", &e.Deposit), wire.Amount("claimed", &e.Claimed), seconds("withdrawAt", &e.WithdrawAt), wire.Uint("refundNonce", &e.RefundNonce), seconds("seenAt", &e.SeenAt),
		wire.Bytes("config", &e.Config, maxConfig), wire.Bytes("proof", &e.Proof, maxProof), wire.Bytes("lastKey", &e.LastKey, keySize), wire.Bytes("lastReceipt", &e.LastReceipt, maxReceipt),
		seconds("lastAt", &e.LastAt), wire.Uint("replays", &e.Replays), wire.Uint("state", &e.State), wire.Amount("refund", &e.Refund)}
}

func decodeEntry(key string, data []byte) (Entry, error) {
	e := Entry{}
	err := wire.DecodeTuple(data, "record "+key, e.fields())
	if err == nil && entryKey(e.Key).String() != key {
		err = fmt.Errorf("record %s is that of channel %s", key, e.Key.Channel)
	}
	return e, err
}
