// Package ledger is the embedded chain: accounts and payment channels in a store of its own, changed only by signed
// transactions, served to other processes over loopback HTTP. It orders and stores; it cannot invent a payment
// (docs/protocol/payments.md 4).
package ledger

import (
	"bytes"
	"fmt"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/filecoin-project/go-state-types/crypto"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	cbg "github.com/whyrusleeping/cbor-gen"

	"github.com/cartage-dev/cartage/internal/wire"
	pay "github.com/cartage-dev/cartage/paych"
)

// domain keeps the signature of a transaction apart from any other.
const domain = "retrieval-ledger/tx/1"

// maxTx bounds a signed transaction.
const maxTx = 8 << 10

// Kind is a kind of transaction.
type Kind uint64

// The kinds of transactions.
const (
	KindTransfer Kind = iota + 1
	KindCreate
	KindAddFunds
	KindRedeem
	KindSettle
	KindCollect
	KindMint
	KindProvider
)

// Tx is a transaction. Its CID is the CIDv1, dag-cbor, blake2b-256 of its signed bytes.
type Tx struct {
	Network    []byte
	From       address.Address
	Seq        uint64
	ValidUntil uint64
	Kind       Kind
	To         address.Address // undefined where the kind needs none
	Value      abi.TokenAmount
	Params     []byte
	Intent     []byte
	Signature  *crypto.Signature
}

func (t *Tx) fields(signed bool) []wire.Field {
	d := domain
	dom := wire.Text("domain", &d)
	read := dom.Read
	dom.Read = func(r *cbg.CborReader) error {
		if err := read(r); err != nil {
			return err
		}
		if d != domain {
			return fmt.Errorf("domain %q, want %q", d, domain)
		}
		return nil
	}
	f := []wire.Field{
		dom, wire.Bytes("network", &t.Network, 32), wire.Address("from", &t.From), wire.Uint("seq", &t.Seq),
		wire.Uint("validUntil", &t.ValidUntil), wire.Uint("kind", &t.Kind), wire.OptAddress("to", &t.To), wire.Amount("value", &t.Value),
		wire.Bytes("params", &t.Params, maxTx), wire.Bytes("intent", &t.Intent, 16),
	}
	if signed {
		f = append(f, wire.Nullable("signature", &t.Signature, func(s *crypto.Signature) wire.Field { return wire.Object("signature", s) }))
	}
	return f
}

// Sign signs the transaction.
func (t *Tx) Sign(key *pay.Key) error {
	msg, err := wire.EncodeTuple(t.fields(false))
	if err != nil {
		return err
	}
	t.Signature, err = key.Sign(msg)
	return err
}

// verify checks the signature of the sender.
func (t *Tx) verify() error {
	if t.Signature == nil {
		return pay.ErrNoSignature
	}
	msg, err := wire.EncodeTuple(t.fields(false))
	if err != nil {
		return err
	}
	return pay.Verify(t.Signature, t.From, msg)
}

// Encode returns the signed bytes.
func (t *Tx) Encode() ([]byte, error) { return wire.EncodeTuple(t.fields(true)) }

// DecodeTx reads a transaction strictly.
func DecodeTx(data []byte) (*Tx, error) {
	if len(data) > maxTx {
		return nil, fmt.Errorf("transaction of %d bytes is above the limit of %d", len(data), maxTx)
	}
	var t Tx
	if err := wire.DecodeTuple(data, "transaction", t.fields(true)); err != nil {
		return nil, err
	}
	again, err := t.Encode()
	if err != nil || !bytes.Equal(again, data) {
		return nil, fmt.Errorf("transaction is not in canonical form")
	}
	return &t, nil
}

func txCid(data []byte) (cid.Cid, error) {
	return cid.V1Builder{Codec: cid.DagCBOR, MhType: mh.BLAKE2B_MIN + 31}.Sum(data)
}

// account is keyed by its actor id, and found by its key address.
type account struct {
	ID      uint64
	Key     address.Address
	Balance abi.TokenAmount
	Seq     uint64
}

func (a *account) fields() []wire.Field {
	return []wire.Field{wire.Uint("id", &a.ID), wire.Address("key", &a.Key), wire.Amount("balance", &a.Balance), wire.Uint("seq", &a.Seq)}
}

// channel is a payment channel; epochs are never negative here.
type channel struct {
	ID              uint64
	Address         address.Address
	From, To        address.Address
	Balance, ToSend abi.TokenAmount
	SettlingAt      uint64
	MinSettleHeight uint64
	OpenedAt        uint64
	Collected       bool
	Lanes           uint64
}

func (c *channel) fields() []wire.Field {
	return []wire.Field{
		wire.Uint("id", &c.ID), wire.Address("address", &c.Address), wire.Address("from", &c.From), wire.Address("to", &c.To),
		wire.Amount("balance", &c.Balance), wire.Amount("toSend", &c.ToSend), wire.Uint("settlingAt", &c.SettlingAt),
		wire.Uint("minSettleHeight", &c.MinSettleHeight), wire.Uint("openedAt", &c.OpenedAt), wire.Bool("collected", &c.Collected),
		wire.Uint("lanes", &c.Lanes),
	}
}

type lane struct {
	Redeemed abi.TokenAmount
	Nonce    uint64
}

func (l *lane) fields() []wire.Field {
	return []wire.Field{wire.Amount("redeemed", &l.Redeemed), wire.Uint("nonce", &l.Nonce)}
}

// receipt is the stored outcome of a transaction.
type receipt struct {
	ExitCode uint64
	Message  string
	Epoch    uint64
	Position uint64
	Channel  address.Address
}

func (r *receipt) fields() []wire.Field {
	return []wire.Field{
		wire.Uint("exitCode", &r.ExitCode), wire.Text("message", &r.Message), wire.Uint("epoch", &r.Epoch), wire.Uint("position", &r.Position),
		wire.OptAddress("channel", &r.Channel),
	}
}

// redeemParams is the tuple (voucher, secret) of the chain's method.
type redeemParams struct{ paych.UpdateChannelStateParams }

func (p *redeemParams) encode() ([]byte, error) {
	var b bytes.Buffer
	err := p.MarshalCBOR(&b)
	return b.Bytes(), err
}
