package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/commp"
	"github.com/cartage-dev/cartage/dagstore"
	"github.com/cartage-dev/cartage/imports"
	"github.com/cartage-dev/cartage/internal/reason"
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
	shards, err := s.lookup(payload)
	if err != nil {
		return retrievalimpl.Found{}, err
	}
	var away error
	for _, sh := range shards {
		if piece != nil && !samePiece(*piece, sh.Piece) {
			continue
		}
		if err := s.store.Present(ctx, sh); err != nil { // another piece may have it (R-N11)
			away = errors.Join(away, err)
			continue
		}
		size, err := s.size(sh)
		if err != nil {
			return retrievalimpl.Found{}, err
		}
		return retrievalimpl.Found{Size: size, Info: piecestore.PieceInfo{PieceCID: sh.Piece, Deals: []piecestore.DealInfo{{
			DealID: 0, SectorID: abi.SectorNumber(sh.Number), Offset: 0, Length: abi.PaddedPieceSize(sh.Padded),
		}}}}, nil
	}
	if away != nil {
		return retrievalimpl.Found{}, fmt.Errorf("payload CID %s: %w", payload, away)
	}
	return retrievalimpl.Found{}, fmt.Errorf("payload CID %s: %w", payload, rm.ErrNotFound)
}

// Bounds of an identity CID that is looked up by what it links.
const (
	maxInlined      = 2 << 10
	maxInlinedLinks = 32
	maxInlinedDepth = 4
)

// lookup finds the pieces that can serve a payload. An identity CID is in no index: it is where everything is that it links, and if it links
// nothing, everywhere.
func (s pieceSource) lookup(payload cid.Cid) ([]dagstore.Shard, error) {
	if _, ok := carstore.Inlined(payload); !ok {
		return s.store.Lookup(payload)
	}
	links, err := inlinedLinks(payload, maxInlinedDepth)
	if err != nil {
		return nil, fmt.Errorf("payload CID %s: %w: %w", payload, rm.ErrNotFound, err)
	}
	if len(links) == 0 {
		list, err := s.store.List()
		return slices.DeleteFunc(list, func(sh dagstore.Shard) bool {
			return sh.State != dagstore.StateAvailable && sh.State != dagstore.StateServing || !slices.Contains(sh.Roots(), payload)
		}), err
	}
	var out []dagstore.Shard
	for i, l := range links {
		found, err := s.store.Lookup(l)
		if err != nil || len(found) == 0 {
			return nil, err
		}
		if i == 0 {
			out = found
			continue
		}
		out = slices.DeleteFunc(out, func(a dagstore.Shard) bool {
			return !slices.ContainsFunc(found, func(b dagstore.Shard) bool { return a.Number == b.Number })
		})
	}
	return out, nil
}

// inlinedLinks are the links of an identity CID that lead out of it.
func inlinedLinks(c cid.Cid, depth int) (out []cid.Cid, err error) {
	data, _ := carstore.Inlined(c)
	if len(data) > maxInlined || depth == 0 {
		return nil, fmt.Errorf("an identity CID of %d bytes, or in too many others", len(data))
	}
	links, err := carstore.LinksBelow(c, data)
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		more := []cid.Cid{l}
		if _, ok := carstore.Inlined(l); ok {
			if more, err = inlinedLinks(l, depth-1); err != nil {
				return nil, err
			}
		}
		if out = append(out, more...); len(out) > maxInlinedLinks {
			return nil, fmt.Errorf("an identity CID with more than %d links", maxInlinedLinks)
		}
	}
	return out, nil
}

// size is an upper bound of what a piece serves, with the pieces that have what it lacks.
func (s pieceSource) size(sh dagstore.Shard) (uint64, error) {
	total, counted := sh.CarSize, map[uint64]bool{sh.Number: true}
	for _, c := range sh.Lacks {
		more, err := s.store.Lookup(c)
		if err != nil {
			return 0, err
		}
		for _, m := range more[:min(1, len(more))] {
			if !counted[m.Number] {
				counted[m.Number] = true
				total += m.CarSize
			}
		}
	}
	return total, nil
}

