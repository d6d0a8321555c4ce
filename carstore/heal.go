package carstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"github.com/multiformats/go-varint"
)

// hole is where a section was that is damaged: from the start of the file.
type hole struct{ off, size int64 }

// scan reads the file from its start and rebuilds what is known about it. A section that is damaged is a block that is missing; what is whole
// behind it stays, and a complete file goes on growing until it is complete again.
func (s *Store) scan() error {
	size, err := s.f.Size()
	if err != nil {
		return err
	}
	head, ok, err := s.readHead()
	if err != nil || !ok {
		return err
	}
	end := size
	if n, whole := dataEnd(head, size); whole {
		s.final, end = true, n
	} else if s.fs == nil {
		return fmt.Errorf("its CARv2 header is damaged: the file %w", ErrCut)
	}
	first := int64(len(head))
	if err := s.scanSections(first, end); err != nil {
		return err
	}
	s.end = max(s.end, first)
	if s.final && len(s.holes) == 0 && s.end == end {
		return nil
	}
	if s.final { // only one that is written comes here
		s.final, s.settled = false, false
		if err := s.writeHeader(make([]byte, dataOffset-pragmaSize)); err != nil {
			return err
		}
	}
	if s.end < size {
		return s.f.Truncate(s.end)
	}
	return nil
}

// readHead reads what is in front of the sections, and mends it where it is torn or damaged: what has to be there is known.
func (s *Store) readHead() (head []byte, ok bool, err error) {
	h, err := V1Header(s.root)
	if err != nil {
		return nil, false, err
	}
	want := append(append(append([]byte(nil), pragma...), make([]byte, dataOffset-pragmaSize)...), h...)
	head = make([]byte, len(want))
	if n, err := s.f.ReadAt(head, 0); n < len(head) {
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, false, err
		}
		// Torn in its first write: nothing is lost by starting again.
		if err := s.f.Truncate(0); err != nil {
			return nil, false, err
		}
		return nil, false, s.writeHead()
	}
	copy(want[pragmaSize:dataOffset], head[pragmaSize:dataOffset])
	switch {
	case bytes.Equal(head, want):
		return head, true, nil
	case s.fs != nil && tornOff(head, want):
		// A power loss took the first page and left later ones, or the head was being written again.
		clear(want[pragmaSize:dataOffset])
	case s.fs == nil || flippedBits(head, want) > maxFlipped:
		return nil, false, fmt.Errorf("is not a CARv2 for root %s", s.root)
	}
	_, err = s.f.WriteAt(want, 0)
	return want, true, err
}

// maxFlipped is how many wrong bits of a head are damage; more of them are another file.
const maxFlipped = 8

func flippedBits(a, b []byte) (n int) {
	for i := range a {
		n += bits.OnesCount8(a[i] ^ b[i])
	}
	return n
}

// dataEnd is where the sections of a complete file end; false where the header is that of a growing file, or does not agree with itself.
func dataEnd(head []byte, size int64) (int64, bool) {
	field := func(i int) uint64 { return binary.LittleEndian.Uint64(head[pragmaSize+16+8*i:]) }
	end := dataOffset + field(1)
	if field(1) == 0 || end > uint64(size) {
		return 0, false
	}
	return int64(end), field(0) == dataOffset && field(2) == end && len(bytes.Trim(head[pragmaSize:pragmaSize+16], "\x00")) == 0
}

// scanSections takes up the whole sections between two offsets.
func (s *Store) scanSections(from, end int64) error {
	r := s.sectionsBetween(from, end)
	for {
		at := r.off
		sec, err := r.nextSection()
		if errors.Is(err, io.EOF) && at >= end {
			return nil
		}
		if err != nil && !errors.Is(err, ErrCut) && !errors.Is(err, io.EOF) {
			return err // not the file: a disk that cannot be read now may be later, and what is there was paid
		}
		if err == nil && sec.whole() {
			if k := hashString(sec.cid); s.index[k] == 0 {
				s.addLocation(k, location{sec.cid, sec.start - dataOffset, sec.dataOff, len(sec.data)})
			}
			s.end = sec.dataOff + int64(len(sec.data))
			continue
		}
		if s.fs == nil {
			return fmt.Errorf("section at %d: %w", at, errors.Join(err, ErrBadHash))
		}
		next := r.off
		if err != nil || !s.wholeAt(next, end) {
			if next, err = s.nextWhole(at+1, end); err != nil {
				return err
			}
		}
		if next < 0 && s.final && r.off == end {
			next = end // the last one
		}
		if next < 0 {
			return nil
		}
		s.holes = append(s.holes, hole{at, next - at})
		s.end = next
		if next == end {
			return nil
		}
		r = s.sectionsBetween(next, end)
	}
}

