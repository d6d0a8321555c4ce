package dagstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/commp"
	"github.com/cartage-dev/cartage/dagstore/index"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/shared"
)

// Source is a CAR to become a shard: a plain file, or what a mount reads.
type Source struct {
	Path  string
	Mount string // URL, instead of Path
	// Build, instead of Path, writes the CAR to the path that it is given; it becomes the store's own and goes with the shard. After a
	// crash, or an error, nothing of it is left.
	Build func(ctx context.Context, path string) error
	Name  string // what errors call it; Path or Mount if it is empty
	// Piece and Padded are given for data that has to be of a certain piece, which may be larger than the CAR: zeros follow. If
	// Piece is undefined, the smallest piece of the CAR is computed.
	Piece  cid.Cid
	Padded uint64
	// Roots are sold instead of those that the CAR names.
	Roots []cid.Cid
	// Whole refuses a CAR that lacks a block below its roots which no other piece here has (archive-incomplete).
	Whole bool
	// Partial takes a CAR that does not hold its roots (archive-root).
	Partial bool
	// Progress is told how many bytes were read.
	Progress func(done, total int64)
}

func (src *Source) displayName() string {
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
	if err := checkPieceKey(src.Piece); err != nil {
		return Shard{}, err
	}
	if src.Padded != 0 && commp.Padded(src.Padded) != commp.PaddedFor(commp.Payload(commp.Padded(src.Padded).Unpadded())) {
		return Shard{}, fmt.Errorf("piece %s: a padded size of %d is no power of two from 128 on", src.Piece, src.Padded)
	}
	leave, err := s.enter()
	if err != nil {
		return Shard{}, err
	}
	defer leave()
	s.changing.Lock()
	defer s.changing.Unlock()
	if old, err := s.Info(src.Piece); !errors.Is(err, ErrShardUnknown) {
		return old, err
	}
	n, err := s.nextNumber()
	if err != nil {
		return Shard{}, err
	}
	sh := Shard{Number: n, Piece: src.Piece, Padded: src.Padded, Path: src.Path, Mount: src.Mount, State: StateNew, Created: time.Now()}
	if _, err := s.mountOf(&sh); err != nil {
		return Shard{}, err
	}
	if err := s.cat.putShard(sh); err != nil {
		return sh, err
	}
	s.tellState(OpRegister, sh)
	return sh, nil
}

// Register reads a CAR once: it checks every block, computes the piece commitment and makes the index. The same piece again is
// success, and is served from the new place. A CAR without a root, or that is cut or lies, is refused and leaves nothing.
func (s *Store) Register(ctx context.Context, src Source) (Shard, error) {
	leave, err := s.enter()
	if err != nil {
		return Shard{}, err
	}
	defer leave()
	ctx, cancel := s.boundByStore(ctx)
	defer cancel()
	release, err := s.waitForSlot(ctx)
	if err != nil {
		return Shard{}, err
	}
	defer release()
	n, err := s.reserveNumber()
	if err != nil {
		return Shard{}, err
	}
	sh := Shard{Number: n, Piece: src.Piece, Padded: src.Padded, Path: src.Path, Mount: src.Mount, Created: time.Now()}
	sh.setRoots(src.Roots)
	if src.Build != nil {
		sh.Path, sh.Mount, sh.Owned = ownName(n), "", true
		if err = s.cfg.FS.MkdirAll(s.cfg.Pieces, 0o700); err == nil {
			err = src.Build(ctx, s.ownPath(n))
		}
	}
	if err == nil {
		err = s.readPiece(ctx, &sh, src.Progress)
	}
	if err == nil {
		err = s.checkComplete(ctx, &sh, &src)
	}
	if err != nil {
		if name := src.displayName(); name != "" {
			err = fmt.Errorf("%s: %w", name, err)
		}
		return Shard{}, errors.Join(err, s.clearNumber(n))
	}
	return s.adoptShard(ctx, sh)
}

// reserveNumber hands out a piece number, noted as one that a start clears away if no shard has it by then.
func (s *Store) reserveNumber() (uint64, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	n, err := s.nextNumber()
	if err == nil {
		err = s.cat.noteWork(n)
	}
	return n, err
}

// adoptShard makes what was read the shard of its piece.
func (s *Store) adoptShard(ctx context.Context, sh Shard) (Shard, error) {
	s.changing.Lock()
	old, err := s.formerShard(sh.Piece)
	if err != nil && !errors.Is(err, ErrShardUnknown) {
		s.changing.Unlock()
		return sh, errors.Join(err, s.clearNumber(sh.Number))
	}
	known := err == nil
	if known && old.State == StateAvailable {
		return s.moveShard(ctx, old, sh) // which unlocks
	}
	steps := registrationSteps(old, known, sh)
	sh.State, sh.IndexedAt = StateAvailable, time.Now()
	if !known {
		err = s.cat.putShard(sh)
	} else { // not readable as it was known: this one takes its place
		err = s.cat.replaceShard(old.Number, sh)
	}
	s.changing.Unlock()
	if err != nil {
		return sh, err
	}
	for _, e := range steps {
		s.subs.publish(e)
	}
	if !known {
		return sh, nil
	}
	return sh, s.clearAfterJobs(ctx, old.Number)
}

