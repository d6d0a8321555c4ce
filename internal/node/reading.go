package node

import (
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/cartage-dev/cartage/internal/store"
)

// unconnected is for a node that only reads: what it would send could not be remembered.
type unconnected struct{}

var _ connmgr.ConnectionGater = unconnected{}

// InterceptPeerDial implements connmgr.ConnectionGater.
func (unconnected) InterceptPeerDial(peer.ID) bool { return false }

// InterceptAddrDial implements connmgr.ConnectionGater.
func (unconnected) InterceptAddrDial(peer.ID, multiaddr.Multiaddr) bool { return false }

// InterceptAccept implements connmgr.ConnectionGater.
func (unconnected) InterceptAccept(network.ConnMultiaddrs) bool { return false }

// InterceptSecured implements connmgr.ConnectionGater.
func (unconnected) InterceptSecured(network.Direction, peer.ID, network.ConnMultiaddrs) bool {
	return false
}

// InterceptUpgraded implements connmgr.ConnectionGater.
func (unconnected) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return false, 0 }

// takesDeals says why no new deal can be taken: nobody sells at present, or the records of one could not be written.
func (n *Node) takesDeals() error {
	if n.parts.Selling != nil {
		if err := n.parts.Selling(); err != nil {
			return err
		}
	}
	return store.Room(n.parts.Home.Dir)
}
