package rpc

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Option changes how Serve serves.
type Option func(*settings)

type settings struct {
	conns int64
	inUse *atomic.Int64
	over  func()
	pages http.Handler

	enter  func(ctx context.Context, bearer string) (context.Context, error)
	refuse func(w http.ResponseWriter, err error)
}

// Enter lets callers in by the token that they bear, instead of the one token of Serve: enter returns the context of their calls, or refuse answers
// with its error.
func Enter(enter func(ctx context.Context, bearer string) (context.Context, error), refuse func(w http.ResponseWriter, err error)) Option {
	return func(s *settings) { s.enter, s.refuse = enter, refuse }
}

// Pages serves what is no call: pages for people. They check themselves who sees them.
func Pages(h http.Handler) Option { return func(s *settings) { s.pages = h } }

// MaxConns bounds the connections at once: one beyond is answered 503 and closed, and over is called. inUse follows how many there are.
func MaxConns(n int64, inUse *atomic.Int64, over func()) Option {
	return func(s *settings) { s.conns, s.inUse, s.over = n, inUse, over }
}

// bounded is a listener with at most so many connections at once.
type bounded struct {
	net.Listener
	settings
}

// busy is what one who comes too much is told.
const busy = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if b.inUse.Add(1) <= b.conns {
			return &counted{Conn: c, inUse: b.inUse}, nil
		}
		b.inUse.Add(-1)
		b.over()
		_ = c.SetDeadline(time.Now().Add(time.Millisecond)) // who does not take it gets nothing: nobody waits for it here
		_, _ = c.Write([]byte(busy))
		_ = c.Close()
	}
}

// counted is a connection that gives its place back.
type counted struct {
	net.Conn
	inUse *atomic.Int64
	once  sync.Once
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.once.Do(func() { c.inUse.Add(-1) })
	return c.Conn.Close()
}
