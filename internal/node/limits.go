package node

import (
	"context"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/multiformats/go-multiaddr"

	"github.com/cartage-dev/cartage/api"
	dtimpl "github.com/cartage-dev/cartage/datatransfer/impl"
	"github.com/cartage-dev/cartage/datatransfer/transport/stream"
	"github.com/cartage-dev/cartage/internal/limits"
)

// openLimits takes the limits of the configuration into force.
func (n *Node) openLimits() (err error) {
	n.limits, err = limits.New(n.parts.Config.Limits, func(name limits.Name) string { return n.parts.origin("limits." + string(name)) })
	return err
}

// resources is libp2p's resource manager with the limits of the registry: connections and streams of others, of each peer and of all. What this
// node opens itself it does not count against others.
func (n *Node) resources() (network.ResourceManager, error) {
	unbounded := rcmgr.ResourceLimits{Conns: rcmgr.Unlimited, ConnsInbound: rcmgr.Unlimited, ConnsOutbound: rcmgr.Unlimited,
		Streams: rcmgr.Unlimited, StreamsInbound: rcmgr.Unlimited, StreamsOutbound: rcmgr.Unlimited, FD: rcmgr.Unlimited, Memory: rcmgr.Unlimited64}
	all, peer := unbounded, unbounded
	all.ConnsInbound, all.StreamsInbound = rcmgr.LimitVal(n.limits.Value(limits.ConnsNode)), rcmgr.LimitVal(n.limits.Value(limits.StreamsNode))
	peer.ConnsInbound, peer.StreamsInbound = rcmgr.LimitVal(n.limits.Value(limits.ConnsPeer)), rcmgr.LimitVal(n.limits.Value(limits.StreamsPeer))
	cfg := rcmgr.PartialLimitConfig{
		System: all, Transient: all, PeerDefault: peer, Conn: unbounded, Stream: unbounded, AllowlistedSystem: all, AllowlistedTransient: all,
		ServiceDefault: unbounded, ServicePeerDefault: unbounded, ProtocolDefault: unbounded, ProtocolPeerDefault: unbounded,
	}
	address := n.limits.Int(limits.ConnsAddress)
	m, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(cfg.Build(rcmgr.InfiniteLimits)), rcmgr.WithMetrics(peerRefusals{limits: n.limits}),
		rcmgr.WithLimitPerSubnet([]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: address}}, []rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: address}}))
	if err != nil {
		return nil, err
	}
	n.limits.Use(limits.ConnsNode, func() int64 { return inbound(m, func(s network.ScopeStat) int { return s.NumConnsInbound }) })
	n.limits.Use(limits.StreamsNode, func() int64 { return inbound(m, func(s network.ScopeStat) int { return s.NumStreamsInbound }) })
	return countedResources{m, n.limits}, nil
}

// inbound is what others have of the whole node.
func inbound(m network.ResourceManager, of func(network.ScopeStat) int) (n int64) {
	_ = m.ViewSystem(func(s network.ResourceScope) error {
		n = int64(of(s.Stat()))
		return nil
	})
	return n
}

// countedResources counts the connections and streams of others that the resource manager refuses.
type countedResources struct {
	network.ResourceManager
	limits *limits.Registry
}

// OpenConnection implements network.ResourceManager.
func (c countedResources) OpenConnection(d network.Direction, fd bool, from multiaddr.Multiaddr) (network.ConnManagementScope, error) {
	s, err := c.ResourceManager.OpenConnection(d, fd, from)
	switch {
	case err == nil:
	case c.full(limits.ConnsNode, func(s network.ScopeStat) int { return s.NumConnsInbound }):
		_ = c.limits.Hit(limits.ConnsNode)
	default:
		_ = c.limits.Hit(limits.ConnsAddress)
	}
	return s, err
}

// OpenStream implements network.ResourceManager.
func (c countedResources) OpenStream(p peer.ID, d network.Direction) (network.StreamManagementScope, error) {
	s, err := c.ResourceManager.OpenStream(p, d)
	switch {
	case err == nil:
	case c.full(limits.StreamsNode, func(s network.ScopeStat) int { return s.NumStreamsInbound }):
		_ = c.limits.Hit(limits.StreamsNode)
	default:
		_ = c.limits.Hit(limits.StreamsPeer)
	}
	return s, err
}

