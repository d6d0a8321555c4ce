package node

import (
	"context"
	"fmt"
	"net"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/cartage-dev/cartage/internal/reason"
)

// listen opens the node to others, when all that they may ask for is there: what comes earlier would be lost. It listens on every address
// that was asked for, or fails.
func (n *Node) listen(ctx context.Context) error {
	listen := n.parts.listenAddrs()
	addrs := make([]multiaddr.Multiaddr, 0, len(listen))
	for _, l := range listen {
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

// listenAddrs are the addresses that were asked for.
func (p *Parts) listenAddrs() []string {
	if len(p.Listen) == 0 && p.Host == nil {
		return p.Config.Network.Listen
	}
	return p.Listen
}

// errNotTCP is what an address of another transport meets.
var errNotTCP error = reason.ConfigValue.Errorf("only TCP is served: an address looks like /ip4/0.0.0.0/tcp/7110")

// canListen reports why nobody can listen on an address: no transport of ours serves it, or another process has the port. libp2p shares a port
// with others who share it, and leaves out what it does not serve.
func canListen(ctx context.Context, a multiaddr.Multiaddr) error {
	network, addr, err := manet.DialArgs(a)
	if err != nil || len(a) != 2 || network != "tcp" && network != "tcp4" && network != "tcp6" {
		return errNotTCP
	}
	ln, err := new(net.ListenConfig).Listen(ctx, network, addr)
	if err != nil {
		return reason.From(err).Wrap(err)
	}
	return ln.Close()
}
