package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
)

func (c *cli) limitsCmd() *cobra.Command {
	return &cobra.Command{Use: "limits", Short: "What others may cost this node: value, where it is set, what is in use, how often it was reached", Args: c.args(cobra.NoArgs),
		Long: "What others may cost this node. Values are set in the table [limits] of config.toml, for example deals_peer = 64 or memory_node = \"256MiB\".\n" +
			"HITS counts since the daemon was started; REASON is the code of the refusal.",
		RunE: c.node(func(ctx context.Context, n *api.Node, _ []string) error {
			list, err := n.Limits(ctx)
			if err != nil {
				return err
			}
			return table(c, list, []string{"LIMIT", "VALUE", "IN USE", "HITS", "ORIGIN", "REASON", "ABOUT"}, func(l api.Limit) []string {
				inUse := "-"
				if l.InUse >= 0 {
					inUse = fmt.Sprint(l.InUse)
				}
				return []string{l.Name, l.Text, inUse, fmt.Sprint(l.Hits), l.Origin, l.Reason, l.About}
			}, "")
		})}
}