// sectionsBetween reads what this file holds, which may be larger than what is taken from others now.
func (s *Store) sectionsBetween(from, to int64) *sections {
	r := newSections(s.f, from, to)
	r.max = maxStored
	return r
}

// minDigest is how many bytes of a hash prove something: a wrong bit in the length of one leaves a hash that fits everything.
const minDigest = 16

// whole reports whether the data of a section is what its CID says.
func (s *section) whole() bool {
	p := s.cid.Prefix()
	return (p.MhType == mh.IDENTITY || p.MhLength >= minDigest) && Verify(s.cid, s.data) == nil
}

// wholeAt reports whether a section lies at an offset that is what its CID says.
func (s *Store) wholeAt(at, end int64) bool {
	r := s.sectionsBetween(at, end)
	sec, err := r.nextSection()
	return err == nil && sec.whole()
}

// nextWhole finds the next whole section behind a damaged one, which has at most the size of the largest; -1 where there is none.
func (s *Store) nextWhole(from, end int64) (int64, error) {
	window := make([]byte, min(end-from, maxStored+2*maxCid))
	if len(window) == 0 {
		return -1, nil
	}
	n, err := s.f.ReadAt(window, from)
	if err != nil && !errors.Is(err, io.EOF) {
		return -1, err
	}
	window = window[:n]
	for i := range window {
		if likelySection(window[i:]) && s.wholeAt(from+int64(i), end) {
			return from + int64(i), nil
		}
	}
	return -1, nil
}

// likelySection reports whether bytes begin with a length and a CID of a usual kind: what is not is not hashed.
func likelySection(b []byte) bool {
	n, used, err := varint.FromUvarint(b[:min(len(b), 5)])
	if err != nil || n == 0 || n > maxStored+maxCid {
		return false
	}
	b = b[used:]
	if len(b) >= 2 && b[0] == mh.SHA2_256 && b[1] == 32 {
		return true // version 0
	}
	if len(b) < 4 || b[0] != 1 {
		return false
	}
	_, c, err := cid.CidFromBytes(b[:min(len(b), maxCid)])
	return err == nil && c.Prefix().MhLength >= minDigest
}

// fillHole puts a block into a hole that it fits exactly: it is the one that was there, or as good. mu is held.
func (s *Store) fillHole(c cid.Cid, data []byte) (bool, error) {
	n := uint64(c.ByteLen() + len(data))
	for i, h := range s.holes {
		if h.size != int64(varint.UvarintSize(n))+int64(n) {
			continue
		}
		section := append(append(varint.ToUvarint(n), c.Bytes()...), data...)
		if _, err := s.f.WriteAt(section, h.off); err != nil {
			return false, fmt.Errorf("write block %s: %w", c, err)
		}
		s.holes = append(s.holes[:i], s.holes[i+1:]...)
		s.addLocation(hashString(c), location{c, h.off - dataOffset, h.off + h.size - int64(len(data)), len(data)})
		s.unsynced += h.size
		return true, nil
	}
	return false, nil
}

// closeHoles makes blocks of the bytes that lie in holes, which no link leads to: so that the file can be read from its start to its end.
// mu is held.
func (s *Store) closeHoles() error {
	for _, h := range s.holes {
		section, err := fillerSection(h.size)
		if err != nil {
			return err
		}
		if _, err := s.f.WriteAt(section, h.off); err != nil {
			return err
		}
	}
	s.holes = nil
	return nil
}

// fillerSection is a section of a size.
func fillerSection(size int64) ([]byte, error) {
	for n := max(0, size-6); n < size; n++ { // the length takes as many bytes as it takes
		if int64(varint.UvarintSize(uint64(n)))+n != size {
			continue
		}
		b := cid.V1Builder{Codec: cid.Raw, MhType: mh.SHA2_256}
		c, err := b.Sum(nil)
		if err != nil || n < int64(c.ByteLen()) {
			break
		}
		data := make([]byte, n-int64(c.ByteLen()))
		if c, err = b.Sum(data); err != nil {
			return nil, err
		}
		return append(append(varint.ToUvarint(uint64(n)), c.Bytes()...), data...), nil
	}
	return nil, fmt.Errorf("a damaged section of %d bytes is too small to be closed: the file %w", size, ErrCut)
}
