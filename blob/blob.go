// Package blob is the seam through which the product writes files: pieces, retrieved CARs, imports, keys and
// exports. A wrapper of FS can fail, tear or crash the n-th operation (internal/faults).
package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// File is an open file that is read and written at offsets. It is safe for concurrent reads.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Sync() error
	Size() (int64, error)
	Name() string
}

// FS creates, opens and renames files. All paths are of the host's file system.
type FS interface {
	// Create makes a new file for writing and fails if it exists.
	Create(name string, mode fs.FileMode) (File, error)
	// Open opens a file for reading.
	Open(name string) (File, error)
	// OpenRW opens an existing file for reading and writing.
	OpenRW(name string) (File, error)
	Rename(from, to string) error
	// Link gives a file a second name on the same file system.
	Link(from, to string) error
	Remove(name string) error
	// RemoveAll removes a file or a folder with everything in it; nothing there is success.
	RemoveAll(name string) error
	MkdirAll(dir string, mode fs.FileMode) error
	// SyncDir makes created, renamed and removed names of a folder durable.
	SyncDir(dir string) error
	// SyncTree makes a folder durable with everything below it.
	SyncTree(dir string) error
	// Symlink makes a symbolic link and fails if there is something with its name.
	Symlink(target, name string) error
	// SetAttributes changes what a file or folder has beside its content.
	SetAttributes(name string, a Attributes) error
}

// Or is fsys, or the file system of the host where a caller gives none.
func Or(fsys FS) FS {
	if fsys == nil {
		return OS{}
	}
	return fsys
}

// OS is the file system of the host.
type OS struct{}

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func open(name string, flag int, mode fs.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag, mode)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Create implements FS.
func (OS) Create(name string, mode fs.FileMode) (File, error) {
	return open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
}

// Open implements FS.
func (OS) Open(name string) (File, error) { return open(name, os.O_RDONLY, 0) }

// OpenRW implements FS.
func (OS) OpenRW(name string) (File, error) { return open(name, os.O_RDWR, 0) }

// Rename implements FS.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Link implements FS.
func (OS) Link(from, to string) error { return os.Link(from, to) }

// Remove implements FS.
func (OS) Remove(name string) error { return os.Remove(name) }

// RemoveAll implements FS.
func (OS) RemoveAll(name string) error { return os.RemoveAll(name) }

// MkdirAll implements FS.
func (OS) MkdirAll(dir string, mode fs.FileMode) error { return os.MkdirAll(dir, mode) }

// SyncDir implements FS.
func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// WriteFile writes a file aside, syncs it and renames it into place, so that a reader sees the old or the new
// content and a crash leaves no half file under the name.
func WriteFile(fsys FS, name string, data []byte, mode fs.FileMode) error {
	tmp := name + ".tmp"
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := fsys.Create(tmp, mode)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, errors.Join(err, fsys.Remove(tmp)))
	}
	return Publish(fsys, tmp, name)
}

// Publish renames a complete, synced file into place and syncs the folder.
func Publish(fsys FS, tmp, name string) error {
	if err := fsys.Rename(tmp, name); err != nil {
		return err
	}
	return fsys.SyncDir(filepath.Dir(name))
}

// Clone gives the content of a file a second name: by a link, or as a copy where there can be none. A link is one file with two names: what
// is written to one of them later is in both. It is durable when it returns.
func Clone(ctx context.Context, fsys FS, from, to string) error {
	real, err := filepath.EvalSymlinks(from) // a link to a link would break with it
	if err != nil {
		return err
	}
	if err := fsys.Link(real, to); err != nil {
		if err := copyFile(ctx, fsys, real, to); err != nil {
			return err
		}
		return fsys.SyncDir(filepath.Dir(to))
	}
	f, err := fsys.OpenRW(to)
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	} else if errors.Is(err, fs.ErrPermission) {
		err = nil // a file that cannot be written was not written just now
	}
	return errors.Join(err, fsys.SyncDir(filepath.Dir(to)))
}

func copyFile(ctx context.Context, fsys FS, from, to string) error {
	in, err := fsys.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	size, err := in.Size()
	if err != nil {
		return err
	}
	out, err := fsys.Create(to, 0o600)
	if err != nil {
		return err
	}
	r, w := io.NewSectionReader(in, 0, size), &Appender{F: out}
	for err == nil && w.Off < size {
		if err = ctx.Err(); err == nil {
			_, err = io.CopyN(w, r, min(8<<20, size-w.Off))
		}
	}
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// Appender is an io.Writer that writes to the end of a File.
type Appender struct {
	F   File
	Off int64
}

// Write implements io.Writer.
func (a *Appender) Write(p []byte) (int, error) {
	n, err := a.F.WriteAt(p, a.Off)
	a.Off += int64(n)
	return n, err
}
