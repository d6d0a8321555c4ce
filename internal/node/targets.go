package node

import (
	"context"
	"errors"
	"os"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipld/go-ipld-prime"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/internal/cartargets"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
)

// targets keeps the CARs that are being retrieved, and those that were: the cache.
type targets struct {
	*cartargets.Files
	fs    blob.FS
	dir   string
	ds    datastore.Batching
	shelf shelf
}

var (
	_ retrievalimpl.FinishedTarget = (*cartargets.Target)(nil)
	_ retrievalimpl.SyncedTarget   = (*cartargets.Target)(nil)
)

func openTargets(_ context.Context, fsys blob.FS, dir string, ds datastore.Batching) (*targets, error) {
	files, err := cartargets.New(fsys, dir, ds)
	if err != nil {
		return nil, err
	}
	t := &targets{Files: files, fs: fsys, dir: dir, ds: ds}
	t.shelf = shelf{fs: fsys, list: t.list}
	return t, nil
}

// has tells whether there is a file of a root and a selector.
func (t *targets) has(root cid.Cid, sel ipld.Node) (bool, error) {
	path, err := t.PathOf(root, sel)
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
	c, err := t.Acquire(root, sel)
	if err != nil {
		return err
	}
	empty := c.Len() == 0
	if err := t.Release(c); err != nil || !empty {
		return err
	}
	_, err = t.remove(ctx, c.Path)
	return err
}

// Open implements retrievalimpl.Targets.
func (t *targets) Open(ctx context.Context, deal rm.ClientDealState) (retrievalimpl.Target, error) {
	target, err := t.Receive(ctx, &deal)
	if err != nil {
		return nil, err
	}
	return target, nil
}

// Done implements retrievalimpl.Targets: a complete file is finalized, an incomplete one stays as it is to be continued.
func (t *targets) Done(deal rm.ClientDealState) { _ = t.EndDeal(deal.ID) }
