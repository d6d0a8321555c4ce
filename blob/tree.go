package blob

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Attributes are what a file has beside its content. What is nil stays as it is.
type Attributes struct {
	Mode  *fs.FileMode // permission bits only
	Mtime *time.Time
}

// Symlink implements FS.
func (OS) Symlink(target, name string) error { return os.Symlink(target, name) }

// SetAttributes implements FS.
func (OS) SetAttributes(name string, a Attributes) error {
	if a.Mode != nil {
		if err := os.Chmod(name, *a.Mode&fs.ModePerm); err != nil {
			return err
		}
	}
	if a.Mtime != nil {
		return os.Chtimes(name, time.Time{}, *a.Mtime)
	}
	return nil
}

// SyncTree implements FS: with one call for the whole file system where there is one, else file by file.
func (OS) SyncTree(dir string) error {
	if done, err := syncFilesystem(dir); done {
		return err
	}
	return syncEach(dir)
}

// syncWorkers is how many files are synced at once: a disk does several in the time of one.
const syncWorkers = 8

// syncEach syncs each file and each folder of a tree, and returns the first error.
func syncEach(dir string) error {
	names, failed := make(chan string), make(chan error, 1)
	var all sync.WaitGroup
	for range syncWorkers {
		all.Go(func() {
			for name := range names {
				if err := (OS{}).SyncDir(name); err != nil && !errors.Is(err, fs.ErrPermission) {
					select {
					case failed <- err:
					default:
					}
				}
			}
		})
	}
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err == nil && (e.IsDir() || e.Type().IsRegular()) {
			names <- name
		}
		return err
	})
	close(names)
	all.Wait()
	select {
	case first := <-failed:
		return errors.Join(err, first)
	default:
		return err
	}
}
