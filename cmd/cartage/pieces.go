package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/internal/ui"
)

func (o operator) verifyPieceCmd() *cobra.Command {
	var all bool
	cmd := &cobra.Command{Use: "verify [PIECE...]", Short: "Read every block of pieces, and compare it with its hash",
		Long:    "Verify reads pieces through. It changes nothing.\n\nExit codes: 0 all blocks are what they should be, 5 there is no such piece, 8 a block is damaged.",
		Example: "  cartage pieces verify baga6ea4seaqomqafu276g53zko4k23xzh4h4uecjwicbmvhsuqi7o4bhthhm4aq\n  cartage pieces verify --all",
		RunE: o.c.node(func(ctx context.Context, n *api.Node, args []string) error {
			if all == (len(args) > 0) {
				return api.Errorf(api.CodeUsage, "Pieces are listed by cartage pieces.", "name pieces, or say --all")
			}
			if all {
				list, err := n.Pieces(ctx)
				if err != nil {
					return err
				}
				for _, p := range list {
					args = append(args, p.PieceCID)
				}
			}
			return o.verifyPieces(ctx, n, args)
		})}
	cmd.Flags().BoolVar(&all, "all", false, "all pieces that are for sale")
	return cmd
}

func (o operator) verifyPieces(ctx context.Context, n *api.Node, pieces []string) error {
	bad := 0
	for _, p := range pieces {
		v, err := n.VerifyPiece(ctx, p)
		if err != nil {
			return err
		}
		if !v.OK {
			bad++
		}
		if o.c.json {
			if err := printSchema(os.Stdout, "piece-verified", v); err != nil {
				return err
			}
			continue
		}
		if v.OK {
			say("ok       %s  %d blocks, %s\n", ui.Short(v.PieceCID), v.Blocks, size(v.Bytes))
		} else {
			say("damaged  %s  %d of %d blocks: %s\n", v.PieceCID, v.Bad, v.Blocks, v.Fault)
		}
	}
	if bad > 0 {
		return reason.HashMismatch.Errorf("%d of %d pieces are damaged", bad, len(pieces)).WithHint("Put a whole copy of the file in its place, or remove the piece: cartage pieces remove PIECE.")
	}
	return nil
}

func (o operator) removePieceCmd() *cobra.Command {
	var dry, yes bool
	cmd := &cobra.Command{Use: "remove PIECE...", Short: "Sell a piece no more, and remove the copy that the node made of it", Args: o.c.args(cobra.MinimumNArgs(1)),
		Long:    "Remove ends the sale of pieces. The copy that provide made goes; a file that is served from its own place stays. A piece that somebody reads stays.\n\nExit codes: 0 removed (or a dry run), 2 no terminal to ask on and no --yes, 5 there is no such piece, 7 somebody reads it.",
		Example: "  cartage pieces remove baga6ea4seaqomqafu276g53zko4k23xzh4h4uecjwicbmvhsuqi7o4bhthhm4aq --dry-run\n  cartage pieces remove baga6ea4seaqomqafu276g53zko4k23xzh4h4uecjwicbmvhsuqi7o4bhthhm4aq --yes",
		RunE: o.c.node(func(ctx context.Context, n *api.Node, args []string) error {
			for _, p := range args {
				if err := o.removePiece(ctx, n, p, dry, yes); err != nil {
					return err
				}
			}
			return nil
		})}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what would be removed, and change nothing")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask first; needed where there is no terminal")
	return cmd
}

func (o operator) removePiece(ctx context.Context, n *api.Node, piece string, dry, yes bool) error {
	r, err := n.RemovePiece(ctx, api.RemovePiece{PieceCID: piece, DryRun: true})
	if err != nil {
		return err
	}
	if !dry && !yes {
		if o.c.json || !isTerminal(os.Stdin) || !isTerminal(os.Stderr) {
			return api.Errorf(api.CodeUsage, "Say --yes, or look first with --dry-run.", "there is nobody to ask whether %s is to be removed", r.PieceCID)
		}
		if !agree(fmt.Sprintf("Remove %s (%s)?", ui.Short(r.PieceCID), size(r.Bytes))) {
			return api.ErrorOf(reason.Interrupted)
		}
	}
	would := "would remove"
	if !dry {
		if r, err = n.RemovePiece(ctx, api.RemovePiece{PieceCID: piece}); err != nil {
			return err
		}
		would = "removed"
	}
	if o.c.json {
		return printSchema(os.Stdout, "piece-removed", r)
	}
	say("%s %s (%s, sold %d times for %s)\n", would, ui.Short(r.PieceCID), size(r.Bytes), r.Sold, tableAmount(r.Earned))
	switch {
	case r.Freed > 0:
		say("frees %s: %s goes\n", size(r.Freed), r.Path)
	default:
		say("frees nothing: %s stays\n", orNothing(r.Path))
	}
	if dry {
		say("nothing was changed\n")
	}
	return nil
}
