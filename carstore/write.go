package carstore

import (
	"bufio"
	"context"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"

	"github.com/cartage-dev/cartage/shared"
)

// WriteCARFrom writes the whole DAG below root as a CARv1: depth first, each block once, identity blocks too. However deep the DAG is, its
// memory is that of the CIDs that are written or wait.
func WriteCARFrom(ctx context.Context, ls *ipld.LinkSystem, root cid.Cid, w io.Writer) error {
	buf := bufio.NewWriterSize(shared.Writer(ctx, w), 1<<20)
	head, err := V1Header(root)
	if err != nil {
		return err
	}
	if _, err := buf.Write(head); err != nil {
		return err
	}
	seen, waiting := map[cid.Cid]struct{}{}, []cid.Cid{root}
	for len(waiting) > 0 {
		c := waiting[len(waiting)-1]
		waiting = waiting[:len(waiting)-1]
		if _, again := seen[c]; again {
			continue
		}
		seen[c] = struct{}{}
		if err := ctx.Err(); err != nil {
			return err
		}
		data, err := ls.LoadRaw(ipld.LinkContext{Ctx: ctx}, cidlink.Link{Cid: c})
		if err != nil {
			return fmt.Errorf("block %s: %w", c, err)
		}
		if err := WriteSection(buf, c, data); err != nil {
			return err
		}
		links, err := LinksOf(c, data)
		if err != nil {
			return fmt.Errorf("block %s: %w", c, err)
		}
		for i := len(links) - 1; i >= 0; i-- {
			waiting = append(waiting, links[i])
		}
	}
	return buf.Flush()
}
