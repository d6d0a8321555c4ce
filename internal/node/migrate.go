package node

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/commp"
	"github.com/cartage-dev/cartage/dagstore"
)

// migrateDeals gives the storage deals of a node that had no dagstore their shards, at its first start.
func (n *Node) migrateDeals(ctx context.Context) error {
	_, err := n.Pieces.Migrate(ctx, func(yield func(dagstore.ExistingDeal, error) bool) {
		list, err := n.storage.Deals(ctx)
		if err != nil {
			yield(dagstore.ExistingDeal{}, err)
			return
		}
		for _, d := range list {
			p := d.Proposal.Proposal
			if !yield(dagstore.ExistingDeal{Proposal: d.ProposalCid, Piece: p.PieceCID, Padded: uint64(p.PieceSize), State: d.State.String(), Sealing: d.State.InSealing()}, nil) {
				return
			}
		}
	}, n.log)
	return err
}

// maxListLine bounds a line of a list of pieces.
const maxListLine = 64 << 10

// listedPiece is a line of a list of pieces: where a piece is that is known already.
type listedPiece struct {
	Piece  string `json:"piece"`
	Path   string `json:"path"`
	URL    string `json:"url"`
	Padded uint64 `json:"padded_size"`
}

// DagstoreImport answers Cartage.DagstoreImport (R-W3): the pieces of a folder of CARs, which are read now, or those of a list, a JSON object
// a line with piece, path or url, and padded_size, which are read when they are first wanted. Done again it changes nothing.
func (s Service) DagstoreImport(ctx context.Context, from string) ([]api.DagstoreShardResult, error) {
	st, err := os.Stat(from)
	if err != nil {
		return nil, coded(err)
	}
	if st.IsDir() {
		return s.importFolder(ctx, from)
	}
	f, err := os.Open(from)
	if err != nil {
		return nil, coded(err)
	}
	defer f.Close()
	return s.importList(ctx, f, filepath.Dir(from))
}

func (s Service) importFolder(ctx context.Context, dir string) (out []api.DagstoreShardResult, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, coded(err)
	}
	for _, e := range entries {
		car := filepath.Join(dir, e.Name())
		if filepath.Ext(car) != ".car" {
			continue
		}
		r := api.DagstoreShardResult{Key: car}
		sh, err := s.n.Pieces.Register(ctx, dagstore.Source{Path: car})
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		if r.Success = err == nil; r.Success {
			r.Key = sh.Piece.String()
		} else {
			r.Error = err.Error()
		}
		out = append(out, r)
	}
	if len(out) == 0 {
		return nil, api.Errorf(api.CodeNotFound, "", "there is no file *.car in %s", dir)
	}
	return out, nil
}

func (s Service) importList(ctx context.Context, r io.Reader, dir string) (out []api.DagstoreShardResult, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxListLine)
	for n := 1; lines.Scan(); n++ {
		if strings.TrimSpace(lines.Text()) == "" {
			continue
		}
		if err := ctx.Err(); err != nil {
			return out, err
		}
		var p listedPiece
		if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
			return out, api.Errorf(api.CodeUsage, `A line is {"piece":"baga...","path":"/pieces/1.car"}.`, "line %d is no piece: %w", n, err)
		}
		res := api.DagstoreShardResult{Key: p.Piece}
		if err := s.registerListed(ctx, p, dir); err != nil {
			res.Error = fmt.Sprintf("line %d: %s", n, err)
		}
		res.Success = res.Error == ""
		out = append(out, res)
	}
	return out, lines.Err()
}

func (s Service) registerListed(ctx context.Context, p listedPiece, dir string) error {
	c, err := cid.Decode(p.Piece)
	if err == nil {
		c, err = commp.V1(c)
	}
	if err != nil {
		return fmt.Errorf("%q is no piece CID: %w", p.Piece, err)
	}
	if (p.Path == "") == (p.URL == "") {
		return errors.New("a piece has a path or a url")
	}
	if p.Path != "" && !filepath.IsAbs(p.Path) {
		p.Path = filepath.Join(dir, p.Path)
	}
	_, err = s.n.Pieces.RegisterLazy(ctx, dagstore.Source{Piece: c, Path: p.Path, Mount: p.URL, Padded: p.Padded})
	return err
}
