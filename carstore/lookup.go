package carstore

import (
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-varint"

	"github.com/cartage-dev/cartage/blob"
)

// Contents is where the blocks of a file of a Store lie, as the heads of its sections say. The file may be growing, or be damaged behind what
// was found: who reads a block checks it.
type Contents struct {
	at map[string]place
}

type place struct {
	off  int64 // of the section, from the start of the file
	size int32
}

// ReadContents reads the heads of the sections of a file, and none of its blocks. It ends, without an error, at what is no section. most bounds
// the number of blocks.
func ReadContents(f blob.File, most int) (*Contents, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	end := size
	head := make([]byte, dataOffset)
	if _, err := f.ReadAt(head, 0); err != nil {
		return nil, fmt.Errorf("its head: %w", err)
	}
	if n, whole := dataEnd(head, size); whole {
		end = n
	}
	_, hlen, err := readV1Header(io.NewSectionReader(f, dataOffset, size-dataOffset))
	if err != nil {
		return nil, err
	}
	c := &Contents{at: map[string]place{}}
	buf := make([]byte, varint.MaxLenUvarint63+maxCid)
	for at := dataOffset + hlen; at < end && len(c.at) < most; {
		part := buf[:min(int64(len(buf)), end-at)]
		if _, err := f.ReadAt(part, at); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		n, used, err := varint.FromUvarint(part)
		if err != nil || n == 0 || n > maxStored+maxCid || n > uint64(end-at)-uint64(used) {
			break
		}
		_, b, err := cid.CidFromBytes(part[used:])
		if err != nil {
			break
		}
		if k := hashString(b); c.at[k].size == 0 {
			c.at[k] = place{at, int32(used) + int32(n)}
		}
		at += int64(used) + int64(n)
	}
	return c, nil
}

// Has tells whether the file has a section of a block.
func (c *Contents) Has(b cid.Cid) bool { return c.at[hashString(b)].size > 0 }

// Len is how many blocks there are.
func (c *Contents) Len() int { return len(c.at) }

// Get reads a block out of the file and checks it; the error wraps ErrNotFound or ErrBadHash if it is not there.
func (c *Contents) Get(f io.ReaderAt, b cid.Cid) ([]byte, error) {
	p := c.at[hashString(b)]
	if p.size == 0 {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, b)
	}
	data, err := ReadSection(f, p.off, int64(p.size), b)
	if err != nil && !errors.Is(err, ErrBadHash) { // whatever is wrong with the file, the block is not in it
		err = fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return data, err
}
