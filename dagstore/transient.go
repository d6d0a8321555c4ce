package dagstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/shared"
)

// transients are copies of pieces whose mount can only be read from its start. They are bounded by a quota; idle ones go, least
// recently used first, and who needs room waits for it (R-D11).
type transients struct {
	fs    blob.FS
	dir   string
	quota int64
	slots chan struct{}

	mu    sync.Mutex
	files map[uint64]*transient
	total int64
	clock uint64
	freed chan struct{} // closed, and made anew, when something became idle
}

type transient struct {
	size   int64
	refs   int
	used   uint64
	doomed bool // to be removed when nobody reads it
}

const complete = ".complete"

// openTransients takes over what is there; what is not complete, or of no shard, is removed.
func openTransients(cfg Config, known func(n uint64) bool) (*transients, error) {
	t := &transients{fs: cfg.FS, dir: filepath.Join(cfg.Dir, "transients"), quota: cfg.TransientQuota, slots: make(chan struct{}, cfg.MaxConcurrentReadyFetches),
		files: map[uint64]*transient{}, freed: make(chan struct{})}
	list, err := os.ReadDir(t.dir)
	if errors.Is(err, os.ErrNotExist) {
		return t, nil
	}
	for _, f := range list {
		info, ierr := f.Info()
		n, perr := strconv.ParseUint(strings.TrimSuffix(f.Name(), complete), 10, 64)
		if ierr != nil || perr != nil || !strings.HasSuffix(f.Name(), complete) || !known(n) {
			err = errors.Join(err, t.fs.RemoveAll(filepath.Join(t.dir, f.Name())))
			continue
		}
		t.files[n] = &transient{size: info.Size()}
		t.total += info.Size()
	}
	return t, err
}

func (t *transients) name(n uint64) string {
	return filepath.Join(t.dir, strconv.FormatUint(n, 10)+complete)
}

// held is a copy that is being read.
type held struct {
	blob.File
	t    *transients
	n    uint64
	once sync.Once
}

// Close implements io.Closer.
func (h *held) Close() (err error) {
	h.once.Do(func() {
		err = h.File.Close()
		h.t.release(h.n)
	})
	return err
}

func (t *transients) release(n uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clock++
	if f := t.files[n]; f != nil {
		f.refs--
		f.used = t.clock
		if f.doomed && f.refs == 0 {
			_ = t.remove(n)
		}
	}
	close(t.freed)
	t.freed = make(chan struct{})
}

// open opens the copy of a piece, which it makes if there is none. The caller sees to it that one piece is not opened twice at once.
func (t *transients) open(ctx context.Context, n uint64, m Streamer) (Reader, error) {
	t.mu.Lock()
	f := t.files[n]
	if f != nil {
		f.refs++
	}
	t.mu.Unlock()
	if f == nil {
		if err := t.fetch(ctx, n, m); err != nil {
			return nil, err
		}
	}
	file, err := t.fs.Open(t.name(n))
	if err != nil {
		t.release(n)
		return nil, err
	}
	return &held{File: file, t: t, n: n}, nil
}

// fetch copies a piece; the copy has one reference then. Who waits for room keeps neither a place nor a stream: the size is known only
// from the stream, so that it is opened anew when something became idle.
func (t *transients) fetch(ctx context.Context, n uint64, m Streamer) error {
	if err := t.fs.MkdirAll(t.dir, 0o700); err != nil {
		return err
	}
	for {
		freed, err := t.fetchNow(ctx, n, m)
		if err != nil || freed == nil {
			return err
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// fetchNow copies a piece in its turn. If there is no room, freed is closed when it is worth to try again.
func (t *transients) fetchNow(ctx context.Context, n uint64, m Streamer) (freed <-chan struct{}, err error) {
	select {
	case t.slots <- struct{}{}:
		defer func() { <-t.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	r, size, err := m.Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if freed, err = t.reserve(n, size); err != nil || freed != nil {
		return freed, err
	}
	if err = t.write(ctx, n, r, size); err != nil {
		t.mu.Lock()
		delete(t.files, n)
		t.total -= size
		t.mu.Unlock()
	}
	return nil, err
}

func (t *transients) write(ctx context.Context, n uint64, r io.Reader, size int64) error {
	tmp := strings.TrimSuffix(t.name(n), complete) + ".partial"
	_ = t.fs.RemoveAll(tmp)
	f, err := t.fs.Create(tmp, 0o600)
	if err != nil {
		return err
	}
	w := &blob.Appender{F: f}
	_, err = io.CopyN(w, shared.Reader(ctx, r), size)
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("the source ended after %d bytes, it should have %d: %w", w.Off, size, io.ErrUnexpectedEOF)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, t.fs.RemoveAll(tmp))
	}
	return blob.Publish(t.fs, tmp, t.name(n))
}

// reserve takes room for a copy. If there is none, freed is closed when some copy is read by nobody any more.
func (t *transients) reserve(n uint64, size int64) (freed <-chan struct{}, err error) {
	if size < 0 || size > t.quota {
		return nil, fmt.Errorf("a copy of %d bytes is needed, the quota of copies is %d", size, t.quota)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.total+size > t.quota {
		if err := t.evict(t.quota/10*9 - size); err != nil {
			return nil, err
		}
	}
	if t.total+size > t.quota {
		return t.freed, nil
	}
	t.files[n] = &transient{size: size, refs: 1}
	t.total += size
	return nil, nil
}

// evict removes idle copies until no more than so many bytes are left. mu is held.
func (t *transients) evict(low int64) error {
	for t.total > max(low, 0) {
		oldest, found := uint64(0), false
		for n, f := range t.files {
			if f.refs == 0 && (!found || f.used < t.files[oldest].used) {
				oldest, found = n, true
			}
		}
		if !found {
			return nil
		}
		if err := t.remove(oldest); err != nil {
			return err
		}
	}
	return nil
}

// remove removes a copy. mu is held.
func (t *transients) remove(n uint64) error {
	if err := t.fs.RemoveAll(t.name(n)); err != nil {
		return err
	}
	t.total -= t.files[n].size
	delete(t.files, n)
	return nil
}

// drop removes the copy of a piece; one that is being read goes with its last reader.
func (t *transients) drop(n uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.files[n]
	if f == nil {
		return nil
	}
	if f.refs > 0 {
		f.doomed = true
		return nil
	}
	return t.remove(n)
}

// idle are the numbers of the copies that nobody reads.
func (t *transients) idle() (out []uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for n, f := range t.files {
		if f.refs == 0 {
			out = append(out, n)
		}
	}
	return out
}
