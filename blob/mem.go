package blob

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"strings"
	"sync"
)

// pageSize is the unit in which a power loss keeps or loses what was not synced.
const pageSize = 4096

// Mem is a file system in memory that keeps apart what is on stable storage and what a power loss takes: the content of a file is durable
// after its Sync, a name after the SyncDir of its folder. It is for tests of crashes, and safe for concurrent use.
type Mem struct {
	mu      sync.Mutex
	names   map[string]*memNode // nil content is a folder
	durable map[string]*memNode
}

type memNode struct {
	folder  bool
	data    []byte
	durable []byte
	dirty   map[int64]bool // pages that were written since the last Sync
}

// NewMem returns an empty file system.
func NewMem() *Mem { return &Mem{names: map[string]*memNode{}, durable: map[string]*memNode{}} }

var _ FS = (*Mem)(nil)

func pathError(op, name string, err error) error { return &fs.PathError{Op: op, Path: name, Err: err} }

// file finds a file; mu is held.
func (m *Mem) file(op, name string) (*memNode, error) {
	n := m.names[filepath.Clean(name)]
	switch {
	case n == nil:
		return nil, pathError(op, name, fs.ErrNotExist)
	case n.folder:
		return nil, pathError(op, name, fs.ErrInvalid)
	}
	return n, nil
}

// Create implements FS.
func (m *Mem) Create(name string, _ fs.FileMode) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = filepath.Clean(name)
	if m.names[name] != nil {
		return nil, pathError("create", name, fs.ErrExist)
	}
	if d := m.names[filepath.Dir(name)]; d == nil || !d.folder {
		return nil, pathError("create", name, fs.ErrNotExist)
	}
	n := &memNode{dirty: map[int64]bool{}}
	m.names[name] = n
	return &memFile{m: m, n: n, name: name, write: true}, nil
}

func (m *Mem) open(name string, write bool) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.file("open", name)
	if err != nil {
		return nil, err
	}
	return &memFile{m: m, n: n, name: name, write: write}, nil
}

// Open implements FS.
func (m *Mem) Open(name string) (File, error) { return m.open(name, false) }

// OpenRW implements FS.
func (m *Mem) OpenRW(name string) (File, error) { return m.open(name, true) }

// Rename implements FS.
func (m *Mem) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.file("rename", from)
	if err != nil {
		return err
	}
	delete(m.names, filepath.Clean(from))
	m.names[filepath.Clean(to)] = n
	return nil
}

// Link implements FS.
func (m *Mem) Link(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.file("link", from)
	if err != nil {
		return err
	}
	if m.names[filepath.Clean(to)] != nil {
		return pathError("link", to, fs.ErrExist)
	}
	m.names[filepath.Clean(to)] = n
	return nil
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = filepath.Clean(name)
	if m.names[name] == nil {
		return pathError("remove", name, fs.ErrNotExist)
	}
	delete(m.names, name)
	return nil
}

// RemoveAll implements FS.
func (m *Mem) RemoveAll(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = filepath.Clean(name)
	maps.DeleteFunc(m.names, func(k string, _ *memNode) bool { return k == name || strings.HasPrefix(k, name+"/") })
	return nil
}

// MkdirAll implements FS. A folder is durable at once: what is lost with one is lost with the names in it too.
func (m *Mem) MkdirAll(dir string, _ fs.FileMode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for d := filepath.Clean(dir); ; d = filepath.Dir(d) {
		if n := m.names[d]; n != nil && !n.folder {
			return pathError("mkdir", d, fs.ErrExist)
		} else if n == nil {
			n = &memNode{folder: true}
			m.names[d], m.durable[d] = n, n
		}
		if d == filepath.Dir(d) {
			return nil
		}
	}
}

// SyncDir implements FS.
func (m *Mem) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.syncNames(filepath.Clean(dir))
	return nil
}

