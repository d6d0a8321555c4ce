package gateway

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/dataselector"
	"github.com/cartage-dev/cartage/internal/reason"
)

// Query is what a CAR is asked for, as Visit walks it.
type Query struct {
	Root cid.Cid
	Path []string // names of UnixFS below the root
	// Bytes is a range of the bytes of the file there; nil: everything below.
	Bytes *dataselector.Range
}

func (q Query) request() request {
	r := request{root: q.Root, path: q.Path, bytes: q.Bytes, format: formatCAR, scope: scopeAll}
	if q.Bytes != nil {
		r.scope = scopeEntity
	}
	return r
}

// URL is the path and the query of the CAR at a gateway.
func (q Query) URL() string {
	r := q.request()
	return "/ipfs/" + r.escapedPath() + "?" + r.query()
}

// Header is how the CAR begins.
func (q Query) Header() ([]byte, error) { return carstore.V1Header(q.Root) }

// Visit tells of the sections of a CAR in their order, each CID once: what a gateway sends, as its client can know it. Blocks with links are read
// out of blocks after they were told; what Find answers ends the walk if it is an error.
func Visit(ctx context.Context, blocks Blocks, q Query, tell func(c cid.Cid, size uint64) error) error {
	w := &walk{ctx: ctx, blocks: blocks, bounds: bounds{depth: carstore.MaxDepth}, seen: map[string]Place{}, emit: func(s section) error { return tell(s.cid, s.size()) }}
	err := w.run(q.request())
	var f *failure
	switch {
	case !errors.As(err, &f):
		return err
	case f.code == PathNotFound:
		return reason.PathUnknown.Wrap(err)
	case f.code == TooDeep:
		return reason.DAGTooDeep.Wrap(err)
	case f.code == TooWide:
		return reason.TooManyLinks.Wrap(err)
	}
	return reason.DataMissing.Wrap(fmt.Errorf("%w", err))
}
