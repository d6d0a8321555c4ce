package store

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-datastore"
)

// OpenReading opens a record store on a disk that takes no writes: what is there is read, what is written stays in memory and is gone at
// Close. The folder stays as it is.
func OpenReading(dir string) (datastore.Batching, error) {
	e, err := openDir(dir, openOptions{shadow: true})
	if err != nil {
		return nil, err
	}
	return newRecords(e, nil), nil
}

// OpenKVReading is OpenReading for raw keys.
func OpenKVReading(dir string) (*KV, error) {
	e, err := openDir(dir, openOptions{shadow: true, maxFiles: kvFiles})
	if err != nil {
		return nil, err
	}
	return &KV{engine: e}, nil
}

// shadowFS is a file system in memory over another one that it only reads: a file that is opened for writing is copied first. The engine
// makes new files and removes old ones; it changes none but the small file of the proof. It is safe for concurrent use.
type shadowFS struct {
	vfs.FS // in memory
	below  vfs.FS

	mu   sync.Mutex
	here map[string]bool // true: in memory; false: removed
}

func newShadow(below vfs.FS) *shadowFS {
	return &shadowFS{FS: vfs.NewMem(), below: below, here: map[string]bool{}}
}

// placeOf says where a file is.
func (s *shadowFS) placeOf(name string) (vfs.FS, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch here, known := s.here[name]; {
	case here:
		return s.FS, nil
	case known:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return s.below, nil
}

func (s *shadowFS) setPlace(name string, here bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.here[name] = here
}

// Create implements vfs.FS.
func (s *shadowFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := s.FS.MkdirAll(s.FS.PathDir(name), 0o700); err != nil {
		return nil, err
	}
	s.setPlace(name, true)
	return s.FS.Create(name, c)
}

// Open implements vfs.FS.
func (s *shadowFS) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	at, err := s.placeOf(name)
	if err != nil {
		return nil, err
	}
	return at.Open(name, o...)
}

// OpenReadWrite implements vfs.FS.
func (s *shadowFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	if err := s.liftFile(name, c); err != nil {
		return nil, err
	}
	return s.FS.OpenReadWrite(name, c, o...)
}

// liftFile copies a file into memory.
func (s *shadowFS) liftFile(name string, c vfs.DiskWriteCategory) error {
	at, err := s.placeOf(name)
	if err != nil || at == s.FS {
		return err
	}
	data, err := os.ReadFile(name)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	f, err := s.Create(name, c)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Close()
}

// OpenDir implements vfs.FS: what is synced is in memory.
func (s *shadowFS) OpenDir(name string) (vfs.File, error) {
	if err := s.FS.MkdirAll(name, 0o700); err != nil {
		return nil, err
	}
	return s.FS.OpenDir(name)
}

// Remove implements vfs.FS.
func (s *shadowFS) Remove(name string) error {
	at, err := s.placeOf(name)
	if err != nil {
		return err
	}
	s.setPlace(name, false)
	if at == s.FS {
		return s.FS.Remove(name)
	}
	return nil
}

// RemoveAll implements vfs.FS.
func (s *shadowFS) RemoveAll(name string) error { return s.Remove(name) }

// Rename implements vfs.FS.
func (s *shadowFS) Rename(from, to string) error {
	if err := s.liftFile(from, vfs.WriteCategoryUnspecified); err != nil {
		return err
	}
	s.setPlace(from, false)
	s.setPlace(to, true)
	return s.FS.Rename(from, to)
}

// ReuseForWrite implements vfs.FS.
func (s *shadowFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := s.Remove(from); err != nil {
		return nil, err
	}
	return s.Create(to, c)
}

// Link implements vfs.FS.
func (s *shadowFS) Link(from, to string) error {
	return &os.LinkError{Op: "link", Old: from, New: to, Err: fmt.Errorf("a disk that is only read: %w", fs.ErrPermission)}
}

// List implements vfs.FS.
func (s *shadowFS) List(dir string) ([]string, error) {
	names, err := s.below.List(dir)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	names = slices.DeleteFunc(names, func(n string) bool { _, known := s.here[s.FS.PathJoin(dir, n)]; return known })
	for name, here := range s.here {
		if here && s.FS.PathDir(name) == dir {
			names = append(names, s.FS.PathBase(name))
		}
	}
	return names, nil
}

// Stat implements vfs.FS.
func (s *shadowFS) Stat(name string) (vfs.FileInfo, error) {
	at, err := s.placeOf(name)
	if err != nil {
		return nil, err
	}
	return at.Stat(name)
}

// GetDiskUsage implements vfs.FS.
func (s *shadowFS) GetDiskUsage(path string) (vfs.DiskUsage, error) {
	return s.below.GetDiskUsage(path)
}

// Unwrap implements vfs.FS.
func (s *shadowFS) Unwrap() vfs.FS { return s.below }
