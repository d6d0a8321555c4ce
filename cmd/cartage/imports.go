package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/imports"
	"github.com/cartage-dev/cartage/internal/node"
	"github.com/cartage-dev/cartage/shared"
)

func (c *cli) importCmd() *cobra.Command {
	var r api.ImportRequest
	var quiet bool
	cmd := &cobra.Command{Use: "import PATH", Short: "Make a UnixFS DAG of a file or folder, without copying it", Args: c.args(cobra.ExactArgs(1)),
		Long: "Import makes a UnixFS DAG of a file or folder. Its bytes stay where they are: when the file is changed or moved, the import cannot be\nserved any more. - imports stdin, of which a copy is kept; --car takes an archive of version 1 or 2 as it is.",
		RunE: func(cmd *cobra.Command, args []string) error { return c.doImport(cmd.Context(), args[0], r, quiet) }}
	cmd.Flags().StringVar(&r.Profile, "profile", "", "unixfs-v1-2025 (the default), or lotus")
	cmd.Flags().BoolVar(&r.CAR, "car", false, "the path is a CAR")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the CID only")
	declareReading(cmd, &r.Symlinks, &r.Preserve)
	return cmd
}

// declareReading declares how a file or folder is read.
func declareReading(cmd *cobra.Command, symlinks *string, preserve *bool) {
	cmd.Flags().StringVar(symlinks, "symlinks", string(imports.SymlinksStore), "symbolic links below the path: store, follow, skip or refuse")
	cmd.Flags().BoolVar(preserve, "preserve", false, "keep permissions and times of change (another CID than without)")
}

// sayLeftOut says which links were skipped.
func (c *cli) sayLeftOut(list []string) {
	if c.json {
		return
	}
	for _, l := range list {
		note("left out: %s\n", l)
	}
}

func (c *cli) doImport(ctx context.Context, path string, r api.ImportRequest, quiet bool) error {
	if path == "-" {
		tmp, err := spool(ctx, os.Stdin)
		if err != nil {
			return err
		}
		defer os.Remove(tmp)
		r.Path, r.Stream = tmp, true
	} else {
		var err error
		if r.Path, err = filepath.Abs(path); err != nil {
			return err
		}
	}
	return c.withNode(ctx, func(ctx context.Context, n *api.Node) error {
		i, err := n.Import(ctx, r)
		if err != nil {
			return err
		}
		c.sayLeftOut(i.LeftOut)
		if root, err := cid.Decode(i.Root); err == nil && root.Prefix().MhType == multihash.IDENTITY {
			note("warning: the root holds its own bytes (an identity CID): providers cannot look it up or announce it\n")
		}
		switch {
		case quiet:
			say("%v\n", i.Root)
			return nil
		case c.json:
			return printJSON(os.Stdout, i)
		}
		say("Import %d, Root %s\n", i.Key, i.Root)
		return nil
	})
}

// spool keeps a stream in a file.
func spool(ctx context.Context, r io.Reader) (string, error) {
	f, err := os.CreateTemp("", "cartage-import-*")
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, shared.Reader(ctx, r))
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

func (c *cli) localCmd() *cobra.Command {
	return &cobra.Command{Use: "local", Short: "What was imported", Args: c.args(cobra.NoArgs),
		RunE: c.reads(func(ctx context.Context, n *api.Node, _ []string) error {
			list, err := n.Imports(ctx)
			if err != nil {
				return err
			}
			return table(c, list, []string{"ID", "ROOT", "BYTES", "SOURCE", "PATH", "ERROR"}, func(i api.Import) []string {
				return []string{fmt.Sprint(i.Key), i.Root, size(i.Bytes), i.Source, i.FilePath, i.Err}
			}, "nothing was imported: cartage import PATH")
		})}
}

func importID(s string) (uint64, error) {
	id, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, api.Errorf(api.CodeUsage, "Ids are listed by cartage local.", "%q is not the id of an import", s)
	}
	return id, nil
}

