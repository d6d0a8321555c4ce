// Package index knows where blocks lie: for each multihash the pieces that hold it, with the offset of its section and its size.
// Pieces are small numbers that are never used again. The embedded back-end keeps rows in Pebble, and for each piece a file in
// the order of multihashes, from which its rows are loaded, listed and removed (node spec 7.5).
package index

import (
	"context"
	"errors"
	"iter"

	mh "github.com/multiformats/go-multihash"
)

// ErrUnknownPiece means that the index has no rows of a piece.
var ErrUnknownPiece = errors.New("piece is not indexed")

// Record is where a block of a piece lies.
type Record struct {
	Multihash mh.Multihash
	Offset    uint64 // of the section in the CARv1
	Size      uint64 // of the block
	Overhead  uint64 // of the section around the block: its length and its CID
}

// Section is the size of the section.
func (r Record) Section() uint64 { return r.Size + r.Overhead }

// Row is a record of one of the pieces that hold a multihash.
type Row struct {
	Piece uint64
	Record
}

// Summary is what was loaded: each multihash counts once.
type Summary struct {
	Records uint64
	Bytes   uint64 // of the blocks
}

// Loader takes the records of pieces and forgets them. Adds of different pieces run side by side.
type Loader interface {
	// Add makes records, in any order, the rows of a piece, all at once and durably; of a multihash that comes twice the lowest offset
	// counts. Rows that the piece had are replaced. An error leaves what was there. fill is called once and gives its records to put.
	Add(ctx context.Context, piece uint64, fill func(put func(Record) error) error) (Summary, error)
	// Remove forgets a piece; one that is not there is success.
	Remove(ctx context.Context, piece uint64) error
}

// Finder looks blocks up. It never waits for a Loader.
type Finder interface {
	// Find returns the rows of a multihash in the order of pieces.
	Find(ctx context.Context, hash mh.Multihash) ([]Row, error)
}

// Lister goes through the records of a piece in the order of multihashes, from the first that is not below from (which may be nil).
type Lister interface {
	Iterate(ctx context.Context, piece uint64, from mh.Multihash) iter.Seq2[Record, error]
}

// Index is a back-end. It is safe for concurrent use.
type Index interface {
	Loader
	Finder
	Lister
	Close() error
}
