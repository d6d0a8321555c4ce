package node

import (
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/datatransfer/transport/stream"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

// speaksStreams tells whether identify lists the protocol of streams for a peer.
func (n *Node) speaksStreams(p peer.ID) bool {
	known, err := n.Host.Peerstore().SupportsProtocols(p, stream.ProtocolID)
	return err == nil && len(known) > 0
}

// takesStreams tells whether data from a peer is to come over a stream.
func (n *Node) takesStreams(p peer.ID) bool {
	n.mu.Lock()
	wish := n.carriers[p]
	n.mu.Unlock()
	return wish != api.TransportGraphsync && n.speaksStreams(p)
}

// carry notes which transport a provider is to be used with.
func (n *Node) carry(p peer.ID, transport string) error {
	switch transport {
	case "", api.TransportAuto, api.TransportGraphsync:
	case api.TransportStream:
		if !n.speaksStreams(p) {
			return api.Errorf(api.CodeUsage, "Leave it to --transport auto.", "provider %s does not speak streams", p)
		}
	default:
		return api.Errorf(api.CodeUsage, "Use auto, stream or graphsync.", "transport %q is unknown", transport)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.carriers[p] = transport
	return nil
}

// carrier names the transport of a deal; before there is one, and after its end, it stays what it was.
func (n *Node) carrier(v *api.Retrieval, d rm.ClientDealState) {
	fast, carried := n.router.OnFast(d.ChannelID)
	switch {
	case !carried:
	case fast:
		v.Transport = api.TransportStream
	default:
		v.Transport = api.TransportGraphsync
	}
}
