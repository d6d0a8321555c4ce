package store

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// KV is an ordered map of raw keys. It is safe for concurrent use.
type KV struct {
	*engine
	room *diskReserve // nil in memory
	step func() error
}

// BeforeWrite has f called before each batch and each load of tables; an error of it is theirs. It is a seam for faults, and set before the
// first of them.
func (kv *KV) BeforeWrite(f func() error) { kv.step = f }

func (kv *KV) writeChecked() error {
	if kv.step == nil {
		return nil
	}
	return kv.step()
}

// kvFiles is how many files raw keys have open: who keeps others beside them stays below 256 in all.
const kvFiles = 200

// OpenKV opens or creates raw keys in dir. What was committed with sync is there, or the error is reason.StateRolledBack.
func OpenKV(dir string) (*KV, error) {
	e, err := openDir(dir, openOptions{maxFiles: kvFiles})
	if err != nil {
		return nil, err
	}
	kv := &KV{engine: e, room: newDiskReserve(dir)}
	if err := kv.dropTables(); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", dir, err), e.closeDatabase())
	}
	return kv, nil
}

// OpenMemoryKV makes raw keys that live as long as the process, for tests.
func OpenMemoryKV() (*KV, error) {
	e, err := openEngine("mem", openOptions{fs: vfs.NewMem()})
	if err != nil {
		return nil, err
	}
	return &KV{engine: e}, nil
}

// Get returns a copy of the value, or nil when the key is absent.
func (kv *KV) Get(key []byte) ([]byte, error) { return kv.getValue(key) }

// Scan calls f for every key with the prefix, in order, until f returns false. The slices are valid during f only.
func (kv *KV) Scan(prefix []byte, f func(key, value []byte) bool) error {
	return kv.ScanFrom(prefix, prefix, f)
}

// ScanFrom is Scan that starts at the first key that is not below from.
func (kv *KV) ScanFrom(prefix, from []byte, f func(key, value []byte) bool) error {
	return kv.eachRecord(&pebble.IterOptions{LowerBound: from, UpperBound: prefixEnd(prefix)}, f)
}

func prefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		end[i]++
		if end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// Batch collects writes that are applied together.
type Batch struct {
	b    *pebble.Batch
	kv   *KV
	sets bool // what only deletes makes room
}

// NewBatch starts a batch.
func (kv *KV) NewBatch() *Batch { return &Batch{b: kv.db.NewBatch(), kv: kv} }

// Set stores a copy of key and value.
func (b *Batch) Set(key, value []byte) {
	b.sets = true
	_ = b.b.Set(key, value, nil)
}

// Delete removes a key.
func (b *Batch) Delete(key []byte) { _ = b.b.Delete(key, nil) }

// DeleteRange removes the keys from start up to but without end.
func (b *Batch) DeleteRange(start, end []byte) { _ = b.b.DeleteRange(start, end, nil) }

// Len is the size of the batch in bytes.
func (b *Batch) Len() int { return b.b.Len() }

// Commit applies the batch; with sync it returns after the batch is on stable storage. On a disk that is nearly full one that sets
// something is refused with ErrNoRoom, and nothing has changed.
func (b *Batch) Commit(sync bool) error {
	if b.sets {
		if err := b.kv.room.checkReserve(); err != nil {
			return errors.Join(err, b.b.Close())
		}
	}
	if err := b.kv.writeChecked(); err != nil {
		return errors.Join(err, b.b.Close())
	}
	return b.kv.commitBatch(b.b, sync)
}

// KVStats is how raw keys stand.
type KVStats struct {
	Bytes                          uint64 // on disk
	FilterRejections, FilterPasses int64  // look-ups of tables that a filter answered, and that it let through
}

// Stats tells how the keys stand.
func (kv *KV) Stats() KVStats {
	m := kv.db.Metrics()
	return KVStats{Bytes: m.DiskSpaceUsage(), FilterRejections: m.Filter.Hits, FilterPasses: m.Filter.Misses}
}

// Close closes the store.
func (kv *KV) Close() error { return kv.closeDatabase() }
