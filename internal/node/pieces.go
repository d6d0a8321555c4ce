package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/dagstore"
	"github.com/cartage-dev/cartage/imports"
	"github.com/cartage-dev/cartage/piecestore"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
)

func notHere(c cid.Cid) ([]byte, error) { return nil, fmt.Errorf("block %s is not here", c) }

var _ retrievalimpl.BufferedReader = (*dagstore.Accessor)(nil)

// openPieces opens the dagstore.
func (n *Node) openPieces(ctx context.Context) (err error) {
	c := n.parts.Config.DAGStore
	dir := c.RootDir
	if dir == "" {
		dir = n.parts.Home.Path("dagstore")
	}
	web := dagstore.HTTPMount(http.DefaultClient)
	mounts := map[string]dagstore.Scheme{"http": web, "https": web}
	if n.parts.Sectors != nil {
		mounts[dagstore.SectorScheme] = dagstore.SectorMount(n.parts.Sectors, false)
	}
	n.Pieces, err = dagstore.OpenConfig(ctx, dagstore.Config{
		FS: n.parts.FS, Dir: dir, Reading: n.parts.Reading, Pieces: n.parts.Home.Path("pieces"), Mounts: mounts, MaxConcurrentIndex: c.MaxConcurrentIndex,
		MaxConcurrentReadyFetches: c.MaxConcurrentReadyFetches, TransientQuota: c.TransientQuota, ReaderIdle: time.Duration(c.ReaderIdle), RecoverAttempts: c.RecoverAttempts,
	})
	return err
}

// pieceSource shows the dagstore to the market (D18): each piece has one synthetic deal.
type pieceSource struct{ store *dagstore.Store }

// Find implements retrievalimpl.PieceSource.
func (s pieceSource) Find(ctx context.Context, payload cid.Cid, piece *cid.Cid) (retrievalimpl.Found, error) {
	shards, err := s.store.Lookup(payload)
	if err != nil {
		return retrievalimpl.Found{}, err
	}
	var away error
	for _, sh := range shards {
		if piece != nil && !piece.Equals(sh.Piece) {
			continue
		}
		if err := s.store.Present(ctx, sh); err != nil { // another piece may have it (R-N11)
			away = errors.Join(away, err)
			continue
		}
		return retrievalimpl.Found{Size: sh.CarSize, Info: piecestore.PieceInfo{PieceCID: sh.Piece, Deals: []piecestore.DealInfo{{
			DealID: 0, SectorID: abi.SectorNumber(sh.Number), Offset: 0, Length: abi.PaddedPieceSize(sh.Padded),
		}}}}, nil
	}
	if away != nil {
		return retrievalimpl.Found{}, fmt.Errorf("payload CID %s: %w", payload, away)
	}
	return retrievalimpl.Found{}, fmt.Errorf("payload CID %s: %w", payload, rm.ErrNotFound)
}

// Acquire implements retrievalimpl.PieceSource.
func (s pieceSource) Acquire(ctx context.Context, piece cid.Cid) (retrievalimpl.Reader, error) {
	return s.store.Acquire(ctx, piece)
}

// unsealSector maps the number of a local piece back to its bytes, for embedders.
func (n *Node) unsealSector(ctx context.Context, number abi.SectorNumber) (io.ReadCloser, error) {
	list, err := n.Pieces.List()
	if err != nil {
		return nil, err
	}
	for _, sh := range list {
		if sh.Number != uint64(number) {
			continue
		}
		a, err := n.Pieces.Acquire(ctx, sh.Piece)
		if err != nil {
			return nil, err
		}
		return struct {
			io.Reader
			io.Closer
		}{io.MultiReader(a.ReadAll(), zeros{}), a}, nil
	}
	return nil, fmt.Errorf("piece number %d: %w", number, rm.ErrNotFound)
}

// zeros is the padding of a piece.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// Provide makes a piece of a file, a folder or a CAR and puts it up for sale. A CAR stays where it is.
func (n *Node) Provide(ctx context.Context, path string) (dagstore.Shard, error) {
	return n.ProvideAs(ctx, path, nil)
}

// ProvideAs is Provide with options of how a file or folder is read.
func (n *Node) ProvideAs(ctx context.Context, path string, o *imports.Options) (dagstore.Shard, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return dagstore.Shard{}, err
	}
	if _, err := os.Stat(path); err != nil {
		return dagstore.Shard{}, err
	}
	if strings.EqualFold(filepath.Ext(path), ".car") {
		return n.Pieces.Register(ctx, dagstore.Source{Path: path})
	}
	return n.Pieces.Register(ctx, dagstore.Source{Name: path, Build: func(ctx context.Context, to string) error {
		return carstore.WriteNew(n.parts.FS, to, func(w io.Writer) error {
			_, err := imports.WriteCARTo(ctx, path, w, imports.UnixFS2025(), o)
			return err
		})
	}})
}
