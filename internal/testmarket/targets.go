package testmarket

import (
	"context"
	"io"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/linking"

	"github.com/cartage-dev/cartage/carstore"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
)

// targets let all deals of a peer write into its store, and remember what each brought. Like the store they outlive the peer.
type targets struct {
	peer  *Peer
	mu    sync.Mutex
	deals map[rm.DealID]*target
}

// Open implements retrievalimpl.Targets.
func (t *targets) Open(_ context.Context, d rm.ClientDealState) (retrievalimpl.Target, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.deals[d.ID] == nil {
		t.deals[d.ID] = &target{peer: t.peer, root: d.PayloadCID, fresh: map[string]bool{}}
	}
	return t.deals[d.ID], nil
}

// Done implements retrievalimpl.Targets.
func (t *targets) Done(d rm.ClientDealState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.deals, d.ID)
}

// target is the store of a peer for one deal.
type target struct {
	peer  *Peer
	root  cid.Cid
	mu    sync.Mutex
	fresh map[string]bool
	bytes uint64
}

// LinkSystem implements retrievalimpl.Target.
func (t *target) LinkSystem() ipld.LinkSystem {
	ls := t.peer.Store.LinkSystem()
	open := ls.StorageWriteOpener
	ls.StorageWriteOpener = func(lc linking.LinkContext) (io.Writer, linking.BlockWriteCommitter, error) {
		w, commit, err := open(lc)
		if err != nil {
			return nil, nil, err
		}
		n := &counted{Writer: w}
		return n, func(l ipld.Link) error {
			if err := commit(l); err != nil {
				return err
			}
			t.mu.Lock()
			defer t.mu.Unlock()
			if !t.fresh[l.Binary()] {
				t.fresh[l.Binary()] = true
				t.bytes += n.n
			}
			return nil
		}, nil
	}
	return ls
}

type counted struct {
	io.Writer
	n uint64
}

// Write implements io.Writer.
func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.n += uint64(n)
	return n, err
}

// Locate implements retrievalimpl.Target: bytes that this deal did not bring do not count.
func (t *target) Locate(sel ipld.Node) (carstore.Position, error) {
	mine := map[string]uint64{}
	p, err := carstore.LocateIn(t.root, sel, func(c cid.Cid) ([]byte, error) {
		data, err := t.peer.Get(c)
		if err != nil {
			return nil, carstore.ErrNotFound
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.fresh[string(c.Bytes())] {
			mine[string(c.Bytes())] = uint64(len(data))
		}
		return data, nil
	})
	p.Bytes = 0
	for _, n := range mine {
		p.Bytes += n
	}
	return p, err
}

// Base implements retrievalimpl.Target.
func (t *target) Base() uint64 { return 0 }

// Bytes implements retrievalimpl.Target.
func (t *target) Bytes() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bytes
}
