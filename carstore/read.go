package carstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/multiformats/go-varint"

	"github.com/cartage-dev/cartage/internal/reason"
)

// maxHeader bounds a CARv1 header.
const maxHeader = 1 << 20

// Layout says where the CARv1 lies in a CAR file of version 1 or 2.
type Layout struct {
	Version int
	Offset  int64 // of the CARv1 in the file
	Size    int64 // of the CARv1; for version 1 up to the end of the file
	Roots   []cid.Cid
	Header  int64 // size of the CARv1 header with its length
}

// Inspect reads the headers of a CAR file. Indexes in the file are not believed.
func Inspect(f io.ReaderAt, size int64) (Layout, error) {
	l := Layout{Version: 1, Size: size}
	head := make([]byte, dataOffset)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return l, err
	}
	if n >= pragmaSize && bytes.Equal(head[:pragmaSize], pragma) {
		if n < dataOffset {
			return l, reason.NotAnArchive.Errorf("not a CAR: a CARv2 header is cut")
		}
		l.Version = 2
		off, sz := binary.LittleEndian.Uint64(head[pragmaSize+16:]), binary.LittleEndian.Uint64(head[pragmaSize+24:])
		if off < dataOffset || sz == 0 || off > uint64(size) || sz > uint64(size)-off {
			return l, reason.NotAnArchive.Errorf("not a CAR: CARv2 header says data of %d bytes at %d, the file has %d", sz, off, size)
		}
		l.Offset, l.Size = int64(off), int64(sz)
	}
	roots, hlen, err := readV1Header(io.NewSectionReader(f, l.Offset, l.Size))
	if err != nil {
		return l, reason.NotAnArchive.Errorf("not a CAR: %w", err)
	}
	l.Roots, l.Header = roots, hlen
	return l, nil
}

func readV1Header(r *io.SectionReader) ([]cid.Cid, int64, error) {
	var lenBuf [10]byte
	k, err := r.ReadAt(lenBuf[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	}
	n, used, err := varint.FromUvarint(lenBuf[:k])
	if err != nil {
		return nil, 0, fmt.Errorf("header length: %w", err)
	}
	if n == 0 || n > maxHeader || int64(n)+int64(used) > r.Size() {
		return nil, 0, fmt.Errorf("header of %d bytes does not fit", n)
	}
	buf := make([]byte, n)
	if _, err := r.ReadAt(buf, int64(used)); err != nil {
		return nil, 0, err
	}
	b := basicnode.Prototype.Map.NewBuilder()
	if err := dagcbor.Decode(b, bytes.NewReader(buf)); err != nil {
		return nil, 0, errors.New("it does not begin with the header of an archive")
	}
	roots, err := headerRoots(b.Build())
	return roots, int64(used) + int64(n), err
}

func headerRoots(n datamodel.Node) ([]cid.Cid, error) {
	v, err := n.LookupByString("version")
	if err != nil {
		return nil, err
	}
	if ver, err := v.AsInt(); err != nil || ver != 1 {
		return nil, fmt.Errorf("version %d, want 1", ver)
	}
	list, err := n.LookupByString("roots")
	if err != nil {
		return nil, err
	}
	var out []cid.Cid
	for it := list.ListIterator(); it != nil && !it.Done(); {
		_, r, err := it.Next()
		if err != nil {
			return nil, err
		}
		l, err := r.AsLink()
		if err != nil {
			return nil, err
		}
		cl, ok := l.(cidlink.Link)
		if !ok {
			return nil, fmt.Errorf("root of type %T", l)
		}
		out = append(out, cl.Cid)
	}
	return out, nil
}

// Block is a block of a CAR with where its section starts in the CARv1.
type Block struct {
	Cid    cid.Cid
	Data   []byte // valid during the callback
	Offset int64
	// Section is the size of the section with its length.
	Section int64
}

// Walk reads every section of a CAR, checks each block against its CID, and calls f. It stops at a zero length, which is
// the padding of a piece.
func Walk(f io.ReaderAt, l Layout, fn func(Block) error) error {
	s := newSections(f, l.Offset+l.Header, l.Offset+l.Size)
	for {
		sec, err := s.nextSection()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := Verify(sec.cid, sec.data); err != nil {
			return fmt.Errorf("section at offset %d: %w", sec.start, err)
		}
		if err := fn(Block{sec.cid, sec.data, sec.start - l.Offset, s.off - sec.start}); err != nil {
			return err
		}
	}
}

// End is where the last section of a CARv1 ends, from its start: a piece holds what is before it. Only the heads of the sections are read.
func End(f io.ReaderAt, l Layout) (int64, error) {
	at, end := l.Offset+l.Header, l.Offset+l.Size
	head := make([]byte, varint.MaxLenUvarint63+maxCid)
	for at < end {
		part := head[:min(int64(len(head)), end-at)]
		if _, err := f.ReadAt(part, at); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		n, used, err := varint.FromUvarint(part)
		if err != nil {
			return 0, unexpectedEOF(io.ErrUnexpectedEOF)
		}
		if n == 0 {
			break
		}
		if n > uint64(end-at)-uint64(used) {
			return 0, fmt.Errorf("section of %d bytes at offset %d does not fit: the file %w", n, at, ErrCut)
		}
		if _, _, err := cid.CidFromBytes(part[used:]); err != nil {
			if startsHeader(part[used:]) {
				return 0, joinedError(at)
			}
			return 0, fmt.Errorf("section at offset %d: the file %w: %w", at, ErrCut, err)
		}
		at += int64(used) + int64(n)
	}
	return at - l.Offset, nil
}

// Batches is Walk, with copies of the blocks handed on in groups of at least size bytes, which may be kept.
func Batches(f io.ReaderAt, l Layout, size int, put func([]blocks.Block) error) error {
	var list []blocks.Block
	waiting := 0
	err := Walk(f, l, func(b Block) error {
		blk, err := blocks.NewBlockWithCid(bytes.Clone(b.Data), b.Cid)
		if err != nil {
			return err
		}
		list = append(list, blk)
		if waiting += len(b.Data); waiting < size {
			return nil
		}
		err, list, waiting = put(list), nil, 0
		return err
	})
	if err != nil || len(list) == 0 {
		return err
	}
	return put(list)
}

// ReadSection reads one section of which offset and size are known and returns its block bytes, checked against c.
func ReadSection(f io.ReaderAt, off, size int64, c cid.Cid) ([]byte, error) {
	return ReadSectionInto(nil, f, off, size, c)
}

// SectionHead is room for what stands before the data of a block in a section.
const SectionHead = 64

// ReadSectionInto is ReadSection into a buffer of the caller, if that is large enough.
func ReadSectionInto(buf []byte, f io.ReaderAt, off, size int64, c cid.Cid) ([]byte, error) {
	if size <= 0 {
		return nil, fmt.Errorf("section of %d bytes", size)
	}
	if size > MaxBlock+maxCid+10 {
		return nil, TooLarge(c, uint64(size))
	}
	if int64(cap(buf)) < size {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	if _, err := f.ReadAt(buf, off); err != nil {
		return nil, fmt.Errorf("read block %s: %w", c, err)
	}
	_, n, err := varint.FromUvarint(buf)
	if err != nil {
		return nil, err
	}
	cl, _, err := cid.CidFromBytes(buf[n:])
	if err != nil {
		return nil, fmt.Errorf("section of %s: %w", c, err)
	}
	data := buf[n+cl:]
	if len(data) > MaxBlock {
		return nil, TooLarge(c, uint64(len(data)))
	}
	return data, Verify(c, data)
}
