package main

import (
	"context"
	"errors"
	"path"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/internal/node"
)

func (c *cli) lsCmd() *cobra.Command {
	var depth int
	var f retrieveFlags
	cmd := &cobra.Command{Use: "ls CID[/PATH]", Short: "List a folder that was imported, or buy the list of one from a provider", Args: c.args(cobra.ExactArgs(1)),
		Long: "Ls lists a folder. What was imported is read here; else only the blocks of the folder itself are bought from the provider, not what is in it.",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return c.withNode(context.WithoutCancel(ctx), func(nctx context.Context, n *api.Node) error {
				list, err := c.listing(ctx, nctx, n, args[0], &f, depth)
				if err != nil {
					return err
				}
				if len(list) == 1 && list[0].Kind != "" { // itself
					if r, err := node.ParseRef(args[0]); err == nil && r.Path != "" {
						list[0].Name = path.Base(r.Path)
					}
				}
				return table(c, list, []string{"CID", "NAME", "SIZE"}, func(e carstore.Entry) []string {
					return []string{e.Cid.String(), e.Name, size(e.Size)}
				}, "it has no links")
			})
		}}
	cmd.Flags().IntVar(&depth, "depth", 1, "how many levels of folders, of what was imported")
	cmd.Flags().StringVar(&f.provider, "provider", "", "multiaddress of the provider, with /p2p/, or the id of a peer that was met before")
	f.declareDeal(cmd)
	return cmd
}

// listing lists what was imported, or what a provider has.
func (c *cli) listing(ctx, nctx context.Context, n *api.Node, arg string, f *retrieveFlags, depth int) (list []carstore.Entry, err error) {
	req, err := f.wanted(arg)
	if err != nil {
		return nil, err
	}
	i, err := n.ClientLocal(nctx, req.CID)
	if f.provider != "" && api.CodeOf(err) == api.CodeNotFound {
		if depth > 1 {
			return nil, api.Errorf(api.CodeUsage, "List its folders one by one.", "--depth %d: of a provider one level is listed", depth)
		}
		return c.listRemote(ctx, nctx, n, req, f)
	}
	if err != nil {
		return nil, err
	}
	v, root, err := openLocal(i)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	ls := v.LinkSystem()
	parts, err := f.part.Parts(nctx, &ls, root)
	if err != nil {
		return nil, err
	}
	return listTree(nctx, &ls, parts[0].Root, "", depth)
}

// listRemote buys the first block of a folder, and the others if it is spread over several.
func (c *cli) listRemote(ctx, nctx context.Context, n *api.Node, req api.RetrieveRequest, f *retrieveFlags) ([]carstore.Entry, error) {
	if err := f.fillTerms(&req); err != nil {
		return nil, err
	}
	for req.List = api.ListNode; ; req.List = api.ListShards {
		r, err := c.buy(ctx, nctx, n, req, f.stall)
		if err != nil {
			return nil, err
		}
		list, spread, err := listCAR(nctx, r.CarPath, f, req.List == api.ListShards)
		if err != nil {
			return nil, spentFor(err, r)
		}
		if !spread {
			return list, nil
		}
	}
}

// listCAR lists the folder of a retrieved file. It tells instead whether the folder is spread over more blocks than may be here.
func listCAR(ctx context.Context, car string, f *retrieveFlags, whole bool) (list []carstore.Entry, spread bool, err error) {
	s, err := carstore.OpenRead(car)
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	ls := s.LinkSystem()
	parts, err := f.part.Parts(ctx, &ls, s.Root())
	if err != nil {
		return nil, false, err
	}
	if !whole {
		if kind, _, err := carstore.Stat(ctx, &ls, parts[0].Root); err != nil || kind == carstore.KindShards {
			return nil, err == nil, err
		}
	}
	list, err = carstore.List(ctx, &ls, parts[0].Root)
	return list, false, err
}

// listTree lists a node, and below it what has names, down to a depth.
func listTree(ctx context.Context, ls *ipld.LinkSystem, root cid.Cid, under string, depth int) (out []carstore.Entry, err error) {
	list, err := carstore.List(ctx, ls, root)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		named := e.Name != ""
		e.Name = path.Join(under, e.Name)
		out = append(out, e)
		if depth <= 1 || !named || e.Cid.Prefix().Codec != cid.DagProtobuf {
			continue
		}
		more, err := listTree(ctx, ls, e.Cid, e.Name, depth-1)
		if err != nil {
			return nil, err
		}
		for _, m := range more {
			if m.Name != e.Name { // the blocks of a file have no names
				out = append(out, m)
			}
		}
	}
	return out, nil
}
