package carstore

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-varint"

	"github.com/cartage-dev/cartage/internal/reason"
)

// Section is one block of a CAR with where it lies.
type section struct {
	cid     cid.Cid
	data    []byte
	start   int64 // of the length
	dataOff int64
}

// sections reads the sections between two offsets of a file. The data of a section is valid until the next one.
type sections struct {
	r   *bufio.Reader
	off int64
	end int64
	max uint64 // size of a block
	buf []byte
}

func newSections(f io.ReaderAt, from, to int64) *sections {
	return &sections{r: bufio.NewReaderSize(io.NewSectionReader(f, from, to-from), 1<<20), off: from, end: to, max: MaxBlock}
}

// nextSection returns io.EOF at the end and at a zero length, and an error for anything that is cut or too large.
func (s *sections) nextSection() (section, error) {
	var out section
	if s.off >= s.end {
		return out, io.EOF
	}
	n, err := varint.ReadUvarint(s.r)
	if err != nil {
		return out, unexpectedEOF(err)
	}
	if n == 0 {
		return out, io.EOF
	}
	lenSize := int64(varint.UvarintSize(n))
	if n > s.max+maxCid && n <= uint64(s.end-s.off) && s.end-s.off-int64(n) >= lenSize {
		return out, s.sectionTooLarge(n)
	}
	if n > s.max+maxCid || s.off+lenSize+int64(n) > s.end {
		return out, fmt.Errorf("section of %d bytes at offset %d does not fit: the file %w", n, s.off, ErrCut)
	}
	if int(n) > cap(s.buf) {
		s.buf = make([]byte, n)
	}
	buf := s.buf[:n]
	if _, err := io.ReadFull(s.r, buf); err != nil {
		return out, unexpectedEOF(err)
	}
	cl, c, err := cid.CidFromBytes(buf)
	if err != nil && startsHeader(buf) {
		return out, joinedError(s.off)
	}
	if err != nil {
		return out, fmt.Errorf("section at offset %d: the file %w: %w", s.off, ErrCut, err)
	}
	if cl > maxCid {
		return out, fmt.Errorf("section at offset %d: CID of %d bytes is above the limit of %d: the file %w", s.off, cl, maxCid, ErrCut)
	}
	if uint64(len(buf)-cl) > s.max {
		return out, TooLarge(c, uint64(len(buf)-cl))
	}
	out = section{c, buf[cl:], s.off, s.off + lenSize + int64(cl)}
	s.off += lenSize + int64(n)
	return out, nil
}

// sectionTooLarge names a block that is all there, and larger than is carried.
func (s *sections) sectionTooLarge(n uint64) error {
	head, _ := s.r.Peek(maxCid)
	cl, c, err := cid.CidFromBytes(head)
	if err != nil {
		return fmt.Errorf("section of %d bytes at offset %d: the file %w: %w", n, s.off, ErrCut, err)
	}
	return TooLarge(c, n-uint64(cl))
}

// TooLarge is the error of a block that is larger than MaxBlock.
func TooLarge(c cid.Cid, size uint64) error {
	return reason.BlockTooLarge.Errorf("block %s has %d bytes, the limit is %d", c, size, MaxBlock)
}

// ErrCut is what the bytes themselves show; any other error is one of reading them, which may pass.
var ErrCut = errors.New("is cut or lies")

func unexpectedEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, varint.ErrOverflow) || errors.Is(err, varint.ErrNotMinimal) {
		return fmt.Errorf("the file %w: %w", ErrCut, io.ErrUnexpectedEOF)
	}
	return err
}

// WriteSection writes one block as a section of a CAR.
func WriteSection(w io.Writer, c cid.Cid, data []byte) error {
	cb := c.Bytes()
	for _, part := range [][]byte{varint.ToUvarint(uint64(len(cb) + len(data))), cb, data} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}
