package store

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cartage-dev/cartage/internal/reason"
)

// The engine takes a damaged end of its log, and of its list of tables, for one that was never written: it opens, and what had been
// acknowledged is not there. So each synced commit carries a mark, and the last mark that was acknowledged is kept outside the engine, with a
// sum of the list of tables. Each start compares.

// markKey is the record of the last mark. It is below all keys of users.
const markKey = "\x00mark"

// mark is the number of a synced commit, and 16 bytes that no other history of the store has with that number.
type mark struct {
	seq uint64
	id  [16]byte
}

const markSize = 8 + 16

func (m mark) zero() bool { return m.seq == 0 }

func (m mark) next() mark {
	n := mark{seq: m.seq + 1}
	_, _ = rand.Read(n.id[:]) // never fails
	return n
}

func (m mark) append(b []byte) []byte {
	return append(binary.BigEndian.AppendUint64(b, m.seq), m.id[:]...)
}

func (m *mark) read(b []byte) error {
	if len(b) != markSize {
		return reason.StoreFailed.Errorf("the mark of the last commit has %d bytes, want %d", len(b), markSize)
	}
	m.seq = binary.BigEndian.Uint64(b)
	copy(m.id[:], b[8:])
	return nil
}

// proofName is the file beside the engine's. It has two slots that are written in turn, so that one that is being written at a power loss
// leaves the other.
const (
	proofName   = "acknowledged"
	proofMagic  = "cartage1"
	slotSpacing = 4096
	sumSize     = sha256.Size
	slotSize    = len(proofMagic) + markSize + 8 + 8 + sumSize + sumSize
)

// slot is what is known of the store at an acknowledged commit.
type slot struct {
	mark     mark
	manifest uint64 // number of the list of tables
	size     int64  // how much of it is covered by sum
	sum      [sumSize]byte
}

func (s *slot) encode() []byte {
	b := s.mark.append([]byte(proofMagic))
	b = binary.BigEndian.AppendUint64(b, s.manifest)
	b = binary.BigEndian.AppendUint64(b, uint64(s.size))
	b = append(b, s.sum[:]...)
	own := sha256.Sum256(b)
	return append(b, own[:]...)
}

// decode reports whether b is a slot that was written whole.
func (s *slot) decode(b []byte) bool {
	if len(b) != slotSize || !bytes.HasPrefix(b, []byte(proofMagic)) {
		return false
	}
	own := sha256.Sum256(b[:slotSize-sumSize])
	if !bytes.Equal(own[:], b[slotSize-sumSize:]) {
		return false
	}
	b = b[len(proofMagic):]
	if s.mark.read(b[:markSize]) != nil {
		return false
	}
	b = b[markSize:]
	s.manifest, s.size = binary.BigEndian.Uint64(b), int64(binary.BigEndian.Uint64(b[8:]))
	copy(s.sum[:], b[16:])
	return true
}

// proof is the opened file. It is safe for concurrent use.
type proof struct {
	fs       vfs.FS
	dir      string
	f        vfs.File // nil when there is none to be read
	readOnly bool
	found    bool // there was a file
	damaged  bool // none of its slots can be read

	unlisted atomic.Bool   // the list of tables may have grown
	changed  chan struct{} // holds one when it has

	wanted struct {
		sync.Mutex
		mark mark
	}
	mu      sync.Mutex
	written slot
	turn    int64
	list    hash.Hash // of the first listed bytes of the list of tables
	listed  int64
}

// openProof reads the file, and makes it where there is none.
func openProof(fsys vfs.FS, dir string, readOnly bool) (_ *proof, err error) {
	p := &proof{fs: fsys, dir: dir, readOnly: readOnly, list: sha256.New(), changed: make(chan struct{}, 1)}
	name := fsys.PathJoin(dir, proofName)
	_, err = fsys.Stat(name)
	p.found = err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	switch {
	case !readOnly:
		p.f, err = fsys.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	case p.found:
		p.f, err = fsys.Open(name)
	default:
		return p, nil
	}
	if err != nil {
		return nil, err
	}
	if !p.found {
		err = p.syncDir()
	}
	if err == nil {
		err = p.readSlots()
	}
	if err != nil {
		return nil, errors.Join(err, p.f.Close())
	}
	return p, nil
}