// Acquire implements retrievalimpl.PieceSource. What the piece lacks, or cannot be read, comes from other pieces.
func (s pieceSource) Acquire(ctx context.Context, piece cid.Cid) (retrievalimpl.Reader, error) {
	a, err := s.store.Acquire(ctx, piece)
	if err != nil {
		return nil, err
	}
	r := &pieceReader{store: s.store, first: a}
	r.ctx, r.stop = context.WithCancel(context.WithoutCancel(ctx))
	return r, nil
}

// pieceReader reads a piece, and others where that does not have a block. It is safe for concurrent use.
type pieceReader struct {
	store *dagstore.Store
	first *dagstore.Accessor
	ctx   context.Context
	stop  context.CancelFunc

	mu     sync.Mutex
	closed bool
	more   []*dagstore.Accessor // in the order in which they were needed
}

var _ retrievalimpl.BufferedReader = (*pieceReader)(nil)

// Get implements retrievalimpl.Reader.
func (r *pieceReader) Get(c cid.Cid) ([]byte, error) { return r.GetInto(nil, c) }

// GetInto implements retrievalimpl.BufferedReader.
func (r *pieceReader) GetInto(buf []byte, c cid.Cid) ([]byte, error) {
	data, err := r.first.GetInto(buf, c)
	if err == nil {
		return data, nil
	}
	r.mu.Lock()
	more := slices.Clone(r.more)
	r.mu.Unlock()
	for _, a := range more {
		if data, merr := a.GetInto(buf, c); merr == nil {
			return data, nil
		}
	}
	shards, lerr := r.store.Lookup(c)
	if lerr != nil {
		return nil, errors.Join(err, lerr)
	}
	for _, sh := range shards {
		a := r.open(sh.Piece)
		if a == nil {
			continue
		}
		if data, merr := a.GetInto(buf, c); merr == nil {
			return data, nil
		}
	}
	return nil, err
}

// maxTogether is how many other pieces one deal may have open.
const maxTogether = 64

// open opens another piece, unless it is open already or cannot be.
func (r *pieceReader) open(piece cid.Cid) *dagstore.Accessor {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := slices.ContainsFunc(append(r.more[:len(r.more):len(r.more)], r.first), func(a *dagstore.Accessor) bool { return a.Shard().Piece.Equals(piece) })
	if r.closed || known || len(r.more) == maxTogether {
		return nil
	}
	a, err := r.store.Acquire(r.ctx, piece)
	if err != nil {
		return nil
	}
	r.more = append(r.more, a)
	return a
}

// Close implements retrievalimpl.Reader.
func (r *pieceReader) Close() error {
	r.stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	err := r.first.Close()
	for _, a := range r.more {
		err = errors.Join(err, a.Close())
	}
	r.more = nil
	return err
}

// samePiece reports whether two CIDs name one piece, by whichever version (FRC-0069).
func samePiece(a, b cid.Cid) bool {
	x, xerr := commp.V1(a)
	y, yerr := commp.V1(b)
	return xerr == nil && yerr == nil && x.Equals(y)
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
	return n.ProvideAs(ctx, path, ProvideOptions{})
}

// ProvideOptions say how something is put up for sale.
type ProvideOptions struct {
	Reading *imports.Options // of a file or folder
	Roots   []cid.Cid        // of a CAR, instead of those that it names
	Partial bool             // sells a CAR that does not hold everything below its roots
}

// ProvideAs is Provide with options.
func (n *Node) ProvideAs(ctx context.Context, path string, o ProvideOptions) (dagstore.Shard, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return dagstore.Shard{}, err
	}
	if _, err := os.Stat(path); err != nil {
		return dagstore.Shard{}, err
	}
	if strings.EqualFold(filepath.Ext(path), ".car") {
		return n.Pieces.Register(ctx, dagstore.Source{Path: path, Roots: o.Roots, Whole: !o.Partial, Partial: o.Partial})
	}
	if len(o.Roots) > 0 || o.Partial {
		return dagstore.Shard{}, reason.Usage.Errorf("%s: only a .car has roots of its own and may lack blocks", path)
	}
	return n.Pieces.Register(ctx, dagstore.Source{Name: path, Build: func(ctx context.Context, to string) error {
		return carstore.WriteNew(n.parts.FS, to, func(w io.Writer) error {
			_, err := imports.WriteCARTo(ctx, path, w, imports.UnixFS2025(), o.Reading)
			return err
		})
	}})
}
