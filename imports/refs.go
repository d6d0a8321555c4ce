package imports

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sort"

	mh "github.com/multiformats/go-multihash"
)

// A leaf table says where the blocks of an import lie that are not in its CAR: in the files that were imported. It is
//
//	magic, number of sources, sources (path, size, mtime in ns), number of rows, rows (multihash, source, offset, size), checksum
//
// with rows in the order of multihashes, numbers as varints and the checksum (CRC-32C) over everything before it.
var refsMagic = []byte("cartage-refs\x00\x02")

// source is a file that rows point into, as it was when it was read.
type source struct {
	path  string
	size  int64
	mtime int64
}

// row is where a block lies.
type row struct {
	hash   mh.Multihash
	source int
	offset int64
	size   int
}

// refs is a leaf table in memory.
type refs struct {
	sources []source
	rows    []row // sorted
}

// ErrBadRefs means that a leaf table is not what was written.
var ErrBadRefs = errors.New("leaf table is damaged: import the file again")

func (r *refs) encodeRefs() []byte {
	sort.SliceStable(r.rows, func(i, j int) bool { return bytes.Compare(r.rows[i].hash, r.rows[j].hash) < 0 })
	out := append([]byte(nil), refsMagic...)
	out = binary.AppendUvarint(out, uint64(len(r.sources)))
	for _, f := range r.sources {
		out = binary.AppendUvarint(out, uint64(len(f.path)))
		out = append(out, f.path...)
		out = binary.AppendVarint(binary.AppendVarint(out, f.size), f.mtime)
	}
	out = binary.AppendUvarint(out, uint64(len(r.rows)))
	for _, x := range r.rows {
		out = binary.AppendUvarint(out, uint64(len(x.hash)))
		out = append(out, x.hash...)
		out = binary.AppendUvarint(binary.AppendUvarint(binary.AppendUvarint(out, uint64(x.source)), uint64(x.offset)), uint64(x.size))
	}
	return binary.BigEndian.AppendUint32(out, crc32.Checksum(out, crc32.MakeTable(crc32.Castagnoli)))
}

// cursor reads the parts of a table; after an error it returns zeros.
type cursor struct {
	data []byte
	bad  bool
}

func (c *cursor) readNumber(limit uint64) uint64 {
	v, n := binary.Uvarint(c.data)
	if n <= 0 || v > limit {
		c.bad, c.data = true, nil
		return 0
	}
	c.data = c.data[n:]
	return v
}

func (c *cursor) readSigned() int64 {
	v, n := binary.Varint(c.data)
	if n <= 0 {
		c.bad, c.data = true, nil
		return 0
	}
	c.data = c.data[n:]
	return v
}

func (c *cursor) readBytes() []byte {
	n := c.readNumber(uint64(len(c.data)))
	out := c.data[:n:n]
	c.data = c.data[n:]
	return out
}

// decodeRefs reads a table. Counts in it are claims: nothing is allocated for what is not there.
func decodeRefs(data []byte) (*refs, error) {
	if len(data) < len(refsMagic)+4 || !bytes.HasPrefix(data, refsMagic) {
		return nil, fmt.Errorf("%w: it is no table of this version", ErrBadRefs)
	}
	body := data[:len(data)-4]
	if crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(data[len(body):]) {
		return nil, ErrBadRefs
	}
	c := &cursor{data: body[len(refsMagic):]}
	r := &refs{}
	for range c.readNumber(uint64(len(c.data))) {
		f := source{path: string(c.readBytes())}
		f.size, f.mtime = c.readSigned(), c.readSigned()
		r.sources = append(r.sources, f)
		if c.bad {
			return nil, ErrBadRefs
		}
	}
	for range c.readNumber(uint64(len(c.data))) {
		x := row{hash: c.readBytes()}
		x.source, x.offset, x.size = int(c.readNumber(1<<31)), int64(c.readNumber(1<<62)), int(c.readNumber(1<<31))
		if c.bad || x.source >= len(r.sources) {
			return nil, ErrBadRefs
		}
		r.rows = append(r.rows, x)
	}
	if c.bad || len(c.data) > 0 {
		return nil, ErrBadRefs
	}
	return r, nil
}

// findRows returns the rows of a multihash: the same bytes may lie in several places.
func (r *refs) findRows(hash mh.Multihash) []row {
	i := sort.Search(len(r.rows), func(i int) bool { return bytes.Compare(r.rows[i].hash, hash) >= 0 })
	j := i
	for j < len(r.rows) && bytes.Equal(r.rows[j].hash, hash) {
		j++
	}
	return r.rows[i:j]
}
