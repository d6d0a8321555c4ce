package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
)

// maxShelved is how many blocks the shelf keeps the places of, about 100 bytes each; files that were not used for longest are left out beyond it.
const maxShelved = 1 << 19

// shelf knows where the blocks of all files of retrievals lie, so that what one holds is not bought for another. What it knows is read off the
// files when somebody looks, and kept while they do not change.
type shelf struct {
	fs   blob.FS
	list func(context.Context) ([]cached, error)

	mu    sync.Mutex
	books map[string]*book
}

// book is a file as it was when it was read.
type book struct {
	path     string
	size     int64
	changed  time.Time
	contents *carstore.Contents
}

// refresh reads what is new, and returns all but one file, the last used first.
func (s *shelf) refresh(ctx context.Context, but string) ([]*book, error) {
	list, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before, room := s.books, maxShelved
	s.books = make(map[string]*book, len(list))
	var out []*book
	for i := len(list) - 1; i >= 0 && room > 0; i-- {
		c := list[i]
		if c.path == but {
			continue
		}
		b := before[c.path]
		if b == nil || b.size != c.size || !b.changed.Equal(c.changed) {
			if b, err = s.read(c, room); err != nil {
				return nil, err
			}
		}
		s.books[c.path] = b
		room -= b.contents.Len()
		out = append(out, b)
	}
	return out, nil
}

// read reads a file; one that is gone, or that nobody can read, holds nothing.
func (s *shelf) read(c cached, room int) (*book, error) {
	b := &book{path: c.path, size: c.size, changed: c.changed, contents: &carstore.Contents{}}
	f, err := s.fs.Open(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return b, err
	}
	if contents, err := carstore.ReadContents(f, room); err == nil {
		b.contents = contents
	}
	return b, f.Close()
}

// holdings are the blocks that one retrieval finds on this node: in its own file, in those of others, and in the shared store if it goes there.
// It is used by one goroutine.
type holdings struct {
	own   *carstore.Store
	fs    blob.FS
	books []*book
	more  carstore.Getter
	open  map[string]blob.File
}

var _ carstore.Held = (*holdings)(nil)

// Has implements carstore.Held.
func (h *holdings) Has(c cid.Cid) bool {
	if _, ok := h.own.Size(c); ok {
		return true
	}
	if h.book(c) >= 0 {
		return true
	}
	if h.more == nil {
		return false
	}
	_, err := h.more(c)
	return err == nil
}

// book is the place of the first file that has a block, which is asked first the next time; below 0 if none has it.
func (h *holdings) book(c cid.Cid) int {
	for i, b := range h.books {
		if b.contents.Has(c) {
			h.books[0], h.books[i] = b, h.books[0]
			return 0
		}
	}
	return -1
}

// Get implements carstore.Held.
func (h *holdings) Get(c cid.Cid) ([]byte, error) {
	b, err := h.own.Get(c)
	if err == nil {
		return b.RawData(), nil
	}
	if !errors.Is(err, carstore.ErrNotFound) && !errors.Is(err, carstore.ErrBadHash) {
		return nil, err
	}
	return h.elsewhere(c)
}

// elsewhere reads a block that the own file does not have. A file that shows a damaged block has it no more.
func (h *holdings) elsewhere(c cid.Cid) ([]byte, error) {
	for h.book(c) == 0 {
		data, err := h.readFrom(h.books[0], c)
		if err == nil {
			return data, nil
		}
		h.books = h.books[1:] // of which it cannot be known what else is wrong with it
	}
	if h.more != nil {
		return h.more(c)
	}
	return nil, fmt.Errorf("%w: %s", carstore.ErrNotFound, c)
}

func (h *holdings) readFrom(b *book, c cid.Cid) ([]byte, error) {
	f := h.open[b.path]
	if f == nil {
		var err error
		if f, err = h.fs.Open(b.path); err != nil {
			return nil, err
		}
		if h.open == nil || len(h.open) >= maxBooksOpen {
			_ = h.close()
			h.open = map[string]blob.File{}
		}
		h.open[b.path] = f
	}
	return b.contents.Get(f, c)
}

// maxBooksOpen is how many files one retrieval reads at a time.
const maxBooksOpen = 64

func (h *holdings) close() error {
	var errs []error
	for path, f := range h.open {
		errs = append(errs, f.Close())
		delete(h.open, path)
	}
	return errors.Join(errs...)
}