func (p *proof) syncDir() error {
	d, err := p.fs.OpenDir(p.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (p *proof) readSlots() error {
	valid, written := 0, false
	for i := range int64(2) {
		b := make([]byte, slotSize)
		n, err := p.f.ReadAt(b, i*slotSpacing)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		written = written || len(bytes.Trim(b[:n], "\x00")) > 0
		var s slot
		if !s.decode(b[:n]) {
			continue
		}
		valid++
		if s.mark.seq >= p.written.mark.seq {
			p.written, p.turn = s, 1-i
		}
	}
	p.damaged = valid == 0 && written
	p.found = p.found && (valid > 0 || written)
	return nil
}

// lostWrites is the sentence for what is missing.
func (p *proof) lostWrites(format string, args ...any) error {
	return reason.StateRolledBack.Errorf("store %s: %w", p.dir, fmt.Errorf(format, args...))
}

// checkLast compares the mark that the engine found with the last one that was acknowledged. The engine may be ahead: by what was not
// acknowledged any more.
func (p *proof) checkLast(last mark) error {
	acked := p.written.mark
	switch {
	case p.damaged:
		return p.lostWrites("its file %s is damaged, so that nothing proves that all is there", proofName)
	case !p.found && !last.zero():
		return p.lostWrites("its file %s is missing, so that nothing proves that all is there", proofName)
	case last.seq < acked.seq:
		return p.lostWrites("the last %d of %d acknowledged commits are missing: the end of its log is damaged, or an older copy was put in its place", acked.seq-last.seq, acked.seq)
	case last.seq == acked.seq && last.id != acked.id:
		return p.lostWrites("commit %d is not the one that was acknowledged: files of two copies were mixed", acked.seq)
	}
	return nil
}

// checkManifest compares the list of tables with its sum. It is called before the engine opens, which begins a new list.
func (p *proof) checkManifest() error {
	if !p.found || p.damaged || p.written.size == 0 {
		return nil
	}
	name, number, err := p.currentManifest()
	switch {
	case err != nil:
		return p.lostWrites("its list of tables cannot be found: %w", err)
	case number > p.written.manifest:
		return nil // begun just before a crash
	case number < p.written.manifest:
		return p.lostWrites("its list of tables is number %d, number %d was in use", number, p.written.manifest)
	}
	sum := sha256.New()
	n, err := p.hashManifest(name, sum, 0, p.written.size)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if n != p.written.size || !bytes.Equal(sum.Sum(nil), p.written.sum[:]) {
		return p.lostWrites("its list of tables %s is damaged", name)
	}
	return nil
}

// currentManifest is the list of tables that is in use.
func (p *proof) currentManifest() (name string, number uint64, err error) {
	desc, err := pebble.Peek(p.dir, p.fs)
	if err != nil {
		return "", 0, err
	}
	if !desc.Exists {
		return "", 0, fs.ErrNotExist
	}
	base := p.fs.PathBase(desc.ManifestFilename)
	_, err = fmt.Sscanf(base, "MANIFEST-%d", &number)
	return base, number, err
}

// hashManifest adds bytes from one offset to another to a sum, and says to where it came.
func (p *proof) hashManifest(name string, sum io.Writer, from, to int64) (int64, error) {
	f, err := p.fs.Open(p.fs.PathJoin(p.dir, name))
	if err != nil {
		return from, err
	}
	defer f.Close()
	if to < 0 { // all there is; what is covered must be durable
		st, err := f.Stat()
		if err == nil {
			err = f.Sync()
		}
		if err != nil {
			return from, err
		}
		to = st.Size()
	}
	n, err := io.CopyN(sum, io.NewSectionReader(f, from, to-from), to-from)
	return from + n, err
}

// markStale notes that the list of tables has changed.
func (p *proof) markStale() {
	if p == nil {
		return
	}
	p.unlisted.Store(true)
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// acknowledge makes durable that a commit and all before it are acknowledged. Calls at the same time share one write.
func (p *proof) acknowledge(m mark) error {
	p.wanted.Lock()
	if m.seq > p.wanted.mark.seq {
		p.wanted.mark = m
	}
	p.wanted.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.written.mark.seq >= m.seq {
		return nil
	}
	return p.writeSlot()
}

// renewMark writes a mark, and the sum of the list of tables, anew.
func (p *proof) renewMark(m mark) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unlisted.Store(true)
	if m.seq >= p.written.mark.seq {
		p.written.mark = m
	}
	return p.writeSlot()
}

// nextNumber is that of the mark that is written.
func (p *proof) nextNumber() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.written.mark.seq
}

// writeSlot writes the slot whose turn it is. mu is held.
func (p *proof) writeSlot() error {
	s := p.written
	p.wanted.Lock()
	if p.wanted.mark.seq > s.mark.seq {
		s.mark = p.wanted.mark
	}
	p.wanted.Unlock()
	if p.unlisted.Swap(false) {
		if err := p.sumManifest(&s); err != nil {
			p.unlisted.Store(true)
			return err
		}
	}
	if _, err := p.f.WriteAt(s.encode(), p.turn*slotSpacing); err != nil {
		return err
	}
	if err := p.f.SyncData(); err != nil {
		return err
	}
	p.written, p.turn = s, 1-p.turn
	return nil
}

// followWrites keeps the sum up to date while nothing is committed, until stop is closed.
func (p *proof) followWrites(stop <-chan struct{}, failed func(error)) {
	for {
		select {
		case <-stop:
			return
		case <-p.changed:
		}
		p.mu.Lock()
		var err error
		if p.unlisted.Load() {
			err = p.writeSlot()
		}
		p.mu.Unlock()
		if err != nil {
			failed(err)
		}
	}
}

// sumManifest brings the sum of the list of tables up to date.
func (p *proof) sumManifest(s *slot) error {
	name, number, err := p.currentManifest()
	if err != nil {
		return err
	}
	if number != s.manifest || p.listed != s.size {
		p.list.Reset()
		s.manifest, p.listed = number, 0
	}
	p.listed, err = p.hashManifest(name, p.list, p.listed, -1)
	s.size = p.listed
	p.list.Sum(s.sum[:0])
	return err
}

func (p *proof) closeFiles() error {
	if p.f == nil {
		return nil
	}
	return p.f.Close()
}
