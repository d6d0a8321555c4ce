package node

import (
	"testing"

	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/accounting"
)

// TestOrigins: many addresses that one party has cheaply count as one place.
func TestOrigins(t *testing.T) {
	for addr, want := range map[string][]accounting.Origin{
		"/ip4/203.0.113.7/tcp/1":              {{Key: "203.0.113.0/24", Intervals: 1}},
		"/ip4/203.0.113.200/udp/1/quic-v1":    {{Key: "203.0.113.0/24", Intervals: 1}},
		"/ip6/2001:db8:1:2:3::1/tcp/1":        {{Key: "2001:db8:1::/56", Intervals: 1}, {Key: "2001:db8::/32", Intervals: 8}},
		"/ip6/::ffff:203.0.113.7/tcp/1":       {{Key: "203.0.113.0/24", Intervals: 1}},
		"/ip4/127.0.0.1/tcp/1":                nil,
		"/ip4/10.1.2.3/tcp/1":                 nil,
		"/ip6/fe80::1/tcp/1":                  nil,
		"/ip4/203.0.113.7/tcp/1/p2p-circuit":  {{Key: "relayed", Intervals: 1}},
		"/dns4/example.org/tcp/1/p2p-circuit": {{Key: "relayed", Intervals: 1}},
	} {
		a, err := ma.NewMultiaddr(addr)
		require.NoError(t, err)
		require.Equal(t, want, prefixes{1, 8}.originsOfAddress(a), addr)
	}
}

// TestOriginsConfigured: an operator who gives no credit to whole networks has none to give.
func TestOriginsConfigured(t *testing.T) {
	a, err := ma.NewMultiaddr("/ip6/2001:db8:1:2:3::1/tcp/1")
	require.NoError(t, err)
	require.Equal(t, []accounting.Origin{{Key: "2001:db8:1::/56", Intervals: 0}, {Key: "2001:db8::/32", Intervals: 3}}, prefixes{0, 3}.originsOfAddress(a))
}
