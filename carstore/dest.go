package carstore

import (
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/internal/reason"
)

// ErrExists means that something is at the place where the export should go.
var ErrExists = errors.New("already exists")

// Dest is a place that was claimed for an export: nobody else of this machine writes there until it is released. What is written goes aside
// under a name of its own and is renamed when it is complete. A Dest is for one goroutine.
type Dest struct {
	fs    blob.FS
	path  string
	force bool
	lock  *blob.Lock
	tmp   string
}

// ClaimDest tells before anything is spent whether an export could go to a path, and keeps the path for it: whoever claims it before it is
// released is refused with reason.OutputBusy. An existing file is replaced only with force, anything else that exists never.
func ClaimDest(fsys blob.FS, path string, force bool) (*Dest, error) {
	fsys = blob.Or(fsys)
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := checkFree(path, force); err != nil {
		return nil, err
	}
	dir := filepath.Dir(path)
	st, err := os.Stat(dir)
	if err != nil {
		return nil, cannotWrite(path, err)
	}
	if !st.IsDir() {
		return nil, cannotWrite(path, fmt.Errorf("%s is not a folder", dir))
	}
	lock, err := blob.TryLock(siblingPath(path, "lock"))
	if errors.Is(err, blob.ErrLocked) {
		return nil, reason.OutputBusy.Errorf("%s is being written by another retrieval", path)
	}
	if err != nil {
		return nil, cannotWrite(path, err)
	}
	d := &Dest{fs: fsys, path: path, force: force, lock: lock}
	if err := d.prepareFolder(); err != nil {
		return nil, errors.Join(cannotWrite(path, err), lock.Release())
	}
	if err := checkFree(path, force); err != nil { // somebody may have finished since the first look
		return nil, errors.Join(err, lock.Release())
	}
	return d, nil
}

func cannotWrite(path string, err error) error {
	return fmt.Errorf("cannot write to %s: %w", path, err)
}

// checkFree tells whether an export may go to a path as far as what is there now is concerned.
func checkFree(path string, force bool) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return cannotWrite(path, err)
	case !force:
		return reason.OutputExists.Errorf("%s %w", path, ErrExists)
	case !st.Mode().IsRegular():
		return reason.OutputExists.Errorf("%s %w and is not a regular file: --force replaces files only", path, ErrExists).WithHint("Name another place with -o.")
	}
	return nil
}

// prepareFolder removes what a killed holder left behind, and notes what this one will leave if it is killed. The note is no trusted input: only
// a name that we could have given is removed.
func (d *Dest) prepareFolder() error {
	left, err := d.lock.Note()
	if err != nil {
		return err
	}
	ours := filepath.Base(siblingPath(d.path, "partial-"))
	if strings.HasPrefix(left, ours) && !strings.ContainsAny(left, "/\\\x00") {
		if err := d.fs.RemoveAll(filepath.Join(filepath.Dir(d.path), left)); err != nil {
			return err
		}
	}
	d.tmp = siblingPath(d.path, "partial-"+rand.Text()[:10])
	return d.lock.SetNote(filepath.Base(d.tmp))
}

// Path is where the export goes.
func (d *Dest) Path() string { return d.path }

// Release gives the place back. What was written stays; what could not be removed is left for the next claim to remove.
func (d *Dest) Release() error {
	if _, err := os.Lstat(d.tmp); err == nil {
		return d.lock.Leave()
	}
	return d.lock.Release()
}

// longestName is how much of a name is used in the names beside it: file systems take 255 bytes.
const longestName = 160

// siblingPath is the name of something of ours next to a path: always the same for the same path.
func siblingPath(path, what string) string {
	name := filepath.Base(path)
	if len(name) > longestName {
		h := sha256.Sum256([]byte(name))
		name = name[:longestName/2] + hex.EncodeToString(h[:16])
	}
	return filepath.Join(filepath.Dir(path), "."+name+".cartage-"+what)
}

// WriteFile writes a file: it is complete and synced when it appears under its name.
func (d *Dest) WriteFile(f func(io.Writer) error) error {
	return d.writeAside(func(tmp string) error { return writeSynced(d.fs, tmp, 0o644, f) })
}

// writeAside lets f write under the temporary name and renames the complete, durable result into place.
func (d *Dest) writeAside(f func(tmp string) error) error {
	err := f(d.tmp)
	if err == nil {
		err = checkFree(d.path, d.force)
	}
	if st, serr := os.Stat(d.tmp); err == nil && serr == nil && st.IsDir() && d.force {
		err = d.fs.RemoveAll(d.path) // a file, which a folder cannot be renamed over
	}
	if err == nil {
		err = blob.Publish(d.fs, d.tmp, d.path)
	}
	if err != nil {
		return errors.Join(err, d.fs.RemoveAll(d.tmp))
	}
	return nil
}

// WriteAside claims a path, writes a file there and releases it.
func WriteAside(fsys blob.FS, path string, force bool, f func(io.Writer) error) error {
	d, err := ClaimDest(fsys, path, force)
	if err != nil {
		return err
	}
	return errors.Join(d.WriteFile(f), d.Release())
}

// WriteNew makes a new file of a home, for its owner alone, with what f writes, durable with its name. It is for names that nobody else can want and that are removed at the
// next start if they were not finished: nothing is written aside.
func WriteNew(fsys blob.FS, path string, f func(io.Writer) error) error {
	fsys = blob.Or(fsys)
	err := writeSynced(fsys, path, 0o600, f)
	if err == nil {
		err = fsys.SyncDir(filepath.Dir(path))
	}
	return err
}

// writeSynced makes a new file with what f writes, synced.
func writeSynced(fsys blob.FS, name string, mode fs.FileMode, f func(io.Writer) error) error {
	out, err := fsys.Create(name, mode)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(&blob.Appender{F: out}, 1<<20)
	err = f(w)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}
