package index

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	mh "github.com/multiformats/go-multihash"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/internal/store"
)

// Embedded is the index of one machine: rows in Pebble, order files beside it. Rows are loaded as whole tables, so that an Add costs
// no read and no log, and appear all at once.
type Embedded struct {
	kv  *store.KV
	fs  blob.FS
	dir string
	// Memory is how much an Add sorts at once; more goes over the disk. Set it before use; 0 is 96 MiB.
	Memory int
	slots  chan struct{} // of order files that are open
}

// maxOrders is how many order files are open at once: with the tables of the rows fewer than 256 files (R-N1).
const maxOrders = 32

const keyRow = "b" // multihash, number of the piece -> offset, size, overhead

// Open opens the order files of dir with the rows in kv, and removes what an interrupted Add left. kv stays the caller's.
func Open(fsys blob.FS, dir string, kv *store.KV) (*Embedded, error) {
	fsys = blob.Or(fsys)
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	e := &Embedded{kv: kv, fs: fsys, dir: dir, slots: make(chan struct{}, maxOrders)}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".order") {
			err = errors.Join(err, fsys.RemoveAll(filepath.Join(dir, f.Name())))
		}
	}
	return e, err
}

func (e *Embedded) name(piece uint64) string {
	return filepath.Join(e.dir, strconv.FormatUint(piece, 10)+".order")
}

// order opens the order file of a piece, when there is a place for it.
func (e *Embedded) order(piece uint64, check bool) (*orderFile, error) {
	e.slots <- struct{}{}
	o, err := openOrder(e.fs, e.name(piece), check)
	if err != nil {
		<-e.slots
		return nil, err
	}
	o.release = func() { <-e.slots }
	return o, nil
}

func rowKey(hash []byte, piece uint64) []byte {
	k := make([]byte, 0, len(keyRow)+len(hash)+8)
	k = append(append(k, keyRow...), hash...)
	return binary.BigEndian.AppendUint64(k, piece)
}

func rowValue(r Record) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(binary.AppendUvarint(nil, r.Offset), r.Size), r.Overhead)
}

func decodeRow(hash, value []byte, piece uint64) (Row, error) {
	r := Row{Piece: piece, Record: Record{Multihash: hash}}
	for _, v := range []*uint64{&r.Offset, &r.Size, &r.Overhead} {
		x, n := binary.Uvarint(value)
		if n <= 0 {
			return r, fmt.Errorf("row of %x in piece %d is damaged", hash, piece)
		}
		*v, value = x, value[n:]
	}
	return r, nil
}

// Add implements Loader.
func (e *Embedded) Add(ctx context.Context, piece uint64, fill func(func(Record) error) error) (sum Summary, err error) {
	limit := e.Memory
	if limit == 0 {
		limit = memory
	}
	s := &sorter{fs: e.fs, name: e.name(piece) + ".run", limit: limit}
	defer func() { err = errors.Join(err, s.clean()) }()
	if err := fill(s.put); err != nil {
		return sum, err
	}
	if err := e.Remove(ctx, piece); err != nil {
		return sum, err
	}
	sum, err = writeOrder(e.fs, e.name(piece), func(f func([]byte) error) error {
		return s.merged(func(entry []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return f(entry)
		})
	})
	if err != nil {
		return sum, err
	}
	return sum, e.load(ctx, piece)
}

// load makes rows of an order file.
func (e *Embedded) load(ctx context.Context, piece uint64) (err error) {
	o, err := e.order(piece, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	t, err := e.kv.NewTables()
	if err != nil {
		return err
	}
	for entry, err := range o.entries(nil) {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			r := decodeEntry(entry)
			err = t.Set(rowKey(r.Multihash, piece), rowValue(r))
		}
		if err != nil {
			return errors.Join(err, t.Drop())
		}
	}
	return t.Ingest(ctx)
}

// Remove implements Loader.
func (e *Embedded) Remove(ctx context.Context, piece uint64) error {
	o, err := e.order(piece, true)
	if errors.Is(err, ErrUnknownPiece) {
		return nil
	}
	if errors.Is(err, ErrBadOrder) {
		return e.purge(ctx, piece)
	}
	if err != nil {
		return err
	}
	b := e.kv.NewBatch()
	for entry, err := range o.entries(nil) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return errors.Join(err, o.Close())
		}
		b.Delete(rowKey(hashOf(entry), piece))
		if b.Len() > 4<<20 {
			if err := b.Commit(false); err != nil {
				return errors.Join(err, o.Close())
			}
			b = e.kv.NewBatch()
		}
	}
	// The file goes last: until then the removal can be done again.
	if err := errors.Join(b.Commit(true), o.Close()); err != nil {
		return err
	}
	return errors.Join(e.fs.RemoveAll(e.name(piece)), e.fs.SyncDir(e.dir))
}

// purge removes the rows of a piece whose order file cannot be believed: it looks at all rows.
func (e *Embedded) purge(ctx context.Context, piece uint64) error {
	b, bad := e.kv.NewBatch(), error(nil)
	err := e.kv.Scan([]byte(keyRow), func(key, _ []byte) bool {
		if len(key) < 8 || binary.BigEndian.Uint64(key[len(key)-8:]) != piece {
			return true
		}
		b.Delete(append([]byte(nil), key...))
		if bad = ctx.Err(); bad == nil && b.Len() > 4<<20 {
			bad = b.Commit(false)
			b = e.kv.NewBatch()
		}
		return bad == nil
	})
	if err = errors.Join(err, bad, b.Commit(true)); err != nil {
		return err
	}
	return errors.Join(e.fs.RemoveAll(e.name(piece)), e.fs.SyncDir(e.dir))
}

// Find implements Finder.
func (e *Embedded) Find(_ context.Context, hash mh.Multihash) ([]Row, error) {
	prefix := append([]byte(keyRow), hash...)
	var out []Row
	var bad error
	err := e.kv.Scan(prefix, func(key, value []byte) bool {
		if len(key) != len(prefix)+8 {
			return true // a longer multihash with the same start
		}
		var r Row
		if r, bad = decodeRow(hash, value, binary.BigEndian.Uint64(key[len(prefix):])); bad == nil {
			out = append(out, r)
		}
		return bad == nil
	})
	return out, errors.Join(err, bad)
}

// Iterate implements Lister. The records of a damaged file end with an error; how far is right was checked by block hashes only.
func (e *Embedded) Iterate(ctx context.Context, piece uint64, from mh.Multihash) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		o, err := e.order(piece, false)
		if err != nil {
			yield(Record{}, err)
			return
		}
		defer o.Close()
		for entry, err := range o.entries(from) {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(Record{}, err)
				return
			}
			r := decodeEntry(entry)
			r.Multihash = append(mh.Multihash(nil), r.Multihash...)
			if !yield(r, nil) {
				return
			}
		}
	}
}

// Check reads the order file of a piece and compares its checksum (R-N18).
func (e *Embedded) Check(piece uint64) error {
	o, err := e.order(piece, true)
	if err != nil {
		return err
	}
	return o.Close()
}

// Close implements Index. The rows stay open: they are the caller's.
func (e *Embedded) Close() error { return nil }
