package imports

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
)

// SourceKind is what is wrong with a source.
type SourceKind string

// What can be wrong with a source (R-I3).
const (
	SourceMissing    SourceKind = "source missing"
	SourceChanged    SourceKind = "source changed"
	SourceUnreadable SourceKind = "source unreadable"
)

// SourceError says that a block cannot be read out of the file that was imported.
type SourceError struct {
	Kind   SourceKind
	Import uint64
	Path   string
	Offset int64
	Err    error
}

// Error implements error.
func (e *SourceError) Error() string {
	return fmt.Sprintf("%s: %s offset %d (import %d): %v", e.Kind, e.Path, e.Offset, e.Import, e.Err)
}

// Unwrap returns the cause.
func (e *SourceError) Unwrap() error { return e.Err }

// opened is what the views of an import share.
type opened struct {
	fs    blob.FS
	id    uint64
	root  cid.Cid
	nodes *carstore.Store // nil if there are none
	refs  *refs

	views   int     // guarded by the manager, as dropped is
	dropped *Import // its files go with the last view

	mu    sync.Mutex
	files map[int]blob.File
}

// View reads the blocks of an import until it is closed; closing it twice is harmless. It is safe for concurrent use.
type View struct {
	o    *opened
	m    *Manager // nil if it shares nothing
	once sync.Once
}

// Root is the root of the import.
func (v *View) Root() cid.Cid { return v.o.root }

// Get reads a block and checks its hash. A block that cannot be read out of its file is a *SourceError.
func (v *View) Get(c cid.Cid) ([]byte, error) {
	if data, ok := carstore.Inlined(c); ok {
		return data, nil
	}
	o := v.o
	if o.nodes != nil {
		if _, ok := o.nodes.Size(c); ok {
			b, err := o.nodes.Get(c)
			if err != nil {
				return nil, err
			}
			return b.RawData(), nil
		}
	}
	var last error
	for _, r := range o.refs.findRows(c.Hash()) {
		data, err := o.readBlock(c, r)
		if err == nil {
			return data, nil
		}
		last = err
	}
	if last == nil {
		last = fmt.Errorf("%w: %s is not in import %d", carstore.ErrNotFound, c, o.id)
	}
	return nil, last
}

func (o *opened) readBlock(c cid.Cid, r row) ([]byte, error) {
	bad := func(kind SourceKind, err error) error {
		return &SourceError{Kind: kind, Import: o.id, Path: o.refs.sources[r.source].path, Offset: r.offset, Err: err}
	}
	f, keep, err := o.sourceFile(r.source)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, bad(SourceMissing, err)
	case err != nil:
		return nil, bad(SourceUnreadable, err)
	}
	if !keep {
		defer f.Close()
	}
	data := make([]byte, r.size)
	switch _, err := f.ReadAt(data, r.offset); {
	case errors.Is(err, io.EOF):
		return nil, bad(SourceChanged, errors.New("the file is shorter than it was"))
	case err != nil:
		return nil, bad(SourceUnreadable, err)
	}
	if err := carstore.Verify(c, data); err != nil {
		return nil, bad(SourceChanged, err)
	}
	return data, nil
}

// maxFiles is how many sources of one import stay open; others are opened for each block.
const maxFiles = 64

// sourceFile opens a source; keep says that it stays open.
func (o *opened) sourceFile(n int) (f blob.File, keep bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if f := o.files[n]; f != nil {
		return f, true, nil
	}
	if f, err = o.fs.Open(o.refs.sources[n].path); err != nil {
		return nil, false, err
	}
	if keep = len(o.files) < maxFiles; keep {
		o.files[n] = f
	}
	return f, keep, nil
}

// LinkSystem reads the blocks of the import.
func (v *View) LinkSystem() ipld.LinkSystem { return carstore.Links(v.Get) }

// Close gives the view back; the last one closes the files.
func (v *View) Close() (err error) {
	v.once.Do(func() {
		if v.m == nil {
			err = v.o.closeFiles()
		} else {
			err = v.m.returnOpened(v.o)
		}
	})
	return err
}

func (o *opened) closeFiles() error {
	var errs []error
	for _, f := range o.files {
		errs = append(errs, f.Close())
	}
	if o.nodes != nil {
		errs = append(errs, o.nodes.Close())
	}
	return errors.Join(errs...)
}
