package dagstore

import (
	"context"
	"fmt"
	"io"
	"net/url"

	"github.com/cartage-dev/cartage/internal/blob"
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

// mount returns the mount of a shard.
func (s *Store) mount(sh *Shard) (Mount, error) {
	if sh.Mount == "" {
		return fileMount{s.cfg.FS, sh.Path}, nil
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

// openMount opens the bytes of a shard: as they lie where they can be read at random, else as a copy.
func (s *Store) openMount(ctx context.Context, sh *Shard) (Reader, error) {
	m, err := s.mount(sh)
	if err != nil {
		return nil, err
	}
	if st, ok := m.(Streamer); ok {
		return s.trans.open(ctx, sh.Number, st)
	}
	return m.Open(ctx)
}
