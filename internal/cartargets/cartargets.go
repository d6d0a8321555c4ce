// Package cartargets keeps the growing CARs that deals of a client receive into: one file for a root and a selector, one writer for a file, and what
// each file held when a deal began.
package cartargets

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"path/filepath"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

// Files are the CARs of one folder. It is safe for concurrent use.
type Files struct {
	fs  blob.FS
	dir string
	ds  datastore.Batching

	mu    sync.Mutex
	open  map[string]*File
	deals map[rm.DealID]*File // what each deal holds
}

// File is a CAR that is open, by however many.
type File struct {
	*carstore.Store
	// Path is where it is.
	Path string
	refs int
}

// Target is a file as one deal sees it.
type Target struct {
	*File
	base uint64
}

// Base is what the file held when the deal began, in bytes.
func (t *Target) Base() uint64 { return t.base }

// Finish makes the file complete on stable storage.
func (t *Target) Finish() error { return t.Finalize() }

// New makes the folder if it is not there. What files held when deals began is kept in ds.
func New(fs blob.FS, dir string, ds datastore.Batching) (*Files, error) {
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &Files{fs: fs, dir: dir, ds: ds, open: map[string]*File{}, deals: map[rm.DealID]*File{}}, nil
}

// PathOf is the file of a root and a selector.
func (t *Files) PathOf(root cid.Cid, sel ipld.Node) (string, error) {
	of, err := SelectorHash(sel)
	return filepath.Join(t.dir, FileName(root)+"-"+of+".car"), err
}

// longestName is how long the name of a CID may be in the name of a file.
const longestName = 128

// FileName is a CID in the name of a file: of one that carries a block in itself, a hash.
func FileName(c cid.Cid) string {
	name := c.String()
	if len(name) <= longestName {
		return name
	}
	h := sha256.Sum256(c.Bytes())
	return "inlined-" + hex.EncodeToString(h[:])
}

// SelectorHash tells selectors apart in names.
func SelectorHash(sel ipld.Node) (string, error) {
	raw, err := ipld.Encode(sel, dagcbor.Encode)
	if err != nil {
		return "", err
	}
	h := sha256.Sum256(raw)
	return hex.EncodeToString(h[:4]), nil
}

// Acquire opens the file of a root and a selector, or shares it with who has it open; Release gives it back.
func (t *Files) Acquire(root cid.Cid, sel ipld.Node) (*File, error) {
	path, err := t.PathOf(root, sel)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.open[path]; f != nil {
		f.refs++
		return f, nil
	}
	s, err := carstore.Open(t.fs, path, root)
	if err != nil {
		return nil, err
	}
	f := &File{Store: s, Path: path, refs: 1}
	t.open[path] = f
	return f, nil
}

// Release gives a file back. The last one closes it.
func (t *Files) Release(f *File) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.refs--; f.refs > 0 {
		return nil
	}
	delete(t.open, f.Path)
	return f.Close()
}

// Unless calls f if nobody has a file open, and keeps everybody from opening one meanwhile.
func (t *Files) Unless(open string, f func() error) (called bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open[open] != nil {
		return false, nil
	}
	return true, f()
}

// Receive opens the file that a deal receives into, until EndDeal.
func (t *Files) Receive(ctx context.Context, deal *rm.ClientDealState) (*Target, error) {
	sel, err := deal.SelectorNode()
	if err != nil {
		return nil, err
	}
	f, err := t.Acquire(deal.PayloadCID, sel)
	if err != nil {
		return nil, err
	}
	base, err := t.base(ctx, deal.ID, f.Store, sel)
	if err != nil {
		return nil, errors.Join(err, t.Release(f))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.deals[deal.ID] = f
	return &Target{f, base}, nil
}

// EndDeal gives back what a deal receives into; an incomplete file stays as it is, to be continued. It may be called again.
func (t *Files) EndDeal(id rm.DealID) error {
	t.mu.Lock()
	f := t.deals[id]
	delete(t.deals, id)
	t.mu.Unlock()
	if f == nil {
		return nil
	}
	return t.Release(f)
}

// Close closes all files; what is not synced is not.
func (t *Files) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for path, f := range t.open {
		errs = append(errs, f.Close())
		delete(t.open, path)
	}
	return errors.Join(errs...)
}
