package dagstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/commp"
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
	s.subscribers.tellState(OpRegister, sh)
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
		s.subscribers.publish(e)
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

// checkPieceKey takes CIDs of pieces only (R-D17).
func checkPieceKey(piece cid.Cid) error {
	if _, err := commp.Commitment(piece); err != nil {
		return fmt.Errorf("%s is no key of a shard: %w", piece, err)
	}
	return nil
}
