package gateway

import (
	"context"
	"errors"
	"io"

	"github.com/ipfs/go-cid"
)

// What a source answers when it has not what it is asked for.
var (
	ErrNotFound = errors.New("it is not here")
	// ErrNotLocal means that a block is known, and would have to be fetched or unsealed first.
	ErrNotLocal = errors.New("it is not at hand")
)

// Place is where a block lies, and how large it is.
type Place struct {
	Piece, Offset uint64
	Size          uint32 // bytes of the block
	Overhead      uint32 // bytes of its section before them; 0 if it is not known
}

// Blocks is where blocks are. It is safe for concurrent use.
type Blocks interface {
	// Find says where a block is, from an index: it reads no block. ErrNotFound, or ErrNotLocal.
	Find(ctx context.Context, c cid.Cid) (Place, error)
	// Read returns the bytes of a block, checked against its CID, in buf if that has room for them and a section head (64 bytes). What one
	// place cannot give is read from another; ErrNotFound if there is none.
	Read(ctx context.Context, c cid.Cid, p Place, buf []byte) ([]byte, error)
}

// ReaderAtCloser is the open bytes of a piece.
type ReaderAtCloser interface {
	io.ReaderAt
	io.Closer
}

// Piece is a piece with its sizes in bytes: of the payload, and padded.
type Piece struct {
	CID          cid.Cid // v1
	Size, Padded uint64
	Open         func(ctx context.Context) (ReaderAtCloser, error)
}

// Pieces is where pieces are, by their CID of version 1. It is safe for concurrent use.
type Pieces interface {
	// Piece finds a piece without reading it; ErrNotFound.
	Piece(ctx context.Context, c cid.Cid) (Piece, error)
}

// Verdict is why something is not served.
type Verdict struct {
	List  string // name of the list
	Line  int
	Legal bool // for legal reasons: the status is 451 instead of 410
}

// Denier knows what must not be served. It is safe for concurrent use.
type Denier interface {
	// Denied looks up a CID, or a CID with a path below it.
	Denied(c cid.Cid, path string) (Verdict, bool)
	// Generation changes when an answer of Denied may have changed.
	Generation() uint64
}
