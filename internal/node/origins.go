package node

import (
	"net/netip"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/cartage-dev/cartage/internal/accounting"
)

// prefixes are how many intervals all strangers of one prefix of addresses may have out unpaid. A whole IPv6 allocation is as cheap as one
// IPv4 network, so it has a bound too.
type prefixes struct{ network, allocation uint64 }

// originsOf is where a peer is connected from.
func (n *Node) originsOf(p peer.ID) (out []accounting.Origin) {
	c := n.parts.Config.Credit
	per := prefixes{uint64(c.PerNetwork), uint64(c.PerAllocation)}
	seen := map[string]bool{}
	for _, c := range n.Host.Network().ConnsToPeer(p) {
		for _, o := range per.originsOfAddress(c.RemoteMultiaddr()) {
			if !seen[o.Key] {
				seen[o.Key] = true
				out = append(out, o)
			}
		}
	}
	return out
}

// originsOfAddress has no limit for this machine and private networks; all relayed connections are one origin.
func (per prefixes) originsOfAddress(a ma.Multiaddr) []accounting.Origin {
	if _, err := a.ValueForProtocol(ma.P_CIRCUIT); err == nil {
		return []accounting.Origin{{Key: "relayed", Intervals: per.network}}
	}
	raw, err := manet.ToIP(a)
	if err != nil {
		return nil
	}
	ip, ok := netip.AddrFromSlice(raw)
	if !ok {
		return nil
	}
	if ip = ip.Unmap(); ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() {
		return nil
	}
	if ip.Is4() {
		return []accounting.Origin{prefixOf(ip, 24, per.network)}
	}
	return []accounting.Origin{prefixOf(ip, 56, per.network), prefixOf(ip, 32, per.allocation)}
}

func prefixOf(ip netip.Addr, bits int, intervals uint64) accounting.Origin {
	p, err := ip.Prefix(bits)
	if err != nil {
		return accounting.Origin{Key: ip.String(), Intervals: intervals}
	}
	return accounting.Origin{Key: p.String(), Intervals: intervals}
}
