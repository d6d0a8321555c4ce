package server

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// bound counts connections: of all, and of each IPv4 address or IPv6 /56.
type bound struct {
	all, perHost int
	refused      func(ofHost bool)

	mu     sync.Mutex
	open   int
	byHost map[netip.Prefix]int
}

func newBound(all, perHost int, refused func(ofHost bool)) *bound {
	if refused == nil {
		refused = func(bool) {}
	}
	return &bound{all: all, perHost: perHost, refused: refused, byHost: map[netip.Prefix]int{}}
}

// count is how many connections are open.
func (b *bound) count() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return int64(b.open)
}

// hostOf is what is counted as one address; false for what is none, and for this machine: a proxy on it brings everybody.
func hostOf(a net.Addr) (netip.Prefix, bool) {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}, false
	}
	ip := t.AddrPort().Addr().Unmap()
	bits := 56
	if ip.Is4() {
		bits = 32
	}
	p, err := ip.Prefix(bits)
	return p, err == nil && !ip.IsLoopback()
}

// enter counts a connection, unless there are enough.
func (b *bound) enter(a net.Addr) bool {
	host, counted := hostOf(a)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open >= b.all || counted && b.byHost[host] >= b.perHost {
		b.refused(b.open < b.all)
		return false
	}
	b.open++
	if counted {
		b.byHost[host]++
	}
	return true
}

func (b *bound) leave(a net.Addr) {
	host, counted := hostOf(a)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open--
	if !counted {
		return
	}
	if b.byHost[host]--; b.byHost[host] == 0 {
		delete(b.byHost, host)
	}
}

// boundListener closes connections beyond a bound as soon as they come.
type boundListener struct {
	net.Listener
	bound *bound
}

// Accept implements net.Listener.
func (l *boundListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.bound.enter(c.RemoteAddr()) {
			return &boundConn{Conn: c, bound: l.bound}, nil
		}
		_ = c.SetDeadline(time.Now()) // nobody waits for it
		_ = c.Close()
	}
}

// boundConn gives its place back.
type boundConn struct {
	net.Conn
	bound *bound
	once  sync.Once
}

// Close implements net.Conn.
func (c *boundConn) Close() error {
	c.once.Do(func() { c.bound.leave(c.RemoteAddr()) })
	return c.Conn.Close()
}
