package stream

import (
	"bufio"
	"context"
	"io"
	"sync"
	"time"

	"github.com/cartage-dev/cartage/carstore"
)

// lentBuffer has room for a block of 1 MiB, the largest that is usual.
const lentBuffer = 1<<20 + carstore.SectionHead

const (
	// maxLent is how many senders read and write a large block at once: what a crowd has in memory does not grow with it.
	maxLent = 32
	// lentFor is after how long a sender that still writes its block does not count any more, and how long another waits at most: a
	// recipient that does not read stops no other.
	lentFor = 2 * time.Second
)

// lender lends buffers for large blocks. The zero value is ready.
type lender struct {
	mu    sync.Mutex
	spare sync.Pool
	out   map[*[]byte]time.Time // since when
	back  chan struct{}         // closed when one comes back that somebody waits for
}

// take waits for a buffer; it is nil if ctx ends.
func (l *lender) take(ctx context.Context) *[]byte {
	for begun := time.Now(); ; {
		l.mu.Lock()
		now, busy := time.Now(), 0
		for _, since := range l.out {
			if now.Sub(since) < lentFor {
				busy++
			}
		}
		if busy < maxLent || now.Sub(begun) >= lentFor {
			defer l.mu.Unlock()
			return l.lend(now)
		}
		if l.back == nil {
			l.back = make(chan struct{})
		}
		back := l.back
		l.mu.Unlock()
		timer := time.NewTimer(lentFor / 8)
		select {
		case <-back:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		timer.Stop()
	}
}

// lend hands a buffer out; mu is held.
func (l *lender) lend(now time.Time) *[]byte {
	buf, ok := l.spare.Get().(*[]byte)
	if !ok {
		b := make([]byte, lentBuffer)
		buf = &b
	}
	if l.out == nil {
		l.out = map[*[]byte]time.Time{}
	}
	l.out[buf] = now
	return buf
}

// put takes a buffer back.
func (l *lender) put(buf *[]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.out, buf)
	l.spare.Put(buf)
	if l.back != nil {
		close(l.back)
		l.back = nil
	}
}

// spares are what recipients read with: one that waits for the other side holds no room for a block, and one that has ended none at all. The
// zero value is ready.
type spares struct{ readers, blocks sync.Pool }

// readAhead is how much of a stream is read at once.
const readAhead = 64 << 10

func (s *spares) reader(r io.Reader) *bufio.Reader {
	b, ok := s.readers.Get().(*bufio.Reader)
	if !ok {
		return bufio.NewReaderSize(r, readAhead)
	}
	b.Reset(r)
	return b
}

func (s *spares) putReader(b *bufio.Reader) {
	b.Reset(nil)
	s.readers.Put(b)
}

func (s *spares) block() *[]byte {
	b, ok := s.blocks.Get().(*[]byte)
	if !ok {
		made := make([]byte, lentBuffer)
		b = &made
	}
	return b
}
