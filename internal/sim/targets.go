package sim

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
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
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
)

// retrievals is where the files of a client are.
const retrievals = "/retrievals"

// targets are the files that deals receive into, as a node keeps them: one growing CARv2 for a root and a selector, whose length at the
// beginning of a deal is remembered.
type targets struct {
	fs    blob.FS
	ds    datastore.Batching
	mu    sync.Mutex
	open  map[string]*carstore.Store
	refs  map[string]int
	deals map[rm.DealID]string
}

func newTargets(fs blob.FS, ds datastore.Batching) (*targets, error) {
	if err := fs.MkdirAll(retrievals, 0o700); err != nil {
		return nil, err
	}
	return &targets{fs: fs, ds: ds, open: map[string]*carstore.Store{}, refs: map[string]int{}, deals: map[rm.DealID]string{}}, nil
}

// target is a file as one deal sees it.
type target struct {
	*carstore.Store
	base uint64
}

// Base implements retrievalimpl.Target.
func (t target) Base() uint64 { return t.base }

// Finish implements retrievalimpl.FinishedTarget.
func (t target) Finish() error { return t.Finalize() }

func pathOf(root cid.Cid, sel ipld.Node) (string, error) {
	raw, err := ipld.Encode(sel, dagcbor.Encode)
	if err != nil {
		return "", err
	}
	h := sha256.Sum256(raw)
	return filepath.Join(retrievals, root.String()+"-"+hex.EncodeToString(h[:4])+".car"), nil
}

// acquire opens a file or shares it with who has it open.
func (t *targets) acquire(root cid.Cid, sel ipld.Node) (*carstore.Store, string, error) {
	path, err := pathOf(root, sel)
	if err != nil {
		return nil, "", err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.open[path]
	if s == nil {
		if s, err = carstore.Open(t.fs, path, root); err != nil {
			return nil, "", err
		}
		t.open[path] = s
	}
	t.refs[path]++
	return s, path, nil
}

func (t *targets) release(path string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.open[path]
	if s == nil {
		return nil
	}
	if t.refs[path]--; t.refs[path] > 0 {
		return nil
	}
	delete(t.open, path)
	delete(t.refs, path)
	return s.Close()
}

// Open implements retrievalimpl.Targets.
func (t *targets) Open(ctx context.Context, d rm.ClientDealState) (retrievalimpl.Target, error) {
	sel, err := d.SelectorNode()
	if err != nil {
		return nil, err
	}
	s, path, err := t.acquire(d.PayloadCID, sel)
	if err != nil {
		return nil, err
	}
	base, err := t.base(ctx, d.ID, s, sel)
	if err != nil {
		return nil, errors.Join(err, t.release(path))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.deals[d.ID] = path
	return target{s, base}, nil
}

// base is what the file held when a deal began.
func (t *targets) base(ctx context.Context, id rm.DealID, s *carstore.Store, sel ipld.Node) (uint64, error) {
	key := datastore.NewKey("/base/" + id.String())
	data, err := t.ds.Get(ctx, key)
	if err == nil && len(data) == 8 {
		return binary.BigEndian.Uint64(data), nil
	}
	if err != nil && !errors.Is(err, datastore.ErrNotFound) {
		return 0, err
	}
	pos, err := s.Locate(sel)
	if err != nil {
		return 0, err
	}
	if err := t.ds.Put(ctx, key, binary.BigEndian.AppendUint64(nil, pos.Bytes)); err != nil {
		return 0, err
	}
	return pos.Bytes, t.ds.Sync(ctx, key)
}

// Done implements retrievalimpl.Targets.
func (t *targets) Done(d rm.ClientDealState) {
	t.mu.Lock()
	path, ok := t.deals[d.ID]
	delete(t.deals, d.ID)
	s := t.open[path]
	t.mu.Unlock()
	if !ok || s == nil {
		return
	}
	_ = t.release(path)
}

// close ends all files; what is not synced is not.
func (t *targets) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for path, s := range t.open {
		errs = append(errs, s.Close())
		delete(t.open, path)
	}
	return errors.Join(errs...)
}
