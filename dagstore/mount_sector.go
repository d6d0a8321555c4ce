package dagstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"

	"github.com/ipfs/go-cid"
)

// Cost is what a copy of a piece costs to read.
type Cost int

// Costs, cheapest first.
const (
	CostLocal    Cost = iota // a file of this machine
	CostUnsealed             // an unsealed copy elsewhere
	CostSealed               // it has to be unsealed, which takes hours
)

// Copy is one place that has a piece.
type Copy struct {
	Name string // for people
	Cost Cost
	// Size is that of the padded piece without its padding bits, or of the CAR where that is known.
	Size int64
	Open func(ctx context.Context) (io.ReadCloser, error)
}

// Sectors knows the copies of pieces in a sealing system.
type Sectors interface {
	Locate(ctx context.Context, piece cid.Cid) ([]Copy, error)
}

// SectorScheme is the scheme of pieces in sectors: lotus://PIECE-CID, as nodes have stored it.
const SectorScheme = "lotus"

// ErrSealed means that a piece would have to be unsealed, which was not allowed.
var ErrSealed = errors.New("no unsealed copy of the piece is at hand")

// SectorMount reads pieces out of sectors. Unless unseal is set, copies that have to be unsealed are left alone (R-M2).
func SectorMount(sectors Sectors, unseal bool) Scheme {
	return func(u *url.URL) (Mount, error) {
		piece, err := cid.Decode(u.Host)
		if err == nil {
			err = checkPieceKey(piece)
		}
		if err != nil {
			return nil, fmt.Errorf("mount %q: %w", u, err)
		}
		return sectorMount{sectors, piece, unseal}, nil
	}
}

type sectorMount struct {
	sectors Sectors
	piece   cid.Cid
	unseal  bool
}

// Open implements Mount; a sector is streamed.
func (m sectorMount) Open(context.Context) (Reader, error) {
	return nil, errors.New("a sector can be read from its start only")
}

// Stream implements Streamer: copies are tried cheapest first, and the error names each that was tried (R-M3).
func (m sectorMount) Stream(ctx context.Context) (io.ReadCloser, int64, error) {
	copies, err := m.sectors.Locate(ctx, m.piece)
	if err != nil {
		return nil, 0, err
	}
	slices.SortStableFunc(copies, func(a, b Copy) int { return int(a.Cost) - int(b.Cost) })
	errs := []error{fmt.Errorf("piece %s", m.piece)}
	for _, c := range copies {
		if c.Cost == CostSealed && !m.unseal {
			errs = append(errs, fmt.Errorf("%s: %w", c.Name, ErrSealed))
			continue
		}
		r, err := c.Open(ctx)
		if err == nil {
			return r, c.Size, nil
		}
		if ctx.Err() != nil {
			return nil, 0, ctx.Err()
		}
		errs = append(errs, fmt.Errorf("%s: %w", c.Name, err))
	}
	if len(copies) == 0 {
		errs = append(errs, errors.New("no copy is known"))
	}
	return nil, 0, errors.Join(errs...)
}
