package index

import (
	"bytes"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/cartage-dev/cartage/blob"
)

// Records are sorted in memory up to a limit; what is more goes into runs on disk, which are merged at the end.

const (
	maxHash = 255 // bytes of a multihash; those of real hash functions have at most 68
	tail    = 14  // bytes behind the multihash of an entry: offset (8), size (4), overhead (2)
	memory  = 96 << 20
)

// entry is a record as bytes that sort like it: the multihash, then the offset.
func appendEntry(b []byte, r Record) ([]byte, error) {
	if len(r.Multihash) == 0 || len(r.Multihash) > maxHash {
		return b, fmt.Errorf("a multihash of %d bytes cannot be indexed", len(r.Multihash))
	}
	if r.Size > math.MaxUint32 || r.Overhead > math.MaxUint16 {
		return b, fmt.Errorf("a block of %d bytes with %d around it cannot be indexed", r.Size, r.Overhead)
	}
	b = append(b, byte(len(r.Multihash)))
	b = append(b, r.Multihash...)
	b = binary.BigEndian.AppendUint64(b, r.Offset)
	b = binary.BigEndian.AppendUint32(b, uint32(r.Size))
	return binary.BigEndian.AppendUint16(b, uint16(r.Overhead)), nil
}

func decodeEntry(b []byte) Record {
	n := len(b) - tail
	return Record{Multihash: b[1:n], Offset: binary.BigEndian.Uint64(b[n:]), Size: uint64(binary.BigEndian.Uint32(b[n+8:])), Overhead: uint64(binary.BigEndian.Uint16(b[n+12:]))}
}

// hashOf is the multihash of an entry.
func hashOf(e []byte) []byte { return e[1 : len(e)-tail] }

func entrySize(first byte) int { return 1 + int(first) + tail }

// before orders entries by multihash and offset.
func before(a, b []byte) int {
	if c := bytes.Compare(hashOf(a), hashOf(b)); c != 0 {
		return c
	}
	return bytes.Compare(a[len(a)-tail:len(a)-tail+8], b[len(b)-tail:len(b)-tail+8])
}

// place is an entry in the arena with the start of its digest, which decides nearly every comparison.
type place struct {
	key uint64
	at  uint32
}

// sorter collects entries.
type sorter struct {
	fs    blob.FS
	name  string // of the runs, with a number behind
	limit int
	arena []byte
	order []place
	runs  []string
}

func (s *sorter) put(r Record) error {
	at := len(s.arena)
	var err error
	if s.arena, err = appendEntry(s.arena, r); err != nil {
		return err
	}
	s.order = append(s.order, place{prefix(s.arena[at+1 : len(s.arena)-tail]), uint32(at)})
	if len(s.arena)+16*len(s.order) >= s.limit {
		return s.spill()
	}
	return nil
}

// prefix is the first bytes of a multihash as a number.
func prefix(hash []byte) uint64 {
	var b [8]byte
	copy(b[:], hash)
	return binary.BigEndian.Uint64(b[:])
}

func (s *sorter) entry(p place) []byte {
	return s.arena[p.at : int(p.at)+entrySize(s.arena[p.at])]
}

func (s *sorter) sort() {
	slices.SortFunc(s.order, func(a, b place) int {
		switch {
		case a.key < b.key:
			return -1
		case a.key > b.key:
			return 1
		}
		return before(s.entry(a), s.entry(b))
	})
}

// spill writes what is in memory as a run.
func (s *sorter) spill() error {
	s.sort()
	name := fmt.Sprintf("%s.%d", s.name, len(s.runs))
	f, err := s.fs.Create(name, 0o600)
	if err != nil {
		return err
	}
	s.runs = append(s.runs, name)
	w := &buffered{w: &blob.Appender{F: f}}
	for _, p := range s.order {
		if err = w.write(s.entry(p)); err != nil {
			break
		}
	}
	if err == nil {
		err = w.flush()
	}
	s.arena, s.order = s.arena[:0], s.order[:0]
	return errors.Join(err, f.Close())
}

// buffered writes in large pieces.
type buffered struct {
	w   io.Writer
	buf []byte
}

func (b *buffered) write(p []byte) error {
	b.buf = append(b.buf, p...)
	if len(b.buf) < 1<<20 {
		return nil
	}
	return b.flush()
}

func (b *buffered) flush() error {
	_, err := b.w.Write(b.buf)
	b.buf = b.buf[:0]
	return err
}

// merged calls f with every entry in order, the first of each multihash only. Runs are removed by clean.
func (s *sorter) merged(f func(entry []byte) error) error {
	if len(s.runs) == 0 {
		s.sort()
		var last []byte
		for _, p := range s.order {
			e := s.entry(p)
			if last != nil && bytes.Equal(hashOf(last), hashOf(e)) {
				continue
			}
			last = e
			if err := f(e); err != nil {
				return err
			}
		}
		return nil
	}
	if len(s.order) > 0 {
		if err := s.spill(); err != nil {
			return err
		}
	}
	s.arena, s.order = nil, nil
	return mergeRuns(s.fs, s.runs, f)
}

// clean removes the runs.
func (s *sorter) clean() error {
	var errs []error
	for _, name := range s.runs {
		errs = append(errs, s.fs.RemoveAll(name))
	}
	return errors.Join(errs...)
}

// run reads the entries of a file, one ahead.
type run struct {
	f    blob.File
	r    *io.SectionReader
	buf  []byte
	at   int
	head []byte
	end  bool
}

// next moves head to the next entry; at the end head is nil.
func (r *run) next() error {
	for {
		rest := r.buf[r.at:]
		if len(rest) > 0 && len(rest) >= entrySize(rest[0]) {
			n := entrySize(rest[0])
			r.head, r.at = rest[:n], r.at+n
			return nil
		}
		if r.end {
			r.head = nil
			if len(rest) > 0 {
				return io.ErrUnexpectedEOF
			}
			return nil
		}
		keep := copy(r.buf[:cap(r.buf)], rest)
		n, err := io.ReadFull(r.r, r.buf[keep:cap(r.buf)])
		r.buf, r.at = r.buf[:keep+n], 0
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			r.end, err = true, nil
		}
		if err != nil {
			return err
		}
	}
}

type runs []*run

func (h runs) Len() int           { return len(h) }
func (h runs) Less(i, j int) bool { return before(h[i].head, h[j].head) < 0 }
func (h runs) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *runs) Push(x any)        { *h = append(*h, x.(*run)) }
func (h *runs) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

func mergeRuns(fsys blob.FS, names []string, f func([]byte) error) (err error) {
	var h runs
	var files []blob.File
	defer func() {
		for _, f := range files {
			err = errors.Join(err, f.Close())
		}
	}()
	for _, name := range names {
		file, err := fsys.Open(name)
		if err != nil {
			return err
		}
		files = append(files, file)
		size, err := file.Size()
		if err != nil {
			return err
		}
		r := &run{f: file, r: io.NewSectionReader(file, 0, size), buf: make([]byte, 0, 256<<10)}
		if err := r.next(); err != nil {
			return err
		}
		if r.head != nil {
			h = append(h, r)
		}
	}
	heap.Init(&h)
	last := make([]byte, 0, maxHash)
	for len(h) > 0 {
		e := h[0].head
		if !bytes.Equal(last, hashOf(e)) {
			last = append(last[:0], hashOf(e)...)
			if err := f(e); err != nil {
				return err
			}
		}
		if err := h[0].next(); err != nil {
			return err
		}
		if h[0].head == nil {
			heap.Pop(&h)
		} else {
			heap.Fix(&h, 0)
		}
	}
	return nil
}
