package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	mocknet "github.com/libp2p/go-libp2p/p2p/net/mock"
	ma "github.com/multiformats/go-multiaddr"
)

// faultyNet is a network in memory whose links are slow, are lost, and go dead in one direction without anybody being told.
type faultyNet struct {
	net mocknet.Mocknet

	mu    sync.Mutex // never held across a wait
	rnd   *rand.Rand
	delay time.Duration
	wires map[[2]peer.ID]*wire
}

// wire is one direction between two peers.
type wire struct {
	mu     sync.Mutex
	stuck  uint64        // streams up to this one are dead: what is written is on its way for ever
	opened uint64        // streams
	thaw   chan struct{} // closed when the dead ones live again
}

const everyStream = 1 << 62

func newFaultyNet(seed uint64) *faultyNet {
	return &faultyNet{net: mocknet.New(), rnd: rand.New(rand.NewPCG(seed, 7)), delay: 2 * time.Millisecond, wires: map[[2]peer.ID]*wire{}}
}

func (n *faultyNet) wire(from, to peer.ID) *wire {
	n.mu.Lock()
	defer n.mu.Unlock()
	w := n.wires[[2]peer.ID{from, to}]
	if w == nil {
		w = &wire{thaw: make(chan struct{})}
		n.wires[[2]peer.ID{from, to}] = w
	}
	return w
}

// freeze makes a direction dead: for the streams of now, or for those to come too.
func (n *faultyNet) freeze(from, to peer.ID, newOnesToo bool) {
	w := n.wire(from, to)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stuck = w.opened; newOnesToo {
		w.stuck = everyStream
	}
}

// heal brings a direction back to life; what was written meanwhile arrives, if the connection is still there.
func (n *faultyNet) heal(from, to peer.ID) {
	w := n.wire(from, to)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stuck = 0
	close(w.thaw)
	w.thaw = make(chan struct{})
}

// dead is closed when the stream lives again; nil while it does.
func (w *wire) dead(stream uint64) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if stream > w.stuck {
		return nil
	}
	return w.thaw
}

func (w *wire) open() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.opened++
	return w.opened
}

// latency is that of the next link, and of all streams that are written to from now on.
func (n *faultyNet) latency(d time.Duration) {
	n.mu.Lock()
	n.delay = d
	n.mu.Unlock()
	n.net.SetLinkDefaults(mocknet.LinkOptions{Latency: d})
	for _, a := range n.net.Links() {
		for _, links := range a {
			for l := range links {
				l.SetOptions(mocknet.LinkOptions{Latency: d})
			}
		}
	}
}

// host makes the host of a process that starts.
func (n *faultyNet) host(key crypto.PrivKey, number int) (*faultyHost, error) {
	h, err := n.net.AddPeer(key, ma.StringCast(fmt.Sprintf("/ip4/10.%d.0.%d/tcp/4001", number/250, number%250+1)))
	if err != nil {
		return nil, err
	}
	return &faultyHost{Host: h, net: n}, nil
}

// part ends the connections of two peers and lets them make none.
func (n *faultyNet) part(a, b peer.ID) {
	for _, l := range n.net.LinksBetweenPeers(a, b) {
		_ = n.net.Unlink(l)
	}
	if n.net.Net(a) != nil {
		_ = n.net.DisconnectPeers(a, b)
	}
	if n.net.Net(b) != nil {
		_ = n.net.DisconnectPeers(b, a)
	}
}

// join lets two peers connect, and connects them if dial says so.
func (n *faultyNet) join(a, b *faultyHost, dial bool) {
	a.Peerstore().AddAddrs(b.ID(), b.Addrs(), time.Hour)
	b.Peerstore().AddAddrs(a.ID(), a.Addrs(), time.Hour)
	if len(n.net.LinksBetweenPeers(a.ID(), b.ID())) == 0 {
		_, _ = n.net.LinkPeers(a.ID(), b.ID())
	}
	if dial {
		_, _ = n.net.ConnectPeers(a.ID(), b.ID())
	}
}

func (n *faultyNet) close() error { return n.net.Close() }

// faultyHost is a host on a faultyNet.
type faultyHost struct {
	host.Host
	net *faultyNet
	mu  sync.Mutex
	off bool // its process is dead
}

var errNoProcess = errors.New("the process has ended")

func (h *faultyHost) silence() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.off = true
}

func (h *faultyHost) silent() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.off
}

// NewStream implements host.Host.
func (h *faultyHost) NewStream(ctx context.Context, to peer.ID, p ...protocol.ID) (network.Stream, error) {
	if h.silent() {
		return nil, errNoProcess
	}
	w := h.net.wire(h.ID(), to)
	n := w.open()
	for thaw := w.dead(n); thaw != nil; thaw = w.dead(n) {
		select {
		case <-thaw:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	s, err := h.Host.NewStream(ctx, to, p...)
	if err != nil {
		return nil, err
	}
	return newFaultyStream(s, h, w, n), nil
}

// SetStreamHandler implements host.Host.
func (h *faultyHost) SetStreamHandler(p protocol.ID, f network.StreamHandler) {
	h.Host.SetStreamHandler(p, h.wrapped(f))
}

// SetStreamHandlerMatch implements host.Host.
func (h *faultyHost) SetStreamHandlerMatch(p protocol.ID, m func(protocol.ID) bool, f network.StreamHandler) {
	h.Host.SetStreamHandlerMatch(p, m, h.wrapped(f))
}

func (h *faultyHost) wrapped(f network.StreamHandler) network.StreamHandler {
	return func(s network.Stream) {
		if h.silent() {
			_ = s.Reset()
			return
		}
		w := h.net.wire(h.ID(), s.Conn().RemotePeer())
		f(newFaultyStream(s, h, w, w.open()))
	}
}
