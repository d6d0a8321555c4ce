package node

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"

	"github.com/libp2p/go-libp2p"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/cartage-dev/cartage/internal/reason"
)

// listen opens the node to others, when all that they may ask for is there: what comes earlier would be lost. It listens on every address
// that was asked for, or fails.
func (n *Node) listen(ctx context.Context) error {
	listen := n.parts.listenAddrs()
	addrs := make([]multiaddr.Multiaddr, 0, len(listen))
	for i, l := range listen {
		if slices.Contains(listen[:i], l) && !anyPort(l) {
			return reason.ConfigValue.Errorf("listen on %q: it is named twice", l)
		}
		a, err := multiaddr.NewMultiaddr(l)
		if err != nil {
			return reason.ConfigValue.Errorf("listen on %q: %w", l, err)
		}
		if err := canListen(ctx, a); err != nil {
			return fmt.Errorf("listen on %q: %w", l, err)
		}
		addrs = append(addrs, a)
	}
	for i, a := range addrs {
		if err := n.Host.Network().Listen(a); err != nil {
			return reason.PortBusy.Errorf("listen on %q: %w", listen[i], err)
		}
	}
	return nil
}

// anyPort reports whether an address leaves the choice of its port.
func anyPort(addr string) bool {
	a, err := multiaddr.NewMultiaddr(addr)
	if err != nil || len(a) < 2 {
		return false
	}
	return a[1].Value() == "0"
}

// listenAddrs are the addresses that were asked for.
func (p *Parts) listenAddrs() []string {
	if len(p.Listen) == 0 && p.Host == nil {
		return p.Config.Network.Listen
	}
	return p.Listen
}

// errNotServed is what an address of a transport meets that is not served here.
var errNotServed error = reason.ConfigValue.Errorf("it is none of /ip4/0.0.0.0/tcp/7110, /ip4/0.0.0.0/tcp/7110/ws and /ip4/0.0.0.0/udp/7110/quic-v1, with another IP address or port")

// canListen reports why nobody can listen on an address: no transport of ours serves it, or another process has the port. libp2p shares a port
// with others who share it, and leaves out what it does not serve.
func canListen(ctx context.Context, a multiaddr.Multiaddr) error {
	codes := make([]int, 0, len(a))
	for _, part := range a {
		codes = append(codes, part.Protocol().Code)
	}
	if len(codes) < 2 || codes[0] != multiaddr.P_IP4 && codes[0] != multiaddr.P_IP6 {
		return errNotServed
	}
	network, addr, err := manet.DialArgs(a[:2])
	if err != nil {
		return errNotServed
	}
	var taken io.Closer
	switch rest := codes[1:]; {
	case slices.Equal(rest, []int{multiaddr.P_TCP}), slices.Equal(rest, []int{multiaddr.P_TCP, multiaddr.P_WS}):
		taken, err = new(net.ListenConfig).Listen(ctx, network, addr)
	case slices.Equal(rest, []int{multiaddr.P_UDP, multiaddr.P_QUIC_V1}):
		taken, err = new(net.ListenConfig).ListenPacket(ctx, network, addr)
	default:
		return errNotServed
	}
	if err != nil {
		return reason.From(err).Wrap(err)
	}
	return taken.Close()
}

// transports are what this node dials and listens with.
func transports() []libp2p.Option {
	return []libp2p.Option{libp2p.Transport(tcp.NewTCPTransport), libp2p.Transport(websocket.New), libp2p.Transport(quic.NewTransport)}
}
