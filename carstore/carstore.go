// Package carstore writes retrieved blocks into a CARv2 file that grows in place, and reads such files.
//
// While it grows, the file is a CARv2 whose header is still zero: pragma, 40 zero bytes, CARv1 header, sections. A
// killed process leaves at most one torn section at the end, which the next open cuts off; Finalize writes the index and
// then the header.
package carstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"sync"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-car/v2"
	"github.com/ipld/go-car/v2/index"
	"github.com/multiformats/go-multicodec"
	mh "github.com/multiformats/go-multihash"
	"github.com/multiformats/go-varint"
	cbg "github.com/whyrusleeping/cbor-gen"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/internal/limits"
)

// Sizes of the format and limits of what is read.
const (
	pragmaSize = 11
	dataOffset = pragmaSize + 40
	// MaxBlock is the largest block that is sold, sent, received, stored or read: one limit for archives, both transports and unsealing. What
	// surrounds a block in a message has to fit into 4 MiB with it.
	MaxBlock = limits.MaxBlock
	// maxStored is what files of earlier versions may hold.
	maxStored = 4 << 20
	maxCid    = 256
	// syncEvery bounds the bytes that a power loss can take.
	syncEvery = 8 << 20
)

var pragma = []byte{0x0a, 0xa1, 0x67, 'v', 'e', 'r', 's', 'i', 'o', 'n', 0x02}

var (
	// ErrNotFound means that the block is not in the file.
	ErrNotFound = errors.New("block is not in the CAR")
	// ErrInUse means that another writer has the file.
	ErrInUse = errors.New("CAR file is being written already")
	// ErrBadHash means that bytes are not what their CID says.
	ErrBadHash = errors.New("block does not match its CID")
)

type location struct {
	cid  cid.Cid
	off  int64 // of the section, from the start of the CARv1
	data int64 // of the block bytes, from the start of the file
	size int
}

// Store is one growing CARv2. It is safe for concurrent use; there is one writer for a file.
type Store struct {
	fs   blob.FS
	f    blob.File
	root cid.Cid

	mu       sync.RWMutex
	index    map[string]int32 // by multihash: the place in blocks, from 1
	blocks   []location       // in the order of the file
	end      int64            // of the file, where the next section goes
	unsynced int64
	bytes    uint64
	final    bool
	settled  bool   // final, and its name is durable
	holes    []hole // where damaged sections lie
	buf      []byte // sections that are in the index and not written yet, at the end; a write that failed is tried again with the next
}

// Open creates the file for root, or continues it: sections that are complete and match their CID stay, anything behind
// them is cut off. A block that is damaged is missing, also in a file that was complete, and can be put again.
func Open(fsys blob.FS, path string, root cid.Cid) (*Store, error) {
	fsys = blob.Or(fsys)
	f, err := fsys.OpenRW(path)
	if errors.Is(err, fs.ErrNotExist) {
		return createStore(fsys, path, root)
	}
	if err != nil {
		return nil, err
	}
	s := &Store{fs: fsys, f: f, root: root, index: map[string]int32{}}
	if err := s.scan(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return s, nil
}

func createStore(fsys blob.FS, path string, root cid.Cid) (*Store, error) {
	f, err := fsys.Create(path, 0o600)
	if err != nil {
		return nil, err
	}
	s := &Store{fs: fsys, f: f, root: root, index: map[string]int32{}}
	if err := s.writeHead(); err != nil {
		return nil, errors.Join(err, f.Close(), fsys.Remove(path))
	}
	return s, nil
}

func (s *Store) writeHead() error {
	h, err := V1Header(s.root)
	if err != nil {
		return err
	}
	head := append(append(append([]byte(nil), pragma...), make([]byte, dataOffset-pragmaSize)...), h...)
	if _, err := s.f.WriteAt(head, 0); err != nil {
		return err
	}
	s.end = int64(len(head))
	return nil
}

// V1Header is the CARv1 header with its length.
func V1Header(roots ...cid.Cid) ([]byte, error) {
	var b bytes.Buffer
	b.Write([]byte{0xa2, 0x65, 'r', 'o', 'o', 't', 's'})
	if err := cbg.WriteMajorTypeHeader(&b, cbg.MajArray, uint64(len(roots))); err != nil {
		return nil, err
	}
	for _, root := range roots {
		if err := cbg.WriteCid(&b, root); err != nil {
			return nil, err
		}
	}
	b.Write([]byte{0x67, 'v', 'e', 'r', 's', 'i', 'o', 'n', 0x01})
	return append(varint.ToUvarint(uint64(b.Len())), b.Bytes()...), nil
}

// tornOff reports whether p is the start of want and zeros from there on.
func tornOff(p, want []byte) bool {
	n := 0
	for n < len(p) && p[n] == want[n] {
		n++
	}
	return n < len(p) && len(bytes.Trim(p[n:], "\x00")) == 0
}

// Verify tells whether bytes are what a CID says; if not, the error wraps ErrBadHash.
func Verify(c cid.Cid, data []byte) error {
	got, err := c.Prefix().Sum(data)
	if err != nil {
		return err
	}
	if !got.Equals(c) {
		return fmt.Errorf("%w: %s", ErrBadHash, c)
	}
	return nil
}

func (s *Store) addLocation(k string, l location) {
	s.blocks = append(s.blocks, l)
	s.index[k] = int32(len(s.blocks))
	s.bytes += uint64(l.size)
}

// findLocation looks a block up; mu is held.
func (s *Store) findLocation(c cid.Cid) (l location, ok bool) {
	i := s.index[hashString(c)]
	if i == 0 {
		return l, false
	}
	return s.blocks[i-1], true
}

// Get reads a block.
func (s *Store) Get(c cid.Cid) (blocks.Block, error) {
	if data, ok := Inlined(c); ok {
		return blocks.NewBlockWithCid(data, c)
	}
	s.mu.RLock()
	l, ok := s.findLocation(c)
	late := ok && l.data+int64(l.size) > s.end-int64(len(s.buf))
	s.mu.RUnlock()
	if late {
		if err := s.flushGathered(); err != nil {
			return nil, err
		}
	}
	if !ok && Verify(c, nil) == nil {
		// An empty block is known from its CID alone, and graphsync does not carry it.
		if err := s.putEmptyBlock(c); err != nil {
			return nil, err
		}
		return blocks.NewBlockWithCid([]byte{}, c)
	}
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, c)
	}
	data := make([]byte, l.size)
	if _, err := s.f.ReadAt(data, l.data); err != nil {
		return nil, fmt.Errorf("read block %s: %w", c, err)
	}
	if err := Verify(c, data); err != nil {
		return nil, err
	}
	return blocks.NewBlockWithCid(data, c)
}

