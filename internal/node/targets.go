package node

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
)

// targets keeps the CARs that are being retrieved: one file for a root and a selector, one writer for a file.
type targets struct {
	fs    blob.FS
	dir   string
	ds    datastore.Batching
	shelf shelf

	mu    sync.Mutex
	open  map[string]*carTarget
	deals map[rm.DealID]*carTarget // what each deal holds
}

type carTarget struct {
	*carstore.Store
	path string
	refs int
}

// dealTarget is a file as one deal sees it.
type dealTarget struct {
	*carTarget
	base uint64
}

var _ retrievalimpl.FinishedTarget = dealTarget{}

// Base implements retrievalimpl.Target.
func (d dealTarget) Base() uint64 { return d.base }

// Finish implements retrievalimpl.FinishedTarget.
func (d dealTarget) Finish() error { return d.Finalize() }

func openTargets(_ context.Context, fsys blob.FS, dir string, ds datastore.Batching) (*targets, error) {
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	t := &targets{fs: fsys, dir: dir, ds: ds, open: map[string]*carTarget{}, deals: map[rm.DealID]*carTarget{}}
	t.shelf = shelf{fs: fsys, list: t.list}
	return t, nil
}

// path is the file of a root and a selector.
func (t *targets) path(root cid.Cid, sel ipld.Node) (string, error) {
	of, err := selectorHash(sel)
	return filepath.Join(t.dir, fileName(root)+"-"+of+".car"), err
}

// longestName is how long the name of a CID may be in the name of a file.
const longestName = 128

// fileName is a CID in the name of a file: of one that carries a block in itself, a hash.
func fileName(c cid.Cid) string {
	name := c.String()
	if len(name) <= longestName {
		return name
	}
	h := sha256.Sum256(c.Bytes())
	return "inlined-" + hex.EncodeToString(h[:])
}

// selectorHash tells selectors apart in names.
func selectorHash(sel ipld.Node) (string, error) {
	raw, err := ipld.Encode(sel, dagcbor.Encode)
	if err != nil {
		return "", err
	}
	h := sha256.Sum256(raw)
	return hex.EncodeToString(h[:4]), nil
}

// acquire opens the file, or shares it with who has it open; release gives it back.
func (t *targets) acquire(root cid.Cid, sel ipld.Node) (*carTarget, error) {
	path, err := t.path(root, sel)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.open[path]; c != nil {
		c.refs++
		return c, nil
	}
	s, err := carstore.Open(t.fs, path, root)
	if err != nil {
		return nil, err
	}
	c := &carTarget{Store: s, path: path, refs: 1}
	t.open[path] = c
	return c, nil
}

func (t *targets) release(c *carTarget) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.refs--; c.refs > 0 {
		return nil
	}
	delete(t.open, c.path)
	return c.Close()
}

// has tells whether there is a file of a root and a selector.
func (t *targets) has(root cid.Cid, sel ipld.Node) (bool, error) {
	path, err := t.path(root, sel)
	if err != nil {
		return false, err
	}
	_, err = os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// discard removes the file of a retrieval that got nothing (R-E4), unless somebody has it open.
func (t *targets) discard(ctx context.Context, root cid.Cid, sel ipld.Node) error {
	if has, err := t.has(root, sel); err != nil || !has {
		return err
	}
	c, err := t.acquire(root, sel)
	if err != nil {
		return err
	}
	empty := c.Len() == 0
	if err := t.release(c); err != nil || !empty {
		return err
	}
	_, err = t.remove(ctx, c.path)
	return err
}

func (t *targets) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for p, c := range t.open {
		errs = append(errs, c.Close())
		delete(t.open, p)
	}
	return errors.Join(errs...)
}

// Open implements retrievalimpl.Targets. What the file held when the deal began is remembered: the deal does not owe for it.
func (t *targets) Open(ctx context.Context, deal rm.ClientDealState) (retrievalimpl.Target, error) {
	sel, err := deal.SelectorNode()
	if err != nil {
		return nil, err
	}
	c, err := t.acquire(deal.PayloadCID, sel)
	if err != nil {
		return nil, err
	}
	base, err := t.base(ctx, deal.ID, c, sel)
	if err != nil {
		return nil, errors.Join(err, t.release(c))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.deals[deal.ID] = c
	return dealTarget{c, base}, nil
}

// base is what the file held when a deal began.
func (t *targets) base(ctx context.Context, id rm.DealID, c *carTarget, sel ipld.Node) (uint64, error) {
	key := datastore.NewKey("/base/" + id.String())
	data, err := t.ds.Get(ctx, key)
	if err == nil && len(data) == 8 {
		return binary.BigEndian.Uint64(data), nil
	}
	if err != nil && !errors.Is(err, datastore.ErrNotFound) {
		return 0, err
	}
	pos, err := c.Locate(sel)
	if err != nil {
		return 0, err
	}
	if err := t.ds.Put(ctx, key, binary.BigEndian.AppendUint64(nil, pos.Bytes)); err != nil {
		return 0, err
	}
	return pos.Bytes, t.ds.Sync(ctx, key)
}

// Done implements retrievalimpl.Targets: a complete file is finalized, an incomplete one stays as it is to be continued.
func (t *targets) Done(deal rm.ClientDealState) {
	t.mu.Lock()
	c := t.deals[deal.ID]
	delete(t.deals, deal.ID)
	t.mu.Unlock()
	if c == nil {
		return
	}
	_ = t.release(c)
}