// SyncTree implements FS.
func (m *Mem) SyncTree(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir = filepath.Clean(dir)
	for name, n := range m.names {
		if name != dir && !strings.HasPrefix(name, dir+"/") {
			continue
		}
		if n.folder {
			m.syncNames(name)
		} else {
			n.durable, n.dirty = append(n.durable[:0], n.data...), map[int64]bool{}
		}
	}
	return nil
}

// Symlink implements FS: there are none here.
func (m *Mem) Symlink(_, name string) error { return pathError("symlink", name, errors.ErrUnsupported) }

// SetAttributes implements FS: nothing here has any.
func (m *Mem) SetAttributes(name string, _ Attributes) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names[filepath.Clean(name)] == nil {
		return pathError("chmod", name, fs.ErrNotExist)
	}
	return nil
}

// syncNames makes the names in a folder durable; mu is held.
func (m *Mem) syncNames(dir string) {
	in := func(k string, _ *memNode) bool { return filepath.Dir(k) == dir }
	maps.DeleteFunc(m.durable, in)
	for k, n := range m.names {
		if in(k, n) {
			m.durable[k] = n
		}
	}
}

// PowerLoss takes what was not synced. keep is asked for each page of a file that was not, and once with page -1 for each folder whose names
// were not; what it answers true for survives all the same. nil keeps nothing. Open files must not be used any more.
func (m *Mem) PowerLoss(keep func(name string, page int64) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if keep != nil {
		for name, n := range maps.Clone(m.names) {
			if n.folder && keep(name, -1) {
				m.syncNames(name)
			}
		}
	}
	m.names = maps.Clone(m.durable)
	for name, n := range m.names {
		n.lose(name, keep)
	}
}

// lose takes the pages of a file that were not synced.
func (n *memNode) lose(name string, keep func(string, int64) bool) {
	if n.folder {
		return
	}
	old := n.data
	n.data = append([]byte(nil), n.durable...)
	for page := range n.dirty {
		if keep == nil || !keep(name, page) {
			continue
		}
		start, end := page*pageSize, min((page+1)*pageSize, int64(len(old)))
		if start < end {
			n.grow(end)
			copy(n.data[start:end], old[start:end])
		}
	}
	n.dirty = map[int64]bool{}
	n.durable = append([]byte(nil), n.data...)
}

// grow makes a file at least so long.
func (n *memNode) grow(size int64) {
	if more := size - int64(len(n.data)); more > 0 {
		n.data = append(n.data, make([]byte, more)...)
	}
}

// memFile is an open file of Mem.
type memFile struct {
	m     *Mem
	n     *memNode
	name  string
	write bool
	over  bool
}

func (f *memFile) usable(op string, write bool) error {
	if f.over {
		return pathError(op, f.name, fs.ErrClosed)
	}
	if write && !f.write {
		return pathError(op, f.name, fs.ErrPermission)
	}
	return nil
}

// ReadAt implements io.ReaderAt.
func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.usable("read", false); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, pathError("read", f.name, fs.ErrInvalid)
	}
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements io.WriterAt.
func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.usable("write", true); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, pathError("write", f.name, fs.ErrInvalid)
	}
	end := off + int64(len(p))
	f.n.grow(end)
	copy(f.n.data[off:], p)
	for page := off / pageSize; page*pageSize < end; page++ {
		f.n.dirty[page] = true
	}
	return len(p), nil
}

// Truncate implements File. The new length is durable with the next Sync.
func (f *memFile) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.usable("truncate", true); err != nil {
		return err
	}
	f.n.grow(size)
	f.n.data = f.n.data[:size:size]
	return nil
}

// Sync implements File.
func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.usable("sync", false); err != nil {
		return err
	}
	f.n.durable = append(f.n.durable[:0], f.n.data...)
	f.n.dirty = map[int64]bool{}
	return nil
}

// Size implements File.
func (f *memFile) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.usable("stat", false); err != nil {
		return 0, err
	}
	return int64(len(f.n.data)), nil
}

// Name implements File.
func (f *memFile) Name() string { return f.name }

// Close implements File.
func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.usable("close", false); err != nil {
		return err
	}
	f.over = true
	return nil
}