func (s *Store) putEmptyBlock(c cid.Cid) error {
	s.mu.RLock()
	final := s.final
	s.mu.RUnlock()
	if final {
		return nil
	}
	return s.Put(c, nil)
}

// Size returns the size of a block, and whether it is there.
func (s *Store) Size(c cid.Cid) (int, bool) {
	if c.Prefix().MhType == mh.IDENTITY {
		return c.Prefix().MhLength, true
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	l, ok := s.findLocation(c)
	return l.size, ok
}

// Len is the number of blocks, Bytes the sum of their sizes.
func (s *Store) Len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.index)
}

// Bytes is the sum of the sizes of all blocks.
func (s *Store) Bytes() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.bytes
}

// Root is the root in the header.
func (s *Store) Root() cid.Cid { return s.root }

// Finalize writes the index and then the header, both synced, and makes the name of the file durable: from then on it is a complete CARv2.
func (s *Store) Finalize() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.final {
		return s.settleHeader()
	}
	if err := errors.Join(s.writeGathered(), s.closeHoles()); err != nil {
		return err
	}
	records := make([]index.Record, 0, len(s.index))
	for _, l := range s.blocks {
		records = append(records, index.Record{Cid: l.cid, Offset: uint64(l.off)})
	}
	idx, err := index.New(multicodec.CarMultihashIndexSorted)
	if err != nil {
		return err
	}
	if err := idx.Load(records); err != nil {
		return err
	}
	if _, err := index.WriteTo(idx, &blob.Appender{F: s.f, Off: s.end}); err != nil {
		return err
	}
	if err := s.f.Sync(); err != nil {
		return err
	}
	h := car.NewHeader(uint64(s.end - dataOffset))
	h.DataOffset, h.IndexOffset = dataOffset, uint64(s.end)
	var b bytes.Buffer
	if _, err := h.WriteTo(&b); err != nil {
		return err
	}
	if err := s.writeHeader(b.Bytes()); err != nil {
		return err
	}
	s.final = true
	return s.settleHeader()
}

// Sync puts what is in the file, and its name, on stable storage.
func (s *Store) Sync() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.final {
		return s.settleHeader()
	}
	if err := s.writeGathered(); err != nil {
		return err
	}
	err := errors.Join(s.f.Sync(), s.fs.SyncDir(filepath.Dir(s.f.Name())))
	if err == nil {
		s.unsynced = 0
	}
	return err
}

// settleHeader makes the name of a file that is final durable: who wrote its header may have ended before. mu is held.
func (s *Store) settleHeader() error {
	if s.settled {
		return nil
	}
	err := errors.Join(s.f.Sync(), s.fs.SyncDir(filepath.Dir(s.f.Name())))
	s.settled = err == nil
	return err
}

// writeHeader writes the CARv2 header, zero while the file grows, and syncs.
func (s *Store) writeHeader(h []byte) error {
	if _, err := s.f.WriteAt(h, pragmaSize); err != nil {
		return err
	}
	return s.f.Sync()
}

// Final tells whether the file is a complete CARv2.
func (s *Store) Final() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.final
}

// DataSize is the size of the inner CARv1, as far as it is written.
func (s *Store) DataSize() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.end - int64(len(s.buf)) - dataOffset
}

// Payload reads the inner CARv1.
func (s *Store) Payload() *io.SectionReader {
	return io.NewSectionReader(s.f, dataOffset, s.DataSize())
}

// Close closes the file.
func (s *Store) Close() error { return errors.Join(s.flushGathered(), s.f.Close()) }

// OpenRead opens a complete file for reading; its root is the one in its header.
func OpenRead(path string) (*Store, error) {
	f, err := blob.OS{}.Open(path)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	l, err := Inspect(f, size)
	if err == nil && len(l.Roots) != 1 {
		err = fmt.Errorf("%s has %d roots", path, len(l.Roots))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s := &Store{f: f, root: l.Roots[0], index: map[string]int32{}, final: true}
	if err := s.scan(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}