func (c *cli) dropCmd() *cobra.Command {
	return &cobra.Command{Use: "drop ID...", Short: "Forget imports; your files stay", Args: c.args(cobra.MinimumNArgs(1)),
		RunE: c.node(func(ctx context.Context, n *api.Node, args []string) error {
			for _, a := range args {
				id, err := importID(a)
				if err != nil {
					return err
				}
				if err := n.ClientRemoveImport(ctx, id); err != nil {
					return err
				}
			}
			return nil
		})}
}

func (c *cli) repointCmd() *cobra.Command {
	return &cobra.Command{Use: "repoint ID PATH", Short: "Say where the file of an import is now", Args: c.args(cobra.ExactArgs(2)),
		RunE: c.node(func(ctx context.Context, n *api.Node, args []string) error {
			id, err := importID(args[0])
			if err != nil {
				return err
			}
			path, err := filepath.Abs(args[1])
			if err != nil {
				return err
			}
			i, err := n.ClientRepoint(ctx, id, path)
			if err != nil {
				return err
			}
			return c.show(i, [][2]string{{"import", fmt.Sprint(i.Key)}, {"root", i.Root}, {"path", i.FilePath}})
		})}
}

func (c *cli) statCmd() *cobra.Command {
	return &cobra.Command{Use: "stat CID", Short: "How large the piece of an import is", Args: c.args(cobra.ExactArgs(1)),
		RunE: c.node(func(ctx context.Context, n *api.Node, args []string) error {
			root, err := node.ParseCID(args[0])
			if err != nil {
				return err
			}
			d, err := n.ClientDealPieceCID(ctx, root)
			if err != nil {
				return err
			}
			if c.json {
				return printJSON(os.Stdout, map[string]any{"PayloadSize": d.PayloadSize, "PieceSize": d.PieceSize, "PieceCID": d.PieceCID.String()})
			}
			say("Piece Size  : %d\nPayload Size: %d\nPiece CID   : %s\n", d.PieceSize, d.PayloadSize, d.PieceCID)
			return nil
		})}
}

// openLocal opens an import of this node for reading.
func openLocal(i *api.Import) (*imports.View, cid.Cid, error) {
	root, err := cid.Decode(i.Root)
	if err != nil {
		return nil, root, err
	}
	v, err := imports.Files{FS: blob.OS{}, ID: i.Key, Root: root, Refs: i.Refs, Nodes: i.CARPath}.Open()
	return v, root, err
}

// exportLocal writes what was imported, as write does what was retrieved.
func (f *retrieveFlags) exportLocal(ctx context.Context, c *cli, i *api.Import) (err error) {
	v, root, err := openLocal(i)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	ls := v.LinkSystem()
	if f.into == "ipfs" {
		return f.partIntoIPFS(ctx, &ls, root)
	}
	return f.export(ctx, c, &ls, root)
}

// fromImport answers a retrieval out of an import, if there is one: nothing is asked for and nothing is paid.
func (c *cli) fromImport(ctx context.Context, n *api.Node, root string, f *retrieveFlags) (bool, error) {
	payload, err := node.ParseCID(root)
	if err != nil {
		return false, err
	}
	has, err := n.ClientHasLocal(ctx, payload)
	if err != nil || !has {
		return false, err
	}
	i, err := n.ClientLocal(ctx, root)
	if err != nil {
		return false, err
	}
	if err := f.exportLocal(ctx, c, i); errors.Is(err, carstore.ErrBadHash) {
		return false, api.Errorf(api.CodeVerification, "", "%w", err)
	} else if err != nil {
		return false, err
	}
	note("%s was imported here (import %d): nothing was asked for and nothing paid\n", root, i.Key)
	if c.json && f.out != "-" {
		return true, printJSON(os.Stdout, map[string]any{"root": root, "output": f.out, "import": i.Key, "bytes": i.Bytes, "spent": "0", "status": "Local", "left_out": f.leftOut()})
	}
	return true, nil
}
