package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"iter"
	"slices"
	"sort"

	"github.com/cartage-dev/cartage/blob"
)

// An order file holds the records of one piece in the order of multihashes:
//
//	magic, entries (length of the multihash, multihash, offset, size, overhead), sparse table, footer
//
// The sparse table has the position of every 256th entry with its multihash; the footer the number of records, the bytes of their
// blocks, the position of the table and a checksum of everything before it. It is written aside, synced and renamed.
var orderMagic = []byte("cartage-order\x00\x01\n")

const (
	sparse    = 256
	footerLen = 8*3 + 4
)

// ErrBadOrder means that an order file is not what was written.
var ErrBadOrder = errors.New("order file is damaged: initialise the piece again")

// orderFile is an open order file.
type orderFile struct {
	f       blob.File
	records uint64
	bytes   uint64
	table   int64
	at      []int64
	first   [][]byte
	release func() // its place among those that are open
}

// writeOrder writes an order file from sorted entries.
func writeOrder(fsys blob.FS, name string, entries func(func([]byte) error) error) (Summary, error) {
	var sum Summary
	tmp := name + ".partial"
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return sum, err
	}
	f, err := fsys.Create(tmp, 0o600)
	if err != nil {
		return sum, err
	}
	crc := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	w := &buffered{w: io.MultiWriter(&blob.Appender{F: f}, crc)}
	var table []byte
	pos := uint64(len(orderMagic))
	err = w.write(orderMagic)
	if err == nil {
		err = entries(func(e []byte) error {
			if sum.Records%sparse == 0 {
				table = binary.BigEndian.AppendUint64(table, pos)
				table = append(append(table, byte(len(hashOf(e)))), hashOf(e)...)
			}
			r := decodeEntry(e)
			sum.Records++
			sum.Bytes += r.Size
			pos += uint64(len(e))
			return w.write(e)
		})
	}
	if err == nil {
		var foot []byte
		for _, v := range []uint64{sum.Records, sum.Bytes, pos} {
			foot = binary.BigEndian.AppendUint64(foot, v)
		}
		if err = w.write(slices.Concat(table, foot)); err == nil {
			err = w.flush()
		}
	}
	if err == nil {
		end := pos + uint64(len(table)) + footerLen - 4
		_, err = f.WriteAt(binary.BigEndian.AppendUint32(nil, crc.Sum32()), int64(end))
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return sum, errors.Join(err, fsys.RemoveAll(tmp))
	}
	return sum, blob.Publish(fsys, tmp, name)
}

// openOrder opens an order file and reads its sparse table. With check it reads all of it and compares the checksum.
func openOrder(fsys blob.FS, name string, check bool) (_ *orderFile, err error) {
	f, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrUnknownPiece, name)
	}
	if err != nil {
		return nil, err
	}
	o := &orderFile{f: f, release: func() {}}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
		}
	}()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size < int64(len(orderMagic)+footerLen) {
		return nil, ErrBadOrder
	}
	head := make([]byte, len(orderMagic))
	if _, err := f.ReadAt(head, 0); err != nil {
		return nil, err
	}
	if !bytes.Equal(head, orderMagic) {
		return nil, ErrBadOrder
	}
	foot := make([]byte, footerLen)
	if _, err := f.ReadAt(foot, size-footerLen); err != nil {
		return nil, err
	}
	o.records, o.bytes, o.table = binary.BigEndian.Uint64(foot), binary.BigEndian.Uint64(foot[8:]), int64(binary.BigEndian.Uint64(foot[16:]))
	if o.table < int64(len(orderMagic)) || o.table > size-footerLen {
		return nil, ErrBadOrder
	}
	if check {
		if err := checksum(f, size, binary.BigEndian.Uint32(foot[24:])); err != nil {
			return nil, err
		}
	}
	return o, o.readTable(size)
}

func checksum(f blob.File, size int64, want uint32) error {
	crc := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	if _, err := io.CopyBuffer(struct{ io.Writer }{crc}, io.NewSectionReader(f, 0, size-4), make([]byte, 1<<20)); err != nil {
		return err
	}
	if crc.Sum32() != want {
		return ErrBadOrder
	}
	return nil
}

func (o *orderFile) readTable(size int64) error {
	table := make([]byte, size-footerLen-o.table)
	if _, err := o.f.ReadAt(table, o.table); err != nil {
		return err
	}
	for len(table) > 0 {
		if len(table) < 9 || len(table) < 9+int(table[8]) {
			return ErrBadOrder
		}
		pos := int64(binary.BigEndian.Uint64(table))
		if pos < int64(len(orderMagic)) || pos >= o.table {
			return ErrBadOrder
		}
		n := 9 + int(table[8])
		o.at, o.first = append(o.at, pos), append(o.first, table[9:n])
		table = table[n:]
	}
	return nil
}

// entries yields the entries from the first whose multihash is not below from. An entry is valid until the next.
func (o *orderFile) entries(from []byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		if len(o.at) == 0 {
			return
		}
		i := sort.Search(len(o.first), func(i int) bool { return bytes.Compare(o.first[i], from) > 0 })
		start := o.at[max(i-1, 0)]
		r := &run{r: io.NewSectionReader(o.f, start, o.table-start), buf: make([]byte, 0, 64<<10)}
		for {
			if err := r.next(); err != nil {
				yield(nil, err)
				return
			}
			if r.head == nil {
				return
			}
			if bytes.Compare(hashOf(r.head), from) < 0 {
				continue
			}
			if !yield(r.head, nil) {
				return
			}
		}
	}
}

func (o *orderFile) Close() error {
	defer o.release()
	return o.f.Close()
}
