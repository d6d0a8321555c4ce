package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
)

func (c *cli) provideCmd() *cobra.Command {
	var r api.ProvideRequest
	cmd := &cobra.Command{Use: "provide PATH", Short: "Put a file, a folder or a .car up for sale", Args: c.args(cobra.ExactArgs(1)),
		RunE: c.node(func(ctx context.Context, n *api.Node, args []string) error {
			var err error
			if r.Path, err = filepath.Abs(args[0]); err != nil {
				return err
			}
			p, err := n.ProvideAs(ctx, r)
			if err != nil {
				return err
			}
			c.sayLeftOut(p.LeftOut)
			for _, w := range p.Warnings {
				note("%s\n", w)
			}
			return c.show(p, [][2]string{{"root", strings.Join(p.Roots, " ")}, {"piece CID", p.PieceCID}, {"piece CID v2", orNothing(p.PieceCIDv2)}, {"bytes", fmt.Sprintf("%d (%s)", p.Bytes, size(p.Bytes))},
				{"blocks", fmt.Sprint(p.Blocks)}, {"CAR size", fmt.Sprint(p.CarSize)}, {"padded size", fmt.Sprint(p.Padded)}})
		})}
	cmd.Flags().StringArrayVar(&r.Roots, "root", nil, "of a .car: the root to sell, instead of those that it names; may be given several times")
	cmd.Flags().BoolVar(&r.Partial, "partial", false, "of a .car: sell it although blocks below its roots are missing")
	declareReading(cmd, &r.Symlinks, &r.Preserve)
	return cmd
}
