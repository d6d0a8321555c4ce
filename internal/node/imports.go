package node

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/imports"
)

// openImports opens what was imported and tells what is wrong with it.
func (n *Node) openImports(ctx context.Context) (err error) {
	if n.imports, err = imports.Open(ctx, n.parts.FS, n.parts.Home.Path("imports"), n.space("/client")); err != nil {
		return err
	}
	_, err = n.imports.Check(ctx, n.log)
	return err
}

func (s Service) imported(i imports.Import) api.Import {
	f := s.n.imports.Files(i)
	v := api.Import{Key: i.ID, Root: i.Labels[imports.LabelRoot], Source: i.Labels[imports.LabelSource], FilePath: i.Labels[imports.LabelFilename], CARPath: f.Nodes, Refs: f.Refs}
	v.Bytes, _ = strconv.ParseUint(i.Labels[imports.LabelBytes], 10, 64)
	if i.Err != nil {
		v.Err = i.Err.Error()
	}
	return v
}

// Import answers Cartage.Import.
func (s Service) Import(ctx context.Context, r api.ImportRequest) (*api.Import, error) {
	p, err := imports.ProfileByName(r.Profile)
	if err != nil {
		return nil, api.Errorf(api.CodeUsage, "", "%w", err)
	}
	o, left, err := importOptions(r.Symlinks, r.Preserve)
	if err != nil {
		return nil, coded(err)
	}
	var i imports.Import
	switch {
	case r.CAR:
		i, err = s.n.imports.AddCAR(ctx, r.Path)
	case r.Stream:
		i, err = s.importStream(ctx, r.Path, p)
	default:
		i, err = s.n.imports.Add(ctx, r.Path, p, o)
	}
	if err != nil {
		return nil, coded(err)
	}
	v := s.imported(i)
	v.LeftOut = left()
	return &v, nil
}

// importOptions reads how links and modes are taken. left tells which links were skipped, one by one up to a bound.
func importOptions(symlinks string, preserve bool) (o *imports.Options, left func() []string, err error) {
	s, err := imports.ParseSymlinks(symlinks)
	if err != nil {
		return nil, nil, err
	}
	var list []string
	more := 0
	o = &imports.Options{Symlinks: s, Preserve: preserve, LeftOut: func(path string) {
		if list = append(list, path); len(list) > maxLeftOut {
			list = list[:maxLeftOut]
			more++
		}
	}}
	return o, func() []string {
		if more > 0 {
			list = append(list, fmt.Sprintf("and %d more", more))
		}
		return list
	}, nil
}

// maxLeftOut is how many skipped links an answer names.
const maxLeftOut = 1000

func (s Service) importStream(ctx context.Context, path string, p imports.Profile) (imports.Import, error) {
	f, err := os.Open(path)
	if err != nil {
		return imports.Import{}, err
	}
	defer f.Close()
	return s.n.imports.AddReader(ctx, f, p, nil)
}

// Imports answers Cartage.Imports.
func (s Service) Imports(ctx context.Context) ([]api.Import, error) {
	list, err := s.n.imports.List(ctx)
	out := make([]api.Import, 0, len(list))
	for _, i := range list {
		out = append(out, s.imported(i))
	}
	return out, coded(err)
}

// ClientListImports answers Cartage.ClientListImports: Imports in the shape of a Filecoin node.
func (s Service) ClientListImports(ctx context.Context) ([]api.ClientImport, error) {
	list, err := s.Imports(ctx)
	out := make([]api.ClientImport, 0, len(list))
	for _, i := range list {
		v := api.ClientImport{Key: i.Key, Err: i.Err, Source: i.Source, FilePath: i.FilePath, CARPath: i.CARPath}
		if c, err := cid.Decode(i.Root); err == nil {
			v.Root = &c
		}
		out = append(out, v)
	}
	return out, err
}

// ClientRemoveImport answers Cartage.ClientRemoveImport.
func (s Service) ClientRemoveImport(ctx context.Context, id uint64) error {
	return coded(s.n.imports.Drop(ctx, id))
}

// ClientHasLocal answers Cartage.ClientHasLocal; absence is no error.
func (s Service) ClientHasLocal(ctx context.Context, root cid.Cid) (bool, error) {
	_, ok, err := s.n.imports.Find(ctx, root)
	return ok, coded(err)
}

// local is the newest usable import of a root.
func (s Service) local(ctx context.Context, root cid.Cid) (imports.Import, error) {
	i, ok, err := s.n.imports.Find(ctx, root)
	if err == nil && !ok {
		err = api.Errorf(api.CodeNotFound, "Imports are listed by cartage local.", "no import has root %s", root)
	}
	return i, coded(err)
}

// ClientLocal answers Cartage.ClientLocal: the import to read a root from.
func (s Service) ClientLocal(ctx context.Context, root string) (*api.Import, error) {
	c, err := ParseCID(root)
	if err != nil {
		return nil, err
	}
	i, err := s.local(ctx, c)
	if err != nil {
		return nil, err
	}
	v := s.imported(i)
	return &v, nil
}

// ClientRepoint answers Cartage.ClientRepoint.
func (s Service) ClientRepoint(ctx context.Context, id uint64, path string) (*api.Import, error) {
	i, err := s.n.imports.Repoint(ctx, id, path)
	if err != nil {
		return nil, coded(err)
	}
	v := s.imported(i)
	return &v, nil
}

// ClientDealPieceCID answers Cartage.ClientDealPieceCID: the piece of the archive of an import, or of what an IPFS node has, without writing
// the archive.
func (s Service) ClientDealPieceCID(ctx context.Context, root cid.Cid) (*api.DataCIDSize, error) {
	p, err := dealBlocks(s).pieceOf(ctx, root)
	if err != nil {
		return nil, coded(err)
	}
	return &api.DataCIDSize{PayloadSize: int64(p.Payload), PieceSize: abi.PaddedPieceSize(p.Padded), PieceCID: p.CID}, nil
}
