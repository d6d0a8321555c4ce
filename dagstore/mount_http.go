package dagstore

import (
	"container/list"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// HTTPMount reads pieces from a web server with range requests. Use it for the schemes http and https. A server that does not answer
// ranges is refused; a piece is never fetched wholly for a few blocks.
func HTTPMount(client *http.Client) Scheme {
	return func(u *url.URL) (Mount, error) {
		if u.Host == "" {
			return nil, fmt.Errorf("mount %q has no host", u)
		}
		return &httpMount{client, u.String()}, nil
	}
}

type httpMount struct {
	client *http.Client
	url    string
}

// requestTime bounds one range request.
const requestTime = 2 * time.Minute

// Open implements Mount: it learns the size.
func (m *httpMount) Open(ctx context.Context) (Reader, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, m.url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := m.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s: %s", m.url, resp.Status)
	case resp.ContentLength < 0:
		return nil, fmt.Errorf("%s: the server does not say how large it is", m.url)
	case resp.Header.Get("Accept-Ranges") == "none":
		return nil, fmt.Errorf("%s: the server does not answer ranges", m.url)
	}
	rctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	return &ranges{m: m, size: resp.ContentLength, tag: resp.Header.Get("ETag"), ctx: rctx, stop: stop, parts: map[int64]*list.Element{}, recent: list.New()}, nil
}

// Ranges are read in parts of one size, of which the last few are kept.
const (
	partSize  = 1 << 20
	partsKept = 8
)

type ranges struct {
	m    *httpMount
	size int64
	tag  string
	ctx  context.Context
	stop context.CancelFunc

	mu     sync.Mutex
	parts  map[int64]*list.Element
	recent *list.List // of *part, newest first
}

type part struct {
	at   int64
	once sync.Once
	data []byte
	err  error
}

// Size implements Reader.
func (r *ranges) Size() (int64, error) { return r.size, nil }

// Close implements Reader; requests under way end.
func (r *ranges) Close() error {
	r.stop()
	return nil
}

// ReadAt implements io.ReaderAt.
func (r *ranges) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		at := off + int64(n)
		if at >= r.size {
			return n, io.EOF
		}
		data, err := r.part(at / partSize)
		if err != nil {
			return n, err
		}
		n += copy(p[n:], data[at%partSize:])
	}
	return n, nil
}

// part returns a part, which is fetched once for all who want it. A failure is not kept.
func (r *ranges) part(i int64) ([]byte, error) {
	r.mu.Lock()
	e := r.parts[i]
	if e == nil {
		e = r.recent.PushFront(&part{at: i})
		r.parts[i] = e
		if r.recent.Len() > partsKept {
			last := r.recent.Back()
			delete(r.parts, last.Value.(*part).at)
			r.recent.Remove(last)
		}
	} else {
		r.recent.MoveToFront(e)
	}
	r.mu.Unlock()
	p := e.Value.(*part)
	p.once.Do(func() { p.data, p.err = r.fetch(i*partSize, min(r.size, (i+1)*partSize)) })
	if p.err != nil {
		r.mu.Lock()
		if r.parts[i] == e {
			delete(r.parts, i)
			r.recent.Remove(e)
		}
		r.mu.Unlock()
	}
	return p.data, p.err
}

func (r *ranges) fetch(from, to int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(r.ctx, requestTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.m.url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, to-1))
	resp, err := r.m.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusPartialContent {
		return nil, fmt.Errorf("%s: asked for bytes %d to %d, the server answers %s", r.m.url, from, to-1, resp.Status)
	}
	if tag := resp.Header.Get("ETag"); tag != r.tag {
		return nil, fmt.Errorf("%s changed while it was read: it was %q and is %q", r.m.url, r.tag, tag)
	}
	data := make([]byte, to-from)
	if _, err := io.ReadFull(resp.Body, data); err != nil {
		return nil, fmt.Errorf("%s: bytes %d to %d: %w", r.m.url, from, to-1, err)
	}
	return data, nil
}
