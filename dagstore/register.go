package dagstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/commp"
	"github.com/cartage-dev/cartage/dagstore/index"
)

// Source is a CAR to become a shard: a plain file, or what a mount reads.
type Source struct {
	Path  string
	Mount string // URL, instead of Path
	Name  string // what errors call it; Path or Mount if it is empty
	// Piece and Padded are given for data that has to be of a certain piece, which may be larger than the CAR: zeros follow. If
	// Piece is undefined, the smallest piece of the CAR is computed.
	Piece  cid.Cid
	Padded uint64
	// Owned says that the file belongs to the store and goes with the shard.
	Owned bool
	// Progress is told how many bytes were read.
	Progress func(done, total int64)
}

func (src *Source) name() string {
	switch {
	case src.Name != "":
		return src.Name
	case src.Mount != "":
		return src.Mount
	}
	return src.Path
}

// RegisterLazy notes a shard that is read when it is first acquired. A piece that is known is success (R-W2): its shard is returned as
// it is.
func (s *Store) RegisterLazy(_ context.Context, src Source) (Shard, error) {
	if err := checkKey(src.Piece); err != nil {
		return Shard{}, err
	}
	if src.Padded != 0 && commp.Padded(src.Padded) != commp.PaddedFor(commp.Payload(commp.Padded(src.Padded).Unpadded())) {
		return Shard{}, fmt.Errorf("piece %s: a padded size of %d is no power of two from 128 on", src.Piece, src.Padded)
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	if old, err := s.Info(src.Piece); !errors.Is(err, ErrShardUnknown) {
		return old, err
	}
	n, err := s.cat.next()
	if err != nil {
		return Shard{}, err
	}
	sh := Shard{Number: n, Piece: src.Piece, Padded: src.Padded, Path: src.Path, Mount: src.Mount, Owned: src.Owned, State: StateNew, Created: time.Now()}
	if _, err := s.mount(&sh); err != nil {
		return Shard{}, err
	}
	if err := s.cat.put(sh); err != nil {
		return sh, err
	}
	s.tell(OpRegister, sh)
	return sh, nil
}

// Register reads a CAR once: it checks every block, computes the piece commitment and makes the index. The same piece again is
// success, and is served from the new place. A CAR with no or several roots, or that is cut or lies, is refused and leaves nothing.
func (s *Store) Register(ctx context.Context, src Source) (Shard, error) {
	release, err := s.slot(ctx)
	if err != nil {
		return Shard{}, err
	}
	defer release()
	s.changing.Lock()
	n, err := s.cat.next()
	if err == nil {
		err = s.cat.begun(n)
	}
	s.changing.Unlock()
	if err != nil {
		return Shard{}, err
	}
	sh := Shard{Number: n, Piece: src.Piece, Padded: src.Padded, Path: src.Path, Mount: src.Mount, Owned: src.Owned, Created: time.Now()}
	if err := s.read(ctx, &sh, src.Progress); err != nil {
		return Shard{}, errors.Join(fmt.Errorf("%s: %w", src.name(), err), s.forget(n))
	}
	return s.adopt(sh)
}

// adopt makes what was read the shard of its piece.
func (s *Store) adopt(sh Shard) (Shard, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	old, err := s.Info(sh.Piece)
	switch {
	case errors.Is(err, ErrShardUnknown):
	case err != nil:
		return sh, errors.Join(err, s.forget(sh.Number))
	case old.State == StateAvailable || old.State == StateServing:
		if err := s.forget(sh.Number); err != nil {
			return old, err
		}
		if old.Path == sh.Path && old.Mount == sh.Mount && old.Offset == sh.Offset {
			return old, nil
		}
		left := ""
		if old.Owned && old.Path != sh.Path {
			left = old.Path
		}
		old.Path, old.Mount, old.Offset, old.Owned, old.State = sh.Path, sh.Mount, sh.Offset, sh.Owned, StateAvailable
		if err := s.cat.put(old); err != nil || left == "" {
			return old, err
		}
		return old, s.cfg.FS.RemoveAll(left)
	default: // not readable as it was known: this one takes its place
		if err := s.cat.removeLater(old); err != nil {
			return sh, err
		}
		if err := s.forget(old.Number); err != nil {
			return sh, err
		}
	}
	sh.State, sh.IndexedAt = StateAvailable, time.Now()
	if err := s.cat.put(sh); err != nil {
		return sh, err
	}
	s.tell(OpMakeAvailable, sh)
	return sh, nil
}

// checkKey takes CIDs of pieces only (R-D17).
func checkKey(piece cid.Cid) error {
	if _, err := commp.Commitment(piece); err != nil {
		return fmt.Errorf("%s is no key of a shard: %w", piece, err)
	}
	return nil
}

// read goes through the bytes of a shard once and makes its rows; root, sizes and, where it is not given, the piece are filled in. After an
// error the rows are as before.
func (s *Store) read(ctx context.Context, sh *Shard, progress func(int64, int64)) (err error) {
	f, err := s.openMount(ctx, sh)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return err
	}
	l, err := carstore.Inspect(f, size)
	if err != nil {
		return err
	}
	if len(l.Roots) != 1 {
		return fmt.Errorf("CAR has %d roots, a piece needs exactly one", len(l.Roots))
	}
	sh.Root, sh.Offset, sh.Blocks = l.Roots[0], uint64(l.Offset), 0
	sum, err := s.rows.Add(ctx, sh.Number, func(put func(index.Record) error) error {
		p, err := scan(ctx, f, l, sh, put, progress)
		if err != nil {
			return err
		}
		return fit(f, size, l, p, sh)
	})
	sh.Bytes = sum.Bytes
	return err
}

