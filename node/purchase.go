package node

import (
	"context"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/dataselector"
	inner "github.com/cartage-dev/cartage/internal/node"
	"github.com/cartage-dev/cartage/money"
)

// Purchase is what was bought. It reads the archive in the home, which the cache of the home may remove when the purchase is closed.
type Purchase struct {
	life   context.Context // ends with Close
	end    context.CancelFunc
	store  *carstore.Store
	part   dataselector.Selection
	result api.Retrieval
}

var _ io.WriterTo = (*Purchase)(nil)

func openPurchase(ctx context.Context, r *api.Retrieval, req api.RetrieveRequest) (*Purchase, error) {
	want, err := inner.ParseWant(req)
	if err != nil {
		return nil, api.ErrorOf(err)
	}
	s, err := carstore.OpenRead(r.CarPath)
	if err != nil {
		return nil, api.ErrorOf(err)
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	return &Purchase{life, end, s, want.Part, *r}, nil
}

// Root is the root of the DAG that was bought, or of which a part was.
func (p *Purchase) Root() cid.Cid { return p.store.Root() }

// Order is the name of the order, as Deals and the command line have it.
func (p *Purchase) Order() string { return p.result.Order }

// Spent is what the order cost, over all its attempts.
func (p *Purchase) Spent() money.Amount { return attoFIL(p.result.TotalSpent()) }

// Received is how many bytes of blocks came over the network; 0 if everything was here already.
func (p *Purchase) Received() uint64 { return p.result.Received }

// Save writes the file or folder to path, where nothing may be yet.
func (p *Purchase) Save(path string) error {
	d, err := carstore.ClaimDest(blob.OS{}, path, false)
	if err != nil {
		return api.ErrorOf(err)
	}
	ls := p.store.LinkSystem()
	_, err = p.part.Export(p.life, d, &ls, p.store.Root(), nil)
	if free := d.Release(); err == nil {
		err = free
	}
	_, err = told(p, err)
	return err
}

// WriteTo implements io.WriterTo: it writes the bytes of the file, or of the range of it, that was bought. A folder is an error.
func (p *Purchase) WriteTo(w io.Writer) (int64, error) {
	ls := p.store.LinkSystem()
	out := &countingWriter{to: w}
	_, err := told(p, p.part.WriteFile(p.life, &ls, p.store.Root(), out))
	return out.n, err
}

// countingWriter counts what it passes on.
type countingWriter struct {
	to io.Writer
	n  int64
}

// Write implements io.Writer.
func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.to.Write(b)
	c.n += int64(n)
	return n, err
}

// LinkSystem reads the blocks of the purchase, and verifies each. It is usable until Close.
func (p *Purchase) LinkSystem() ipld.LinkSystem { return p.store.LinkSystem() }

// Close lets go of the archive. What was bought stays in the home, as far as its cache has room.
func (p *Purchase) Close() error {
	p.end()
	return p.store.Close()
}