// registrationSteps is what happened to a piece that was read at its registration, in the order in which it is told.
func registrationSteps(old Shard, known bool, sh Shard) (out []Event) {
	step := func(op string, state State) { out = append(out, Event{Piece: sh.Piece, Op: op, State: state}) }
	switch {
	case !known:
		step(OpRegister, StateNew)
		step(OpInitialize, StateInitializing)
	case old.State == StateNew:
		step(OpInitialize, StateInitializing)
	case old.State == StateErrored:
		step(OpRecover, StateRecovering)
	}
	step(OpMakeAvailable, StateAvailable)
	return out
}

// formerShard is the shard that a piece has; of one whose record is damaged the number is known.
func (s *Store) formerShard(piece cid.Cid) (Shard, error) {
	n, err := s.cat.numberOf(piece)
	if err != nil {
		return Shard{}, err
	}
	old, err := s.cat.shardOf(n)
	if errors.Is(err, ErrBadRecord) {
		return Shard{Number: n, Piece: piece, State: StateErrored}, nil
	}
	return old, err
}

// moveShard serves a piece that can be read already from where it is now. changing is held, and let go. A file of the store's own is
// kept where it is, if it is all there.
func (s *Store) moveShard(ctx context.Context, old, sh Shard) (Shard, error) {
	changed := !slices.Equal(old.Roots(), sh.Roots()) || old.Checked != sh.Checked || old.Missing != sh.Missing
	old.Root, old.Others, old.Checked, old.Missing, old.Lacks = sh.Root, sh.Others, sh.Checked, sh.Missing, sh.Lacks
	old.Dropped, old.Opaque = sh.Dropped, sh.Opaque
	if changed {
		if err := s.cat.putShard(old); err != nil {
			s.changing.Unlock()
			return old, errors.Join(err, s.clearNumber(sh.Number))
		}
	}
	same := old.Path == sh.Path && old.Mount == sh.Mount && old.Offset == sh.Offset
	if same || sh.Owned && s.Present(ctx, old) == nil {
		s.changing.Unlock()
		return old, s.clearNumber(sh.Number)
	}
	left := ""
	if old.Owned && !s.sameFile(&old, &sh) {
		left = s.filePath(&old)
	}
	old.Path, old.Mount, old.Offset, old.Owned = sh.Path, sh.Mount, sh.Offset, sh.Owned
	err := s.cat.putShard(old)
	s.changing.Unlock()
	if err != nil {
		return old, errors.Join(err, s.clearNumber(sh.Number))
	}
	s.detachReader(old.Number)
	// From here on the piece is registered: what cannot be cleared away now is no failure of that.
	if left != "" {
		_ = s.cfg.FS.RemoveAll(left)
	}
	if sh.Owned { // its file is served; only its rows go
		if s.index.Remove(context.WithoutCancel(ctx), sh.Number) == nil {
			_ = s.cat.clearWork(sh.Number)
		}
		return old, nil
	}
	_ = s.clearNumber(sh.Number)
	return old, nil
}

func (s *Store) sameFile(a, b *Shard) bool {
	x, err := os.Stat(s.filePath(a))
	y, yerr := os.Stat(s.filePath(b))
	return err == nil && yerr == nil && os.SameFile(x, y)
}

// checkPieceKey takes CIDs of pieces only (R-D17).
func checkPieceKey(piece cid.Cid) error {
	if _, err := commp.Commitment(piece); err != nil {
		return fmt.Errorf("%s is no key of a shard: %w", piece, err)
	}
	return nil
}

// readPiece goes through the bytes of a shard once and makes its rows; root, sizes and, where it is not given, the piece are filled in. After an
// error the rows are as before.
func (s *Store) readPiece(ctx context.Context, sh *Shard, progress func(int64, int64)) (err error) {
	f, err := s.openMount(ctx, sh)
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
	sum, err := s.index.Add(ctx, sh.Number, func(put func(index.Record) error) error {
		p, err := scanBlocks(ctx, f, l, sh, closure, put, progress)
		if err != nil {
			return err
		}
		return checkPiece(ctx, f, size, l, p, sh)
	})
	s.count.indexNanos.Add(uint64(time.Since(began)))
	if err == nil {
		s.count.records.Add(sh.Blocks)
	}
	sh.Bytes, sh.Opaque = sum.Bytes, closure.Opaque()
	if err != nil {
		return err
	}
	return s.findMissing(ctx, f, sh, closure)
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
