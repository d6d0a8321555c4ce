package dagstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/dagstore/index"
	"github.com/cartage-dev/cartage/internal/reason"
)

// Reader gives random access to the bytes of a piece. ReadAt fills its buffer, or says why not.
type Reader interface {
	io.ReaderAt
	io.Closer
	Size() (int64, error)
}

// Mount is where the bytes of a piece come from. It can be opened as often as one likes.
type Mount interface {
	Open(ctx context.Context) (Reader, error)
}

// Streamer is a Mount that can be read from its start only: it is copied, within a quota, before it is read. Its Open is not used.
type Streamer interface {
	Mount
	Stream(ctx context.Context) (r io.ReadCloser, size int64, err error)
}

// Scheme makes a mount of a URL.
type Scheme func(u *url.URL) (Mount, error)

// fileMount is a plain file.
type fileMount struct {
	fs   blob.FS
	path string
}

// Open implements Mount.
func (m fileMount) Open(context.Context) (Reader, error) { return m.fs.Open(m.path) }

// mountOf returns the mount of a shard.
func (s *Store) mountOf(sh *Shard) (Mount, error) {
	if sh.Mount == "" {
		return fileMount{s.cfg.FS, s.filePath(sh)}, nil
	}
	u, err := url.Parse(sh.Mount)
	if err != nil {
		return nil, fmt.Errorf("mount %q: %w", sh.Mount, err)
	}
	f, ok := s.cfg.Mounts[u.Scheme]
	if !ok {
		return nil, fmt.Errorf("unrecognized mount scheme: %s of %q", u.Scheme, sh.Mount)
	}
	return f(u)
}

// filePath is the path of a shard that is a plain file: names without a folder are the store's own.
func (s *Store) filePath(sh *Shard) string {
	if filepath.IsAbs(sh.Path) || sh.Path == "" {
		return sh.Path
	}
	return filepath.Join(s.cfg.Pieces, sh.Path)
}

// File is the file that a shard is served from, or nothing for one that is no plain file.
func (s *Store) File(sh Shard) string {
	if sh.Mount != "" {
		return ""
	}
	return s.filePath(&sh)
}

// Present tells whether the bytes of a shard seem to be there, without reading or copying all of them: of a file that was written to since it
// was looked at, the root and a few other blocks are read.
func (s *Store) Present(ctx context.Context, sh Shard) error {
	m, err := s.mountOf(&sh)
	if err != nil {
		return err
	}
	if _, ok := m.(fileMount); !ok {
		return nil
	}
	f, err := m.Open(ctx)
	if err != nil {
		return err
	}
	if err = checkLength(f, &sh); err == nil {
		err = s.checkUnchanged(ctx, f, &sh)
	}
	return errors.Join(err, f.Close())
}

// fileStamp is what a file was like when some of its blocks were read.
type fileStamp struct {
	size    int64
	written time.Time
}

// checkedBlocks is how many blocks of a changed file are read.
const checkedBlocks = 8

// checkUnchanged reads some blocks of a file, unless it is as it was when that was done last.
func (s *Store) checkUnchanged(ctx context.Context, f Reader, sh *Shard) error {
	st, err := os.Stat(s.filePath(sh))
	if err != nil {
		return err
	}
	now := fileStamp{st.Size(), st.ModTime()}
	s.mu.Lock()
	same := s.proved[sh.Number] == now
	s.mu.Unlock()
	if same || sh.State != StateAvailable && sh.State != StateServing {
		return nil
	}
	leave, err := s.enter()
	if err != nil {
		return err
	}
	defer leave()
	if err := s.checkSomeBlocks(ctx, f, sh); err != nil {
		return reason.PieceDamaged.Errorf("piece %s: %s is not what it was when it was registered: %w", sh.Piece, sh.Where(), err).
			WithHint("Put the file back, or provide it again.")
	}
	s.mu.Lock()
	s.proved[sh.Number] = now
	s.mu.Unlock()
	return nil
}

func (s *Store) checkSomeBlocks(ctx context.Context, f Reader, sh *Shard) error {
	read := func(r *index.Row) error {
		_, err := carstore.ReadSection(f, int64(sh.Offset+r.Offset), int64(r.Section()), cid.NewCidV1(cid.Raw, r.Multihash))
		return err
	}
	for _, root := range sh.Roots() {
		row, err := s.rowOfPiece(ctx, sh.Number, root.Hash())
		if err == nil && row != nil {
			err = read(row)
		}
		if err != nil {
			return err
		}
	}
	n := 0
	for r, err := range s.index.Iterate(ctx, sh.Number, nil) {
		if err != nil {
			return err
		}
		row, err := s.rowOfPiece(ctx, sh.Number, r.Multihash)
		if err == nil && row != nil {
			err = read(row)
		}
		if err != nil {
			return err
		}
		if n++; n == checkedBlocks {
			break
		}
	}
	return nil
}

// checkLength tells whether a file is as long as the shard needs it.
func checkLength(f Reader, sh *Shard) error {
	size, err := f.Size()
	if err == nil && uint64(size) < sh.Offset+sh.CarSize {
		err = fmt.Errorf("%w: it has %d bytes, it had at least %d when it was registered", io.ErrUnexpectedEOF, size, sh.Offset+sh.CarSize)
	}
	if err != nil {
		return fmt.Errorf("piece %s: %s: %w", sh.Piece, sh.Where(), err)
	}
	return nil
}

// openMount opens the bytes of a shard: as they lie where they can be read at random, else as a copy.
func (s *Store) openMount(ctx context.Context, sh *Shard) (Reader, error) {
	m, err := s.mountOf(sh)
	if err != nil {
		return nil, err
	}
	if st, ok := m.(Streamer); ok {
		return s.transients.open(ctx, sh.Number, st)
	}
	return m.Open(ctx)
}
