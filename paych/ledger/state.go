package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"golang.org/x/crypto/blake2b"

	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/internal/wire"
)

// Prefixes of the keys. Numbers in keys are big-endian.
const (
	keyNetwork  = "n"
	keyMeta     = "m"
	keyAccount  = "a" // id -> account
	keyAddress  = "k" // key address -> id
	keyChannel  = "c" // robust address -> channel
	keyLane     = "l" // robust address, lane -> lane
	keyTx       = "t" // cid -> signed bytes
	keyReceipt  = "r" // cid -> receipt
	keyIntent   = "i" // from, intent -> cid
	keyLog      = "g" // position -> cid, epoch, hash
	keyProvider = "p" // owner -> record
	keyClock    = "e" // the highest epoch that was marked
	keyJump     = "j" // there if the clock has jumped ahead and nobody has confirmed it
)

// meta is what every batch updates.
type meta struct {
	NextID   uint64
	Position uint64
	Hash     []byte
	Epoch    uint64 // high-water mark of the clock
	Minted   abi.TokenAmount
}

func (m *meta) fields() []wire.Field {
	return []wire.Field{wire.Uint("nextID", &m.NextID), wire.Uint("position", &m.Position), wire.Bytes("hash", &m.Hash, 32),
		wire.Uint("epoch", &m.Epoch), wire.Amount("minted", &m.Minted)}
}

// view is a batch of changes over the store, or over the view below it: what was written in it is read back from it.
type view struct {
	kv      *store.KV
	below   *view
	changed map[string][]byte
}

func newView(kv *store.KV) *view { return &view{kv: kv, changed: map[string][]byte{}} }

func (v *view) get(key string) ([]byte, error) {
	if b, ok := v.changed[key]; ok {
		return b, nil
	}
	if v.below != nil {
		return v.below.get(key)
	}
	return v.kv.Get([]byte(key))
}

func (v *view) put(key string, fields []wire.Field) error {
	b, err := wire.EncodeTuple(fields)
	if err != nil {
		return err
	}
	v.changed[key] = b
	return nil
}

// child starts a view whose changes are kept only when it is merged.
func (v *view) child() *view {
	c := newView(v.kv)
	c.below = v
	return c
}

// merge moves the changes into the view below.
func (v *view) merge() { maps.Copy(v.below.changed, v.changed) }

func (v *view) commit(sync bool) error {
	b := v.kv.NewBatch()
	for k, val := range v.changed {
		b.Set([]byte(k), val)
	}
	return b.Commit(sync)
}

func u64(n uint64) string { return string(binary.BigEndian.AppendUint64(nil, n)) }

func (v *view) meta() (*meta, error) {
	m := &meta{NextID: 1000, Minted: big.Zero(), Hash: make([]byte, 32)}
	b, err := v.get(keyMeta)
	if err != nil || b == nil {
		return m, err
	}
	return m, wire.DecodeTuple(b, "meta", m.fields())
}

// account returns the account of a key address, which is made when make is set.
func (v *view) account(key address.Address, make bool, m *meta) (*account, error) {
	id, err := v.get(keyAddress + string(key.Bytes()))
	if err != nil {
		return nil, err
	}
	if id == nil {
		if !make {
			return nil, nil
		}
		if p := key.Protocol(); p != address.SECP256K1 && p != address.BLS {
			return nil, fmt.Errorf("account %s must be a key address (f1 or f3)", key)
		}
		a := &account{ID: m.NextID, Key: key, Balance: big.Zero()}
		m.NextID++
		v.changed[keyAddress+string(key.Bytes())] = []byte(u64(a.ID))
		return a, v.put(keyAccount+u64(a.ID), a.fields())
	}
	return v.accountByID(binary.BigEndian.Uint64(id))
}

func (v *view) accountByID(id uint64) (*account, error) {
	b, err := v.get(keyAccount + u64(id))
	if err != nil || b == nil {
		return nil, errors.Join(err, fmt.Errorf("account %d is missing", id))
	}
	a := &account{}
	return a, wire.DecodeTuple(b, "account", a.fields())
}

func (v *view) putAccount(a *account) error { return v.put(keyAccount+u64(a.ID), a.fields()) }

func (v *view) channel(addr address.Address) (*channel, error) {
	b, err := v.get(keyChannel + string(addr.Bytes()))
	if err != nil || b == nil {
		return nil, err
	}
	c := &channel{}
	return c, wire.DecodeTuple(b, "channel", c.fields())
}

func (v *view) putChannel(c *channel) error {
	return v.put(keyChannel+string(c.Address.Bytes()), c.fields())
}

func (v *view) lane(ch address.Address, n uint64) (*lane, error) {
	b, err := v.get(keyLane + string(ch.Bytes()) + u64(n))
	if err != nil || b == nil {
		return nil, err
	}
	l := &lane{}
	return l, wire.DecodeTuple(b, "lane", l.fields())
}

func (v *view) putLane(ch address.Address, n uint64, l *lane) error {
	return v.put(keyLane+string(ch.Bytes())+u64(n), l.fields())
}

func (v *view) receipt(c string) (*receipt, error) {
	b, err := v.get(keyReceipt + c)
	if err != nil || b == nil {
		return nil, err
	}
	r := &receipt{}
	return r, wire.DecodeTuple(b, "receipt", r.fields())
}

// append adds a log entry: its hash covers the one before it (I11).
func (v *view) append(m *meta, cid []byte, epoch uint64) {
	m.Hash = linkHash(m.Hash, cid, epoch)
	v.changed[keyLog+u64(m.Position)] = append(append([]byte(u64(epoch)), m.Hash...), cid...)
	m.Position++
}

func linkHash(prev, cid []byte, epoch uint64) []byte {
	h := blake2b.Sum256(append(append(append([]byte(nil), prev...), cid...), u64(epoch)...))
	return h[:]
}
