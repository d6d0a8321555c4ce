package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/node"
)

// versionCmd says what runs: of the daemon if there is one on the home, else of this program.
func (o operator) versionCmd() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "The version of this program, and of a daemon that runs on the home", Args: o.c.args(cobra.NoArgs),
		Example: "  cartage version\n  cartage version --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := node.BuildVersion(version)
			running, err := o.runningVersion(cmd.Context())
			if err != nil {
				note("cartage: the daemon of the home was not asked: %v\n", err)
			}
			if running != nil {
				v.Protocols = running.Protocols
			}
			if o.c.json {
				return printSchema(os.Stdout, "version", v)
			}
			rows := [][2]string{{"version", v.Version}, {"commit", orNothing(v.Commit)}, {"go", v.Go}, {"home version", fmt.Sprint(v.Home)}}
			if running != nil {
				rows = append(rows, [2]string{"daemon", strings.TrimSpace(running.Version + " " + running.Commit)}, [2]string{"protocols", strings.Join(running.Protocols, " ")})
			}
			return o.c.show(v, rows)
		}}
}

// runningVersion is that of the daemon of the home; nil if none runs.
func (o operator) runningVersion(ctx context.Context) (*api.Version, error) {
	h, err := o.c.home()
	if err != nil {
		return nil, err
	}
	n, done, err := node.Dial(ctx, h)
	if err != nil || n == nil {
		return nil, err
	}
	defer done()
	return n.Version(ctx)
}

// completionPatience is how long a shell waits for what may come next.
const completionPatience = 200 * time.Millisecond

// completeIDs offers the ids of orders and deals with how they stand.
func (o operator) completeIDs(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	return o.complete(cmd, func(ctx context.Context, n *api.Node) (out []string, err error) {
		rows, err := (&dealFilter{}).dealRows(ctx, n)
		for _, d := range rows {
			if strings.HasPrefix(d.ID, typed) {
				out = append(out, d.ID+"\t"+d.Status+", "+size(d.Bytes))
			}
		}
		return out, err
	})
}

// completePieces offers the pieces that are for sale.
func (o operator) completePieces(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	return o.complete(cmd, func(ctx context.Context, n *api.Node) (out []string, err error) {
		list, err := n.Pieces(ctx)
		for _, p := range list {
			if strings.HasPrefix(p.PieceCID, typed) {
				out = append(out, p.PieceCID+"\t"+size(p.Bytes)+", "+p.State)
			}
		}
		return out, err
	})
}

// complete asks a daemon, if one runs, for 200 ms at most, and offers nothing otherwise.
func (o operator) complete(cmd *cobra.Command, ask func(context.Context, *api.Node) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionPatience)
	defer cancel()
	h, err := o.c.home()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	n, done, err := node.Dial(ctx, h)
	if err != nil || n == nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer done()
	out, err := ask(ctx, n)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
