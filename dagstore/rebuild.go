package dagstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/internal/blob"
)

// Rebuilt is what was made anew: the shard of a piece, or of a file that no shard had.
type Rebuilt struct {
	Piece cid.Cid // undefined if the file could not be read
	File  string  // empty for a shard that was known
	Error error
}

// Rebuild makes anew what can be lost, out of the pieces (R-N19): the rows of every shard that Doctor finds fault with, and the shards of files
// of the store's own that no record names, as after a loss of all records. Shards that are well stay as they are, and files that cannot be
// read stay where they are. Interrupted, it is begun again.
func (s *Store) Rebuild(ctx context.Context) iter.Seq2[Rebuilt, error] {
	return func(yield func(Rebuilt, error) bool) {
		var sick []cid.Cid
		for f, err := range s.Doctor(ctx) {
			if err != nil {
				yield(Rebuilt{}, err)
				return
			}
			if f.Piece.Defined() && f.Reason != CopyUnreadable {
				sick = append(sick, f.Piece)
			}
		}
		for _, piece := range sick {
			if !yield(Rebuilt{Piece: piece, Error: s.again(ctx, piece)}, ctx.Err()) {
				return
			}
		}
		files, err := s.unknownFiles()
		if err != nil {
			yield(Rebuilt{}, err)
			return
		}
		for _, file := range files {
			sh, err := s.takeBack(ctx, file)
			if !yield(Rebuilt{Piece: sh.Piece, File: file, Error: err}, ctx.Err()) {
				return
			}
		}
	}
}

// again reads a shard anew, whatever its state.
func (s *Store) again(ctx context.Context, piece cid.Cid) error {
	s.changing.Lock()
	n, err := s.cat.number(piece)
	if err == nil {
		var sh Shard
		if sh, err = s.cat.get(n); err == nil && sh.State == StateAvailable {
			sh.State, sh.Error = StateErrored, "its index is made anew"
			err = s.cat.put(sh)
		}
	}
	s.changing.Unlock()
	if err != nil {
		return err
	}
	return s.await(ctx, n)
}

// numbered are the files in the folder of the store's own pieces, by their number.
func (s *Store) numbered() (map[uint64]string, error) {
	entries, err := os.ReadDir(s.cfg.Pieces)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	out := map[uint64]string{}
	for _, e := range entries {
		base, ok := strings.CutSuffix(e.Name(), ".car")
		if n, perr := strconv.ParseUint(base, 10, 63); ok && perr == nil {
			out[n] = filepath.Join(s.cfg.Pieces, e.Name())
		}
	}
	return out, err
}

// unknownFiles are the files of the store's own that no record names, and that nothing is working on.
func (s *Store) unknownFiles() (out []string, err error) {
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	files, err := s.numbered()
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	err = s.cat.each(func(sh Shard, _ bool) { known[s.file(&sh)] = true }, nil)
	if err != nil {
		return nil, err
	}
	work, err := s.cat.work()
	for _, n := range work {
		known[s.own(n)] = true
	}
	for _, file := range files {
		if !known[file] {
			out = append(out, file)
		}
	}
	return out, err
}

// takeBack makes a file of the store's own a shard again. It goes under its new name only when it is one.
func (s *Store) takeBack(ctx context.Context, file string) (Shard, error) {
	sh, err := s.Register(ctx, Source{Name: file, Build: func(ctx context.Context, to string) error { return blob.Clone(ctx, s.cfg.FS, file, to) }})
	if err != nil {
		return sh, err
	}
	if err := s.cfg.FS.Remove(file); err != nil {
		return sh, fmt.Errorf("remove %s, whose piece has a file of its own now: %w", file, err)
	}
	return sh, nil
}

// skipNumbers keeps a catalogue that has lost its records from handing out the numbers of files that are there: they would be taken for what a
// crash left over.
func (s *Store) skipNumbers() error {
	fresh, err := s.cat.fresh()
	if err != nil || !fresh {
		return err
	}
	files, err := s.numbered()
	last := uint64(0)
	for n := range files {
		last = max(last, n)
	}
	if err != nil || last == 0 {
		return err
	}
	return s.cat.startAt(last + 1)
}
