package ledger

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/ipfs/go-cid"
	"golang.org/x/crypto/blake2b"

	"github.com/cartage-dev/cartage/internal/store"
)

// epochSize and hashSize are the parts of a log entry in front of the CID.
const (
	epochSize = 8
	hashSize  = blake2b.Size256
)

// Verify checks the log from its first entry to its last: the chain of hashes is unbroken, every transaction is there as it
// was signed, and applied again from the beginning they make exactly the stored state (I11). The error names the first
// position that is wrong.
func (l *Ledger) Verify() error {
	m, err := newView(l.kv).meta()
	if err != nil {
		return err
	}
	replay, err := store.OpenMemoryKV()
	if err != nil {
		return err
	}
	defer replay.Close()
	r := &rebuild{l: &Ledger{kv: replay, net: l.net, operator: l.operator}, from: l.kv, hash: make([]byte, hashSize)}
	for pos := range m.Position {
		if err := r.step(pos); err != nil {
			return fmt.Errorf("log position %d: %w", pos, err)
		}
	}
	if !bytes.Equal(r.hash, m.Hash) {
		return fmt.Errorf("log position %d: the head does not follow from the log", m.Position)
	}
	return r.compare()
}

// rebuild applies the log of one store to another.
type rebuild struct {
	l     *Ledger
	from  *store.KV
	hash  []byte
	epoch uint64
}

func (r *rebuild) step(pos uint64) error {
	entry, err := r.from.Get([]byte(keyLog + u64(pos)))
	if err != nil {
		return err
	}
	if len(entry) <= epochSize+hashSize {
		return fmt.Errorf("entry of %d bytes is missing or cut", len(entry))
	}
	id := entry[epochSize+hashSize:]
	epoch := binary.BigEndian.Uint64(entry)
	want := linkHash(r.hash, id, epoch)
	if !bytes.Equal(want, entry[epochSize:epochSize+hashSize]) {
		return fmt.Errorf("hash does not follow from the entry before")
	}
	if epoch < r.epoch {
		return fmt.Errorf("epoch %d is before %d", epoch, r.epoch)
	}
	r.hash, r.epoch = want, epoch
	data, err := r.from.Get([]byte(keyTx + string(id)))
	if err != nil {
		return err
	}
	c, err := txCid(data)
	if err != nil {
		return err
	}
	if !bytes.Equal(c.Bytes(), id) {
		return fmt.Errorf("the transaction is not the one of the log")
	}
	return r.apply(c, data, epoch)
}

func (r *rebuild) apply(c cid.Cid, data []byte, epoch uint64) error {
	t, err := DecodeTx(data)
	if err != nil {
		return err
	}
	if err := t.verify(); err != nil {
		return err
	}
	v := newView(r.l.kv)
	if err := r.l.one(v, &submission{tx: t, data: data, cid: c}, epoch); err != nil {
		return err
	}
	return v.commit(false)
}

// compare tells the first key in which the rebuilt state differs from the stored one.
func (r *rebuild) compare() error {
	for _, prefix := range []string{keyMeta, keyAccount, keyAddress, keyChannel, keyLane, keyReceipt, keyIntent} {
		if err := same(prefix, r.from, r.l.kv); err != nil {
			return err
		}
		if err := same(prefix, r.l.kv, r.from); err != nil {
			return err
		}
	}
	return nil
}

func same(prefix string, a, b *store.KV) error {
	var bad error
	err := a.Scan([]byte(prefix), func(key, value []byte) bool {
		other, err := b.Get(key)
		switch {
		case err != nil:
			bad = err
		case !bytes.Equal(value, other):
			bad = fmt.Errorf("record %q is not what the log makes of it", key)
		}
		return bad == nil
	})
	if err != nil {
		return err
	}
	return bad
}
