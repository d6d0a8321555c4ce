package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Tables are sorted keys on their way into a KV: written to files of its own, then taken in as they are, all at once and durably. It
// costs neither log nor memory, and is for keys that come in order. It is for one goroutine.
type Tables struct {
	kv    *KV
	files []string
	w     *sstable.Writer
	n     int64
}

const (
	tableSize    = 64 << 20 // how large one file may grow
	tablePattern = "table-*.loading"
)

// dropTables removes what an interrupted load left.
func (kv *KV) dropTables() error {
	files, err := os.ReadDir(kv.dir)
	for _, f := range files {
		if ok, _ := filepath.Match(tablePattern, f.Name()); ok {
			err = errors.Join(err, os.Remove(filepath.Join(kv.dir, f.Name())))
		}
	}
	return err
}

// tableOptions are how tables are written that the engine takes in.
func (kv *KV) tableOptions() sstable.WriterOptions {
	o := kv.pebbleOptions(vfs.Default)
	o.EnsureDefaults()
	return o.MakeWriterOptions(0, kv.db.TableFormat())
}

// NewTables starts loading. Ingest or Drop ends it. A KV in memory has no tables.
func (kv *KV) NewTables() (*Tables, error) {
	if kv.room == nil {
		return nil, errors.New("keys in memory cannot be loaded as tables")
	}
	return &Tables{kv: kv}, nil
}

// Set adds a key, which must be above all before it.
func (t *Tables) Set(key, value []byte) error {
	if t.w != nil && t.n > tableSize {
		if err := t.finishTable(); err != nil {
			return err
		}
	}
	if t.w == nil {
		if err := t.beginTable(); err != nil {
			return err
		}
	}
	t.n += int64(len(key) + len(value))
	return t.w.Set(key, value)
}

func (t *Tables) beginTable() error {
	f, err := os.CreateTemp(t.kv.dir, tablePattern)
	if err != nil {
		return err
	}
	t.files, t.n = append(t.files, f.Name()), 0
	if err := f.Close(); err != nil {
		return err
	}
	out, err := vfs.Default.Create(f.Name(), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	t.w = sstable.NewWriter(objstorageprovider.NewFileWritable(out), t.kv.tableOptions())
	return nil
}

func (t *Tables) finishTable() error {
	err := t.w.Close()
	t.w = nil
	return err
}

// Ingest makes all keys visible and durable.
func (t *Tables) Ingest(ctx context.Context) error {
	if t.w != nil {
		if err := t.finishTable(); err != nil {
			return errors.Join(err, t.Drop())
		}
	}
	if len(t.files) == 0 {
		return nil
	}
	if err := t.kv.writeChecked(); err != nil {
		return errors.Join(err, t.Drop())
	}
	if err := t.kv.runGuarded(func() error { return t.kv.db.Ingest(ctx, t.files) }); err != nil {
		return errors.Join(err, t.Drop())
	}
	return t.kv.commitBatch(t.kv.db.NewBatch(), true) // with a proof that they are listed
}

// Drop gives everything up.
func (t *Tables) Drop() error {
	var errs []error
	if t.w != nil {
		errs = append(errs, t.finishTable())
	}
	for _, f := range t.files {
		errs = append(errs, os.Remove(f))
	}
	return errors.Join(errs...)
}
