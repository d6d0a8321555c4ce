package dagstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"slices"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/commp"
	"github.com/cartage-dev/cartage/dagstore/index"
	"github.com/cartage-dev/cartage/shared"
)

// Rebuilt is what was made anew: the shard of a piece, or of a file that no shard had.
type Rebuilt struct {
	Piece cid.Cid // undefined if the file could not be read
	File  string  // empty for a shard that was known
	Error error
}

// KnownPiece is a piece that somebody has a deal about; it may be larger than the smallest one of its data.
type KnownPiece struct {
	Piece  cid.Cid
	Padded uint64
}

// rebuild is one run of Rebuild.
type rebuild struct {
	store *Store
	known []KnownPiece
}

// Rebuild makes anew what can be lost, out of the pieces (R-N19): the rows of every shard that Doctor finds fault with, and the shards of files
// of the store's own that no record names, as after a loss of all records. Such a file becomes the piece among known that its data makes, else
// the smallest one. Shards that are well stay as they are, as do those that cannot be read and those that were registered only; files
// that cannot be read stay where they are. Interrupted, it is begun again. One runs at a time.
func (s *Store) Rebuild(ctx context.Context, known []KnownPiece) iter.Seq2[Rebuilt, error] {
	return func(yield func(Rebuilt, error) bool) {
		select {
		case s.rebuilding <- struct{}{}:
			defer func() { <-s.rebuilding }()
		case <-ctx.Done():
			yield(Rebuilt{}, ctx.Err())
			return
		}
		rb := &rebuild{store: s, known: known}
		var sick []cid.Cid
		for f, err := range s.Doctor(ctx) {
			if err != nil {
				yield(Rebuilt{}, err)
				return
			}
			if f.Piece.Defined() && f.Reason != CopyUnreadable && f.state != StateNew && f.state != StateInitializing {
				sick = append(sick, f.Piece)
			}
		}
		for _, piece := range sick {
			if !yield(Rebuilt{Piece: piece, Error: rb.reindexShard(ctx, piece)}, ctx.Err()) {
				return
			}
		}
		files, err := rb.unknownFiles()
		if err != nil {
			yield(Rebuilt{}, err)
			return
		}
		for _, file := range files {
			sh, err := rb.reclaimFile(ctx, file)
			if !yield(Rebuilt{Piece: sh.Piece, File: file, Error: err}, ctx.Err()) {
				return
			}
		}
	}
}

// reindexShard reads a shard anew. One that cannot be read to its end stays as it is: some of it may be served.
func (rb *rebuild) reindexShard(ctx context.Context, piece cid.Cid) error {
	leave, err := rb.store.enter()
	if err != nil {
		return err
	}
	defer leave()
	n, err := rb.store.cat.numberOf(piece)
	if err != nil {
		return err
	}
	sh, err := rb.store.cat.shardOf(n)
	if err != nil {
		return err
	}
	if sh.State == StateAvailable {
		if err := rb.checkReadable(ctx, sh); err != nil {
			return err
		}
		rb.store.changing.Lock()
		if sh, err = rb.store.cat.shardOf(n); err == nil && sh.State == StateAvailable {
			sh.State = StateInitializing // a crash from here on is made good at the next start
			err = rb.store.cat.putShard(sh)
		}
		rb.store.changing.Unlock()
		if err != nil {
			return err
		}
	}
	return rb.store.awaitIndexing(ctx, n)
}

// checkReadable tells whether every block of a shard can be read.
func (rb *rebuild) checkReadable(ctx context.Context, sh Shard) error {
	f, err := rb.store.openMount(ctx, &sh)
	if err != nil {
		return err
	}
	l, err := layoutOf(f)
	if err == nil {
		_, err = scanBlocks(ctx, f, l, &sh, &carstore.Closure{}, func(index.Record) error { return nil }, nil)
	}
	return errors.Join(err, f.Close())
}