// full reports whether all that the node takes of something is taken.
func (c countedResources) full(n limits.Name, of func(network.ScopeStat) int) bool {
	return inbound(c.ResourceManager, of) >= c.limits.Value(n)
}

// peerRefusals counts connections of a peer that has enough of them: who it is shows only when the connection is secured.
type peerRefusals struct{ limits *limits.Registry }

var _ rcmgr.MetricsReporter = peerRefusals{}

// BlockPeer implements rcmgr.MetricsReporter.
func (r peerRefusals) BlockPeer(peer.ID) { _ = r.limits.Hit(limits.ConnsPeer) }

// What else the resource manager reports is not counted here.

// AllowConn implements rcmgr.MetricsReporter.
func (peerRefusals) AllowConn(network.Direction, bool) {}

// BlockConn implements rcmgr.MetricsReporter.
func (peerRefusals) BlockConn(network.Direction, bool) {}

// AllowStream implements rcmgr.MetricsReporter.
func (peerRefusals) AllowStream(peer.ID, network.Direction) {}

// BlockStream implements rcmgr.MetricsReporter.
func (peerRefusals) BlockStream(peer.ID, network.Direction) {}

// AllowPeer implements rcmgr.MetricsReporter.
func (peerRefusals) AllowPeer(peer.ID) {}

// AllowProtocol implements rcmgr.MetricsReporter.
func (peerRefusals) AllowProtocol(protocol.ID) {}

// BlockProtocol implements rcmgr.MetricsReporter.
func (peerRefusals) BlockProtocol(protocol.ID) {}

// BlockProtocolPeer implements rcmgr.MetricsReporter.
func (peerRefusals) BlockProtocolPeer(protocol.ID, peer.ID) {}

// AllowService implements rcmgr.MetricsReporter.
func (peerRefusals) AllowService(string) {}

// BlockService implements rcmgr.MetricsReporter.
func (peerRefusals) BlockService(string) {}

// BlockServicePeer implements rcmgr.MetricsReporter.
func (peerRefusals) BlockServicePeer(string, peer.ID) {}

// AllowMemory implements rcmgr.MetricsReporter.
func (peerRefusals) AllowMemory(int) {}

// BlockMemory implements rcmgr.MetricsReporter.
func (peerRefusals) BlockMemory(int) {}

// sendMemory bounds the memory of what is sent over streams.
func (n *Node) sendMemory() stream.Memory {
	return stream.Memory{Node: n.limits.Value(limits.MemoryNode), Peer: n.limits.Value(limits.MemoryPeer), Waits: func(ofPeer bool) {
		if ofPeer {
			_ = n.limits.Hit(limits.MemoryPeer)
			return
		}
		_ = n.limits.Hit(limits.MemoryNode)
	}}
}

// transferLimits are those of the manager of transfers.
func (n *Node) transferLimits() dtimpl.Limits {
	l := n.limits
	return dtimpl.Limits{
		ChannelsPerPeer: l.Int(limits.DealsPeer), Channels: l.Int(limits.DealsNode), RestartBurst: l.Int(limits.RestartBurst),
		RestartEvery: l.Duration(limits.RestartEvery), YieldAfter: l.Duration(limits.Yield),
		Refused: func(ofPeer bool) error {
			if ofPeer {
				return l.Hit(limits.DealsPeer)
			}
			return l.Hit(limits.DealsNode)
		},
	}
}

// Limits answers Cartage.Limits.
func (s Service) Limits(context.Context) ([]api.Limit, error) {
	var out []api.Limit
	units := map[limits.Unit]string{limits.Count: "count", limits.Bytes: "bytes", limits.Duration: "nanoseconds"}
	for _, r := range s.n.limits.Rows() {
		code, err := r.Code.MarshalText()
		if err != nil {
			return nil, err
		}
		out = append(out, api.Limit{Name: string(r.Name), Value: r.Value, Max: r.Max, Unit: units[r.Unit], Origin: r.Origin, InUse: r.InUse, Hits: r.Hits,
			Reason: string(code), Text: r.Unit.Format(r.Value), About: r.Doc})
	}
	return out, nil
}
