package blob

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// ErrLocked means that another process, or another part of this one, holds a lock.
var ErrLocked = errors.New("locked by another")

// Lock is a lock file that one holder has at a time, over all processes of the machine. It ends with its holder, however that ends, and the
// file that a killed holder leaves behind is no lock. It carries a note, which the next holder finds if the last one could not remove it.
type Lock struct {
	f    *os.File
	name string
}

// maxNote bounds what is read of a lock file.
const maxNote = 4096

// TryLock takes the lock with a file name without waiting; it answers ErrLocked while somebody has it.
func TryLock(name string) (*Lock, error) {
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|noFollow, 0o600)
		if err != nil {
			return nil, err
		}
		if err := lockFile(f); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		same, err := stillNamed(f, name)
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if same {
			return &Lock{f, name}, nil
		}
		// The last holder removed the file between our open and our lock: that lock keeps nobody out.
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
}

// stillNamed reports whether an open file is the one that has the name.
func stillNamed(f *os.File, name string) (bool, error) {
	mine, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(mine, named), err
}

// Note is what the last holder wrote that did not release the lock.
func (l *Lock) Note() (string, error) {
	data, err := io.ReadAll(io.NewSectionReader(l.f, 0, maxNote))
	return string(data), err
}

// SetNote replaces the note.
func (l *Lock) SetNote(text string) error {
	if len(text) > maxNote {
		return fmt.Errorf("a note of %d bytes is above the limit of %d", len(text), maxNote)
	}
	if err := l.f.Truncate(0); err != nil {
		return err
	}
	_, err := l.f.WriteAt([]byte(text), 0)
	return err
}

// Release removes the file and ends the lock.
func (l *Lock) Release() error { return errors.Join(os.Remove(l.name), l.f.Close()) }

// Leave ends the lock and keeps the file with its note for the next holder.
func (l *Lock) Leave() error { return l.f.Close() }
