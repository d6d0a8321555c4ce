package main

import (
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manCmd writes what the help says as manual pages, for packages. Their date is that of SOURCE_DATE_EPOCH, if it is set.
func (o operator) manCmd() *cobra.Command {
	return &cobra.Command{
		Use: "man FOLDER", Short: "Write the manual pages, one for each verb", Args: o.c.args(cobra.ExactArgs(1)),
		Example: "  cartage man ~/.local/share/man/man1",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true // the same version gives the same pages
			if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "Cartage " + version, Manual: "Cartage"}, args[0]); err != nil {
				return err
			}
			pages, err := filepath.Glob(filepath.Join(args[0], "cartage*.1"))
			if err != nil {
				return err
			}
			return o.c.show(map[string]any{"folder": args[0], "pages": len(pages)}, [][2]string{{"folder", args[0]}, {"pages", strconv.Itoa(len(pages))}})
		},
	}
}
