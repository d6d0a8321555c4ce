package dataselector

import (
	"bytes"
	"context"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"

	"github.com/cartage-dev/cartage/carstore"
)

// archive writes each block once that is read through it.
type archive struct {
	w    io.Writer
	seen map[string]bool
	err  error
}

func (a *archive) copyingOpener(ctx context.Context, ls *ipld.LinkSystem) linking.BlockReadOpener {
	return func(lctx linking.LinkContext, l datamodel.Link) (io.Reader, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		r, err := ls.StorageReadOpener(lctx, l)
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(io.LimitReader(r, carstore.MaxBlock+1))
		if err != nil {
			return nil, err
		}
		c := l.(cidlink.Link).Cid
		if a.err == nil && !a.seen[c.KeyString()] {
			a.seen[c.KeyString()] = true
			a.err = carstore.WriteSection(a.w, c, data)
		}
		return bytes.NewBuffer(data), a.err
	}
}

// writeBlocks reads blocks, and writes them that way.
func (a *archive) writeBlocks(ctx context.Context, ls *ipld.LinkSystem, list []cid.Cid) error {
	for _, c := range list {
		if _, err := ls.StorageReadOpener(linking.LinkContext{Ctx: ctx}, cidlink.Link{Cid: c}); err != nil {
			return err
		}
	}
	return nil
}
