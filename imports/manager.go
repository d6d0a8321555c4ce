// Package imports is what a client has put into its node: files and folders as UnixFS DAGs without a copy, CARs where they lie, and
// streams; by id and labels (node spec 2.1). It also builds DAGs and writes them as CARs.
package imports

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/internal/store"
)

// Labels of an import, by the names that nodes have stored.
const (
	LabelSource   = "source"    // import, or import-local for a stream
	LabelRoot     = "root"      // CID
	LabelFilename = "filename"  // what was imported
	LabelCARPath  = "car_path"  // the CAR of the import
	LabelCAROwner = "car_owner" // importmgr if it is ours
	LabelBytes    = "bytes"     // size of what was imported
	LabelData     = "data_path" // our copy of a stream
)

// OwnerManager owns the CARs that are removed with their import.
const OwnerManager = "importmgr"

// ErrUnknownImport means that there is no import of an id.
var ErrUnknownImport = errors.New("import not found")

// Import is one thing that was imported.
type Import struct {
	ID     uint64
	Labels map[string]string
	// Err is why its data cannot be served, or nil.
	Err error
}

// Root is the root of the import, undefined if it is not known.
func (i *Import) Root() cid.Cid {
	c, err := cid.Decode(i.Labels[LabelRoot])
	if err != nil {
		return cid.Undef
	}
	return c
}

// Manager keeps imports. It is safe for concurrent use.
type Manager struct {
	fs  blob.FS
	dir string
	ds  datastore.Batching

	mu   sync.Mutex
	last uint64 // id
	open map[uint64]*opened
}

// Open opens the imports whose files are in dir and whose records are in ds, and removes what an interrupted import left.
func Open(ctx context.Context, fsys blob.FS, dir string, ds datastore.Batching) (*Manager, error) {
	fsys = blob.Or(fsys)
	m := &Manager{fs: fsys, dir: dir, ds: ds, last: uint64(time.Now().UnixNano()), open: map[uint64]*opened{}}
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	list, err := m.allRecords(ctx)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, i := range list {
		known[strconv.FormatUint(i.ID, 10)] = true
		m.last = max(m.last, i.ID)
	}
	files, err := os.ReadDir(dir)
	for _, f := range files {
		if id, rest, _ := strings.Cut(f.Name(), "."); !known[id] || strings.HasSuffix(rest, "partial") {
			err = errors.Join(err, fsys.RemoveAll(filepath.Join(dir, f.Name())))
		}
	}
	return m, err
}

func recordKey(id uint64) datastore.Key {
	return datastore.NewKey("/stores/" + strconv.FormatUint(id, 10))
}

func rootKey(root string, id uint64) datastore.Key {
	return datastore.NewKey("/roots/" + root + "/" + strconv.FormatUint(id, 10))
}

func (m *Manager) pathOf(id uint64, ext string) string {
	return filepath.Join(m.dir, strconv.FormatUint(id, 10)+ext)
}

func (m *Manager) nextID() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last++
	return m.last
}

