package sim

import (
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// socketBuffer is how many bytes a dead direction takes before a writer waits.
const socketBuffer = 64 << 10

// faultyStream writes into a direction that may be dead: then what is written, and the end of the stream, is on its way until the direction
// lives again. It has deadlines, which the network below has not.
type faultyStream struct {
	network.Stream
	host *faultyHost
	wire *wire
	n    uint64
	turn chan struct{} // who writes below

	mu      sync.Mutex
	held    []byte
	ending  func() error // after what is held
	flusher bool
	gone    chan struct{}
	over    bool

	read, write deadline
}

func newFaultyStream(s network.Stream, h *faultyHost, w *wire, n uint64) *faultyStream {
	return &faultyStream{Stream: s, host: h, wire: w, n: n, turn: make(chan struct{}, 1), gone: make(chan struct{})}
}

// deadline ends a read or a write that is in progress when it passes, with the stream.
type deadline struct {
	timer *time.Timer
	at    time.Time
	busy  atomic.Int32
	hit   atomic.Bool
}

func (s *faultyStream) set(d *deadline, t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = t
	if t.IsZero() || s.over {
		return
	}
	d.timer = time.AfterFunc(time.Until(t), func() {
		if d.busy.Load() > 0 {
			d.hit.Store(true)
			_ = s.Reset()
		}
	})
}

func (s *faultyStream) expired(d *deadline) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return d.hit.Load() || !d.at.IsZero() && !time.Now().Before(d.at)
}

// SetDeadline implements network.Stream.
func (s *faultyStream) SetDeadline(t time.Time) error {
	s.set(&s.read, t)
	s.set(&s.write, t)
	return nil
}

// SetReadDeadline implements network.Stream.
func (s *faultyStream) SetReadDeadline(t time.Time) error {
	s.set(&s.read, t)
	return nil
}

// SetWriteDeadline implements network.Stream.
func (s *faultyStream) SetWriteDeadline(t time.Time) error {
	s.set(&s.write, t)
	return nil
}

// Read implements network.Stream.
func (s *faultyStream) Read(p []byte) (int, error) {
	if s.expired(&s.read) {
		return 0, os.ErrDeadlineExceeded
	}
	s.read.busy.Add(1)
	defer s.read.busy.Add(-1)
	n, err := s.Stream.Read(p)
	if err != nil && s.read.hit.Load() {
		err = os.ErrDeadlineExceeded
	}
	return n, err
}

// Write implements network.Stream.
func (s *faultyStream) Write(p []byte) (int, error) {
	if s.host.silent() {
		return 0, errNoProcess
	}
	if s.expired(&s.write) {
		return 0, os.ErrDeadlineExceeded
	}
	s.write.busy.Add(1)
	defer s.write.busy.Add(-1)
	for {
		thaw, kept := s.keep(p)
		switch {
		case kept:
			return len(p), nil
		case thaw == nil:
			n, err := s.below(p)
			if err != nil && s.write.hit.Load() {
				err = os.ErrDeadlineExceeded
			}
			return n, err
		}
		select {
		case <-thaw:
		case <-s.gone:
			if s.write.hit.Load() {
				return 0, os.ErrDeadlineExceeded
			}
			return 0, network.ErrReset
		}
	}
}

// keep holds what is written into a dead direction, as long as it has room; what is held goes first.
func (s *faultyStream) keep(p []byte) (thaw <-chan struct{}, kept bool) {
	thaw = s.wire.dead(s.n)
	s.mu.Lock()
	defer s.mu.Unlock()
	if thaw == nil && !s.flusher {
		return nil, false
	}
	if len(s.held)+len(p) <= socketBuffer || thaw == nil {
		s.held = append(s.held, p...)
		s.startFlusher()
		return thaw, true
	}
	return thaw, false
}

// below writes to the network.
func (s *faultyStream) below(p []byte) (int, error) {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	return s.Stream.Write(p)
}

// startFlusher sees to it that what is held arrives one day; mu is held.
func (s *faultyStream) startFlusher() {
	if s.flusher {
		return
	}
	s.flusher = true
	go s.flush()
}

func (s *faultyStream) flush() {
	for {
		if thaw := s.wire.dead(s.n); thaw != nil {
			select {
			case <-thaw:
			case <-s.gone:
			}
		}
		s.mu.Lock()
		data, ending := s.held, s.ending
		s.held = nil
		if len(data) == 0 || s.over {
			s.flusher, s.ending = false, nil
			s.mu.Unlock()
			if ending != nil {
				_ = ending()
			}
			return
		}
		s.mu.Unlock()
		if _, err := s.below(data); err != nil {
			_ = s.Reset()
		}
	}
}

// later does f after what is held has left; it returns false if nothing is.
func (s *faultyStream) later(f func() error) bool {
	dead := s.wire.dead(s.n) != nil
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || !dead && !s.flusher {
		return false
	}
	s.ending = f
	s.startFlusher()
	return true
}

// CloseWrite implements network.Stream.
func (s *faultyStream) CloseWrite() error {
	if s.host.silent() {
		return errNoProcess // the other side hears nothing, not even an end
	}
	if s.later(s.Stream.CloseWrite) {
		return nil
	}
	return s.Stream.CloseWrite()
}

// Close implements network.Stream.
func (s *faultyStream) Close() error {
	if s.later(s.Stream.Close) {
		return nil
	}
	s.leave()
	return s.Stream.Close()
}

// Reset implements network.Stream.
func (s *faultyStream) Reset() error {
	s.leave()
	return s.Stream.Reset()
}

// ResetWithError implements network.Stream.
func (s *faultyStream) ResetWithError(code network.StreamErrorCode) error {
	s.leave()
	return s.Stream.ResetWithError(code)
}

// leave ends all that waits for the direction to live again.
func (s *faultyStream) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	s.over = true
	close(s.gone)
	for _, d := range []*deadline{&s.read, &s.write} {
		if d.timer != nil {
			d.timer.Stop()
		}
	}
}
