package dagstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	mh "github.com/multiformats/go-multihash"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/commp"
	"github.com/cartage-dev/cartage/dagstore/index"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/shared"
)

// readPiece goes through the bytes of a shard once and makes its rows; root, sizes and, where it is not given, the piece are filled in. After an
// error the rows are as before.
func (x *indexer) readPiece(ctx context.Context, sh *Shard, progress func(int64, int64)) (err error) {
	f, err := x.files.openMount(ctx, sh)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if r, ok := f.(*ranges); ok { // a request under way ends with who wants it
		defer context.AfterFunc(ctx, r.stop)()
	}
	size, err := f.Size()
	if err != nil {
		return err
	}
	l, err := carstore.Inspect(f, size)
	if err != nil {
		return err
	}
	if !sh.Root.Defined() {
		sh.setRoots(l.Roots)
	}
	if !sh.Root.Defined() {
		return reason.ArchiveRoot.Errorf("the CAR names no root").WithHint("Name what is sold with --root CID; it can be given several times.")
	}
	sh.Offset, sh.Blocks = uint64(l.Offset), 0
	closure := &carstore.Closure{}
	began := time.Now()
	sum, err := x.index.Add(ctx, sh.Number, func(put func(index.Record) error) error {
		p, err := scanBlocks(ctx, f, l, sh, closure, put, progress)
		if err != nil {
			return err
		}
		return checkPiece(ctx, f, size, l, p, sh)
	})
	x.count.indexNanos.Add(uint64(time.Since(began)))
	if err == nil {
		x.count.records.Add(sh.Blocks)
	}
	sh.Bytes, sh.Opaque = sum.Bytes, closure.Opaque()
	if err != nil {
		return err
	}
	return x.findMissing(ctx, f, sh, closure)
}

// scanBlocks checks every block, and returns the smallest piece of the CAR.
func scanBlocks(ctx context.Context, f Reader, l carstore.Layout, sh *Shard, closure *carstore.Closure, put func(index.Record) error, progress func(int64, int64)) (commp.Piece, error) {
	w := commp.NewWriter(0)
	head := make([]byte, l.Header)
	if _, err := f.ReadAt(head, l.Offset); err != nil {
		return commp.Piece{}, err
	}
	if _, err := w.Write(head); err != nil {
		return commp.Piece{}, err
	}
	for _, root := range sh.Roots() {
		closure.Await(root, 0)
	}
	end := l.Header
	err := carstore.Walk(f, l, func(b carstore.Block) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := carstore.WriteSection(w, b.Cid, b.Data); err != nil {
			return err
		}
		end = b.Offset + b.Section
		closure.Add(b.Cid, b.Data)
		sh.Blocks++
		if progress != nil {
			progress(end, l.Size)
		}
		if b.Cid.Prefix().MhType == mh.IDENTITY {
			return nil // it carries its own bytes (R-N9)
		}
		return put(index.Record{Multihash: b.Cid.Hash(), Offset: uint64(b.Offset), Size: uint64(len(b.Data)), Overhead: uint64(b.Section) - uint64(len(b.Data))})
	})
	p, serr := w.Sum()
	if err = errors.Join(err, serr); err != nil {
		return p, err
	}
	sh.CarSize = uint64(end)
	dropped, err := carstore.Behind(f, l, end)
	sh.Dropped = uint64(dropped)
	return p, err
}

// WrongPieceError says that data is of another piece than it had to be.
type WrongPieceError struct{ Got, Expected cid.Cid }

// Error implements error.
func (e *WrongPieceError) Error() string {
	return fmt.Sprintf("given data does not match expected commP (got: %s, expected %s)", e.Got, e.Expected)
}

// checkPiece checks a CAR against the piece that it has to be: the CAR at the start of a larger piece, or a CARv2 as it lies. A shard without
// a piece gets the smallest one.
func checkPiece(ctx context.Context, f Reader, size int64, l carstore.Layout, p commp.Piece, sh *Shard) error {
	if !sh.Piece.Defined() {
		sh.Piece, sh.Padded = p.CID, uint64(p.Padded)
		return nil
	}
	if sh.Padded == 0 {
		sh.Padded = uint64(p.Padded)
	}
	up, err := commp.PadUp(p, commp.Padded(sh.Padded))
	if (err != nil || !up.CID.Equals(sh.Piece)) && l.Offset > 0 {
		if p, err = commp.Compute(shared.Reader(ctx, io.NewSectionReader(f, 0, size))); err != nil {
			return err
		}
		up, err = commp.PadUp(p, commp.Padded(sh.Padded))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", &WrongPieceError{Got: p.CID, Expected: sh.Piece}, err)
	}
	if !up.CID.Equals(sh.Piece) {
		return &WrongPieceError{Got: up.CID, Expected: sh.Piece}
	}
	return nil
}
