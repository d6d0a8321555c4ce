package stream

import (
	"bufio"
	"context"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/carstore"
)

// lentBuffer has room for a block of 1 MiB, the largest that is usual.
const lentBuffer = 1<<20 + carstore.SectionHead

// largeLoan is what is counted for a larger block. Its memory is the store's: it is counted, and not kept.
const largeLoan = carstore.MaxBlock + carstore.SectionHead

// loanFor is what a sender has to hold for a block of a size; 0: so little is not counted.
func loanFor(size int) int64 {
	switch {
	case size <= lentBuffer/8:
		return 0
	case size+carstore.SectionHead <= lentBuffer:
		return lentBuffer
	}
	return largeLoan
}

// slowAfter is how long a write of a block may take before its sender gives the buffer back and goes on in small steps: a recipient that does
// not read holds no memory but one step.
const slowAfter = time.Second

// step is what a sender writes at once to a recipient that is slow.
const step = 32 << 10

// Memory bounds what senders over streams hold of large blocks, of all peers together and of each; who is over it waits. Zeros stand for
// 256 MiB and 16 MiB. A buffer has room for a block of 1 MiB; for a larger one that of the largest counts.
type Memory struct {
	Node, Peer int64
	// Waits is told of each sender that has to wait, for its peer's share or for the node's. It may be nil.
	Waits func(ofPeer bool)
}

// Bounds of a lender that was not told others.
const (
	defaultNodeMemory = 256 << 20
	defaultPeerMemory = 16 << 20
)

// lender lends buffers for large blocks. The zero value is ready.
type lender struct {
	memory Memory
	mu     sync.Mutex
	spare  sync.Pool
	out    int64 // bytes lent
	ofPeer map[peer.ID]int64
	back   chan struct{} // closed when one comes back that somebody waits for
}

// lent is a buffer on loan; without bytes for what is only counted.
type lent struct {
	buf  []byte
	to   peer.ID
	size int64
}

// inUse is how many bytes are on loan.
func (l *lender) inUse() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out
}

// take waits for a loan of a size, lentBuffer or largeLoan, for a sender to a peer; it is nil if ctx ends.
func (l *lender) take(ctx context.Context, to peer.ID, size int64) *lent {
	for told := false; ; {
		l.mu.Lock()
		ofPeer, full := l.full(to, size)
		if !full {
			defer l.mu.Unlock()
			return l.lend(to, size)
		}
		if l.back == nil {
			l.back = make(chan struct{})
		}
		back := l.back
		l.mu.Unlock()
		if !told && l.memory.Waits != nil {
			l.memory.Waits(ofPeer)
			told = true
		}
		select {
		case <-back:
		case <-ctx.Done():
			return nil
		}
	}
}

// full reports whether another loan would be too much, of the peer or of all; one is always lent. mu is held.
func (l *lender) full(to peer.ID, size int64) (ofPeer, full bool) {
	node, share := l.memory.Node, l.memory.Peer
	if node == 0 {
		node = defaultNodeMemory
	}
	if share == 0 {
		share = defaultPeerMemory
	}
	if has := l.ofPeer[to]; has > 0 && has+size > share {
		return true, true
	}
	return false, l.out > 0 && l.out+size > node
}

// lend hands a loan out; mu is held.
func (l *lender) lend(to peer.ID, size int64) *lent {
	b := &lent{}
	if size == lentBuffer {
		if spare, ok := l.spare.Get().(*lent); ok {
			b = spare
		} else {
			b.buf = make([]byte, lentBuffer)
		}
	}
	b.to, b.size = to, size
	if l.ofPeer == nil {
		l.ofPeer = map[peer.ID]int64{}
	}
	l.out += size
	l.ofPeer[to] += size
	return b
}

// put takes a buffer back.
func (l *lender) put(b *lent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out -= b.size
	if l.ofPeer[b.to] -= b.size; l.ofPeer[b.to] == 0 {
		delete(l.ofPeer, b.to)
	}
	if b.buf != nil {
		l.spare.Put(b)
	}
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
