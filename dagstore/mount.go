package dagstore

import (
	"context"
	"io"
	"net/url"

	"github.com/cartage-dev/cartage/blob"
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
