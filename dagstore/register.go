package dagstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/commp"
	"github.com/cartage-dev/cartage/internal/blob"
)

// Source is a CAR file to become a shard.
type Source struct {
	Path string
	Name string // what errors call it; Path if it is empty
	// Piece and Padded are given for data that has to be of a certain piece, which may be larger than the CAR: zeros follow. If
	// Piece is undefined, the smallest piece of the CAR is computed.
	Piece  cid.Cid
	Padded uint64
	// Progress is told how many bytes were read.
	Progress func(done, total int64)
}

// Register reads a CAR once: it checks every block, computes the piece commitment and builds the index. The same piece
// again is success. A CAR with no or several roots, or that is cut or lies, is refused and leaves nothing.
func (s *Store) Register(ctx context.Context, src Source) (Shard, error) {
	f, err := s.fs.Open(src.Path)
	if err != nil {
		return Shard{}, err
	}
	defer f.Close()
	if src.Name == "" {
		src.Name = src.Path
	}
	size, err := f.Size()
	if err != nil {
		return Shard{}, err
	}
	l, err := carstore.Inspect(f, size)
	if err != nil {
		return Shard{}, fmt.Errorf("%s: %w", src.Name, err)
	}
	if len(l.Roots) != 1 {
		return Shard{}, fmt.Errorf("%s: CAR has %d roots, a piece needs exactly one", src.Name, len(l.Roots))
	}
	sh := Shard{Root: l.Roots[0], Path: src.Path, Offset: uint64(l.Offset)}
	rows, err := s.index(ctx, f, l, &sh, src.Progress)
	if err != nil {
		return Shard{}, fmt.Errorf("%s: %w", src.Name, err)
	}
	if src.Piece.Defined() {
		if err := fit(f, size, l, &sh, src); err != nil {
			return Shard{}, fmt.Errorf("%s: %w", src.Name, err)
		}
	}
	old, err := s.Info(sh.Piece)
	switch {
	case errors.Is(err, ErrShardUnknown):
		return s.store(sh, rows)
	case err != nil:
		return sh, err
	case old.State == StateAvailable || old.State == StateServing:
		if old.Path == sh.Path && old.Offset == sh.Offset {
			return old, nil
		}
		old.Path, old.Offset, old.State = sh.Path, sh.Offset, StateAvailable // the file was moved: it is served from where it is now
		return old, s.put(old)
	}
	sh.Number = old.Number // what a crash interrupted is finished under its number
	return s.store(sh, rows)
}

// WrongPieceError says that data is of another piece than it had to be.
type WrongPieceError struct{ Got, Expected cid.Cid }

// Error implements error.
func (e *WrongPieceError) Error() string {
	return fmt.Sprintf("given data does not match expected commP (got: %s, expected %s)", e.Got, e.Expected)
}

// fit checks a CAR against the piece that it has to be: the CAR at the start of a larger piece, or a CARv2 as it lies.
func fit(f blob.File, size int64, l carstore.Layout, sh *Shard, src Source) error {
	p := commp.Piece{CID: sh.Piece, Padded: commp.Padded(sh.Padded)}
	up, err := commp.PadUp(p, commp.Padded(src.Padded))
	if (err != nil || !up.CID.Equals(src.Piece)) && l.Offset > 0 {
		if p, err = commp.Compute(io.NewSectionReader(f, 0, size)); err != nil {
			return err
		}
		up, err = commp.PadUp(p, commp.Padded(src.Padded))
	}
	if err != nil {
		return fmt.Errorf("the data makes piece %s: %w", p.CID, err)
	}
	if !up.CID.Equals(src.Piece) {
		return &WrongPieceError{Got: up.CID, Expected: src.Piece}
	}
	sh.Piece, sh.Padded = src.Piece, src.Padded
	return nil
}

type rowEntry struct {
	hash         mh.Multihash
	offset, size uint64
}

// index reads the CAR: rows, counts and commitment in one pass.
func (s *Store) index(ctx context.Context, f blob.File, l carstore.Layout, sh *Shard, progress func(int64, int64)) ([]rowEntry, error) {
	w := commp.NewWriter(0)
	head := make([]byte, l.Header)
	if _, err := f.ReadAt(head, l.Offset); err != nil {
		return nil, err
	}
	if _, err := w.Write(head); err != nil {
		return nil, err
	}
	var rows []rowEntry
	seen := map[string]bool{}
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
		k := string(b.Cid.Hash())
		hasRoot = hasRoot || b.Cid.Equals(sh.Root)
		if !seen[k] && b.Cid.Prefix().MhType != mh.IDENTITY {
			seen[k] = true
			sh.Bytes += uint64(len(b.Data))
			rows = append(rows, rowEntry{b.Cid.Hash(), uint64(b.Offset), uint64(b.Section)})
		}
		sh.Blocks++
		if progress != nil {
			progress(end, l.Size)
		}
		return nil
	})
	p, serr := w.Sum()
	if err = errors.Join(err, serr); err != nil {
		return nil, err
	}
	if !hasRoot {
		return nil, fmt.Errorf("the CAR does not hold its root %s", sh.Root)
	}
	sh.Piece, sh.Padded, sh.CarSize = p.CID, uint64(p.Padded), uint64(end)
	return rows, nil
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

// store writes rows and shard; the shard is Available only with all of its rows (R-D8).
func (s *Store) store(sh Shard, rows []rowEntry) (Shard, error) {
	n := sh.Number
	if n == 0 {
		var err error
		s.mu.Lock()
		n, err = s.next()
		s.mu.Unlock()
		if err != nil {
			return sh, err
		}
	}
	sh.Number, sh.State = n, StateInitializing
	if err := s.put(sh); err != nil {
		return sh, err
	}
	b := s.kv.NewBatch()
	for _, r := range rows {
		key := append(append([]byte(keyRow), r.hash...), be(n)...)
		b.Set(key, binary.AppendUvarint(binary.AppendUvarint(nil, r.offset), r.size))
		if b.Len() > 4<<20 {
			if err := b.Commit(false); err != nil {
				return sh, err
			}
			b = s.kv.NewBatch()
		}
	}
	if err := b.Commit(true); err != nil {
		return sh, err
	}
	sh.State = StateAvailable
	return sh, s.put(sh)
}

// next hands out a piece number; mu is held.
func (s *Store) next() (uint64, error) {
	b, err := s.kv.Get([]byte(keyNext))
	if err != nil {
		return 0, err
	}
	n := uint64(1)
	if b != nil {
		n = binary.BigEndian.Uint64(b)
	}
	batch := s.kv.NewBatch()
	batch.Set([]byte(keyNext), be(n+1))
	return n, batch.Commit(true)
}