// putImport stores a record durably, with its root as a second key.
func (m *Manager) putImport(ctx context.Context, i Import) error {
	data, err := json.Marshal(map[string]any{"Labels": i.Labels})
	if err != nil {
		return err
	}
	b, err := m.ds.Batch(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(b.Put(ctx, recordKey(i.ID), data), b.Put(ctx, rootKey(i.Labels[LabelRoot], i.ID), nil)); err != nil {
		return err
	}
	return store.Commit(ctx, m.ds, b)
}

func decodeRecord(key string, data []byte) (i Import, err error) {
	if i.ID, err = strconv.ParseUint(datastore.RawKey(key).BaseNamespace(), 10, 64); err != nil {
		return i, err
	}
	var v struct{ Labels map[string]string }
	err = json.Unmarshal(data, &v)
	i.Labels = v.Labels
	return i, err
}

// allRecords are all records in the order of ids; one that cannot be read has an error.
func (m *Manager) allRecords(ctx context.Context) (out []Import, err error) {
	err = store.Each(ctx, m.ds, "/stores", func(key string, value []byte) error {
		i, err := decodeRecord(key, value)
		if err != nil {
			i.Err = fmt.Errorf("record %s: %w", key, err)
		}
		out = append(out, i)
		return nil
	})
	slices.SortFunc(out, func(a, b Import) int { return cmp.Compare(a.ID, b.ID) })
	return out, err
}

func (m *Manager) getImport(ctx context.Context, id uint64) (Import, error) {
	data, err := m.ds.Get(ctx, recordKey(id))
	if errors.Is(err, datastore.ErrNotFound) {
		return Import{}, fmt.Errorf("%w: %d", ErrUnknownImport, id)
	}
	if err != nil {
		return Import{}, err
	}
	return decodeRecord(recordKey(id).String(), data)
}

// Drop forgets an import. Files of the user stay.
func (m *Manager) Drop(ctx context.Context, id uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, err := m.getImport(ctx, id)
	if errors.Is(err, ErrUnknownImport) {
		return err
	}
	i.ID = id // also one whose record cannot be read is dropped
	b, err := m.ds.Batch(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(b.Delete(ctx, recordKey(id)), b.Delete(ctx, rootKey(i.Labels[LabelRoot], id))); err != nil {
		return err
	}
	if err := store.Commit(ctx, m.ds, b); err != nil {
		return err
	}
	if o := m.open[id]; o != nil { // who reads it reads it to the end
		o.dropped = &i
		return nil
	}
	return m.removeFiles(i)
}

// View opens an import for reading. Views of one import share its files.
func (m *Manager) View(ctx context.Context, id uint64) (*View, error) {
	i, err := m.getImport(ctx, id)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	o := m.open[id]
	if o == nil {
		if o, err = m.loadImport(i); err != nil {
			return nil, err
		}
		m.open[id] = o
	}
	o.views++
	return &View{o: o, m: m}, nil
}

func (m *Manager) loadImport(i Import) (*opened, error) {
	f := m.Files(i)
	f.FS = m.fs
	o, err := f.loadFiles()
	if err != nil {
		return nil, fmt.Errorf("import %d: %w", i.ID, err)
	}
	return o, nil
}

// Files are the files of an import. Another process that may read them can open them too.
type Files struct {
	FS    blob.FS
	ID    uint64
	Root  cid.Cid
	Refs  string
	Nodes string // empty if there are none
}

// Files returns the files of an import.
func (m *Manager) Files(i Import) Files {
	f := Files{FS: m.fs, ID: i.ID, Root: i.Root(), Refs: m.pathOf(i.ID, ".refs")}
	if i.Labels[LabelCAROwner] == OwnerManager {
		f.Nodes = i.Labels[LabelCARPath]
	}
	return f
}

func (f Files) loadFiles() (*opened, error) {
	data, err := os.ReadFile(f.Refs)
	if err != nil {
		return nil, err
	}
	o := &opened{fs: f.FS, id: f.ID, root: f.Root, files: map[int]blob.File{}}
	if o.refs, err = decodeRefs(data); err != nil {
		return nil, err
	}
	if f.Nodes != "" {
		o.nodes, err = carstore.OpenRead(f.Nodes)
	}
	return o, err
}

// Open opens the files for reading.
func (f Files) Open() (*View, error) {
	o, err := f.loadFiles()
	if err != nil {
		return nil, fmt.Errorf("import %d: %w", f.ID, err)
	}
	return &View{o: o}, nil
}

func (m *Manager) returnOpened(o *opened) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if o.views--; o.views > 0 {
		return nil
	}
	delete(m.open, o.id)
	err := o.closeFiles()
	if o.dropped != nil {
		err = errors.Join(err, m.removeFiles(*o.dropped))
	}
	return err
}

// Find returns the newest usable import of a root; none is no error (R-F1, R-I8).
func (m *Manager) Find(ctx context.Context, root cid.Cid) (Import, bool, error) {
	var ids []uint64
	err := store.Each(ctx, m.ds, "/roots/"+root.String(), func(key string, _ []byte) error {
		id, err := strconv.ParseUint(datastore.RawKey(key).BaseNamespace(), 10, 64)
		ids = append(ids, id)
		return err
	})
	if err != nil {
		return Import{}, false, err
	}
	slices.Sort(ids)
	for _, id := range slices.Backward(ids) {
		i, err := m.getImport(ctx, id)
		if err != nil {
			continue
		}
		if i.Err = m.conditionOf(i).err; i.Err == nil {
			return i, true, nil
		}
	}
	return Import{}, false, nil
}

// List returns all imports in the order of ids, each with what is wrong with it.
func (m *Manager) List(ctx context.Context) ([]Import, error) {
	list, err := m.allRecords(ctx)
	for n, i := range list {
		if i.Err == nil {
			list[n].Err = m.conditionOf(i).err
		}
	}
	return list, err
}

// Close closes what views have left open.
func (m *Manager) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for id, o := range m.open {
		errs = append(errs, o.closeFiles())
		delete(m.open, id)
	}
	return errors.Join(errs...)
}