// scan checks every block, and returns the smallest piece of the CAR.
func scan(ctx context.Context, f Reader, l carstore.Layout, sh *Shard, put func(index.Record) error, progress func(int64, int64)) (commp.Piece, error) {
	w := commp.NewWriter(0)
	head := make([]byte, l.Header)
	if _, err := f.ReadAt(head, l.Offset); err != nil {
		return commp.Piece{}, err
	}
	if _, err := w.Write(head); err != nil {
		return commp.Piece{}, err
	}
	hasRoot := sh.Root.Prefix().MhType == mh.IDENTITY
	end := l.Header
	err := carstore.Walk(f, l, func(b carstore.Block) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := writeSection(w, b); err != nil {
			return err
		}
		end = b.Offset + b.Section
		hasRoot = hasRoot || b.Cid.Equals(sh.Root)
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
	if !hasRoot {
		return p, fmt.Errorf("the CAR does not hold its root %s", sh.Root)
	}
	sh.CarSize = uint64(end)
	return p, nil
}

func writeSection(w *commp.Writer, b carstore.Block) error {
	cb := b.Cid.Bytes()
	head := binary.AppendUvarint(nil, uint64(len(cb)+len(b.Data)))
	for _, part := range [][]byte{head, cb, b.Data} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// WrongPieceError says that data is of another piece than it had to be.
type WrongPieceError struct{ Got, Expected cid.Cid }

// Error implements error.
func (e *WrongPieceError) Error() string {
	return fmt.Sprintf("given data does not match expected commP (got: %s, expected %s)", e.Got, e.Expected)
}

// fit checks a CAR against the piece that it has to be: the CAR at the start of a larger piece, or a CARv2 as it lies. A shard without
// a piece gets the smallest one.
func fit(f Reader, size int64, l carstore.Layout, p commp.Piece, sh *Shard) error {
	if !sh.Piece.Defined() {
		sh.Piece, sh.Padded = p.CID, uint64(p.Padded)
		return nil
	}
	if sh.Padded == 0 {
		sh.Padded = uint64(p.Padded)
	}
	up, err := commp.PadUp(p, commp.Padded(sh.Padded))
	if (err != nil || !up.CID.Equals(sh.Piece)) && l.Offset > 0 {
		if p, err = commp.Compute(io.NewSectionReader(f, 0, size)); err != nil {
			return err
		}
		up, err = commp.PadUp(p, commp.Padded(sh.Padded))
	}
	if err != nil {
		return fmt.Errorf("the data makes piece %s: %w", p.CID, err)
	}
	if !up.CID.Equals(sh.Piece) {
		return &WrongPieceError{Got: up.CID, Expected: sh.Piece}
	}
	return nil
}