func layoutOf(f Reader) (carstore.Layout, error) {
	size, err := f.Size()
	if err != nil {
		return carstore.Layout{}, err
	}
	return carstore.Inspect(f, size)
}

// unknownFiles are the files of the store's own that no record names, and that nothing is working on. No number is handed out twice, so that
// none of them can become a shard's later.
func (rb *rebuild) unknownFiles() (out []string, err error) {
	leave, err := rb.store.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	files, err := rb.store.ownFiles()
	if err != nil {
		return nil, err
	}
	rb.store.changing.Lock()
	defer rb.store.changing.Unlock()
	known := map[string]bool{}
	work, err := rb.store.cat.pendingWork()
	if err != nil {
		return nil, err
	}
	for _, n := range work {
		known[rb.store.ownPath(n)] = true
	}
	err = rb.store.cat.eachShard(func(sh Shard, _ bool) { known[rb.store.filePath(&sh)] = true }, nil)
	for _, file := range files {
		if !known[file] {
			out = append(out, file)
		}
	}
	slices.Sort(out)
	return out, err
}

// reclaimFile makes a file of the store's own a shard again. It goes under its new name only when it is one.
func (rb *rebuild) reclaimFile(ctx context.Context, file string) (Shard, error) {
	src := Source{Name: file, Build: func(ctx context.Context, to string) error { return blob.Clone(ctx, rb.store.cfg.FS, file, to) }}
	k, err := rb.recognisePiece(ctx, file)
	if err != nil {
		return Shard{}, fmt.Errorf("%s: %w", file, err)
	}
	src.Piece, src.Padded = k.Piece, k.Padded
	sh, err := rb.store.Register(ctx, src)
	if err != nil {
		return sh, err
	}
	if rb.store.filePath(&sh) == file {
		return sh, nil
	}
	if err := rb.store.cfg.FS.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return sh, fmt.Errorf("remove %s, whose piece has a file of its own now: %w", file, err)
	}
	return sh, nil
}

// recognisePiece finds the known piece that a file is: its data with zeros behind it. None is the smallest piece of the data.
func (rb *rebuild) recognisePiece(ctx context.Context, file string) (k KnownPiece, err error) {
	if len(rb.known) == 0 {
		return k, nil
	}
	f, err := rb.store.cfg.FS.Open(file)
	if err != nil {
		return k, err
	}
	defer f.Close()
	l, err := layoutOf(f)
	if err != nil {
		return k, err
	}
	size, err := f.Size()
	if err != nil {
		return k, err
	}
	data := []*io.SectionReader{io.NewSectionReader(f, l.Offset, l.Size)}
	if l.Offset > 0 { // a CARv2 may be a piece as it lies
		data = append(data, io.NewSectionReader(f, 0, size))
	}
	for _, d := range data {
		p, err := commp.Compute(shared.Reader(ctx, d))
		if err != nil {
			return k, err
		}
		for _, k := range rb.known {
			if up, err := commp.PadUp(p, commp.Padded(k.Padded)); err == nil && up.CID.Equals(k.Piece) {
				return k, nil
			}
		}
	}
	return k, nil
}

// skipNumbers keeps a catalogue that has lost records from handing out the numbers of files that are there: they would be taken for what a
// crash left over.
func (s *Store) skipNumbers() error {
	fresh, err := s.cat.isFresh()
	if err != nil || !fresh {
		return err
	}
	files, err := s.ownFiles()
	last := uint64(0)
	for n := range files {
		last = max(last, n)
	}
	if err != nil || last == 0 {
		return err
	}
	return s.cat.setNextNumber(last + 1)
}

// nextNumber hands out a number that no file has. changing is held.
func (s *Store) nextNumber() (uint64, error) {
	for {
		n, err := s.cat.takeNumber()
		if err != nil {
			return 0, err
		}
		if _, err := os.Lstat(s.ownPath(n)); errors.Is(err, fs.ErrNotExist) {
			return n, nil
		} else if err != nil {
			return 0, err
		}
	}
}
