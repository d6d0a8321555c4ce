package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/gateway"
	"github.com/cartage-dev/cartage/internal/limits"
	"github.com/cartage-dev/cartage/internal/reason"
)

// rowTest reaches a limit exactly, and goes one beyond it. What is enforced in another package is tested there: where names the test, and beyond
// calls what the node gave to that package for a refusal.
type rowTest struct {
	value  int64 // that the limit is set to; 0: it is fixed
	at     func(t *testing.T, n *Node)
	beyond func(t *testing.T, n *Node)
	where  string // FILE TestName
	waits  bool   // reaching it refuses nobody: who is over it waits
}

func inboundFrom(t *testing.T, m network.ResourceManager, addr string, p peer.ID) error {
	a, err := multiaddr.NewMultiaddr(addr)
	require.NoError(t, err)
	s, err := m.OpenConnection(network.DirInbound, false, a)
	if err == nil && p != "" {
		err = s.SetPeer(p)
	}
	return err
}

// resourceRow opens count connections or streams with open, and then one more.
func resourceRow(count int, open func(t *testing.T, m network.ResourceManager, i int) error) rowTest {
	var m network.ResourceManager
	return rowTest{value: int64(count), at: func(t *testing.T, n *Node) {
		var err error
		m, err = n.resources()
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, m.Close()) })
		for i := range count {
			require.NoError(t, open(t, m, i))
		}
	}, beyond: func(t *testing.T, _ *Node) { require.Error(t, open(t, m, count)) }}
}

// elsewhere is a limit that another package enforces.
func elsewhere(where string, refused func(n *Node)) rowTest {
	return rowTest{where: where, at: func(*testing.T, *Node) {}, beyond: func(_ *testing.T, n *Node) { refused(n) }}
}

func gatewayRow(b gateway.Bound, where string) rowTest {
	return elsewhere(where, func(n *Node) { n.gatewayLimits().Reached(b) })
}

func rowTests() map[limits.Name]rowTest {
	stream := func(p func(i int) peer.ID) func(*testing.T, network.ResourceManager, int) error {
		return func(_ *testing.T, m network.ResourceManager, i int) error {
			_, err := m.OpenStream(p(i), network.DirInbound)
			return err
		}
	}
	one, each := func(int) peer.ID { return "one" }, func(i int) peer.ID { return peer.ID(rune('a' + i)) }
	public := func(i int) string { return "/ip4/198.51.100." + string(rune('1'+i)) + "/tcp/1" }
	const transfers = "datatransfer/impl/places_test.go TestPlacesAtLimit"
	const lent = "datatransfer/transport/stream/lent_test.go TestLentAtLimit"
	return map[limits.Name]rowTest{
		limits.ConnsNode:    resourceRow(3, func(t *testing.T, m network.ResourceManager, i int) error { return inboundFrom(t, m, public(i), "") }),
		limits.ConnsAddress: resourceRow(2, func(t *testing.T, m network.ResourceManager, _ int) error { return inboundFrom(t, m, public(0), "") }),
		limits.ConnsPeer:    resourceRow(2, func(t *testing.T, m network.ResourceManager, i int) error { return inboundFrom(t, m, public(i), "one") }),
		limits.StreamsNode:  resourceRow(3, stream(each)),
		limits.StreamsPeer:  resourceRow(3, stream(one)),
		limits.DealsPeer:    elsewhere(transfers, func(n *Node) { _ = n.transferLimits().Refused(true) }),
		limits.DealsNode:    elsewhere(transfers, func(n *Node) { _ = n.transferLimits().Refused(false) }),
		limits.MemoryPeer:   elsewhere(lent, func(n *Node) { n.sendMemory().Waits(true) }),
		limits.MemoryNode:   elsewhere(lent, func(n *Node) { n.sendMemory().Waits(false) }),
		limits.RPCConns:     elsewhere("internal/rpc/bounded_test.go TestConnsAtLimit", func(n *Node) { _ = n.limits.Hit(limits.RPCConns) }),
		limits.RefusedTokens: {value: 2, at: func(t *testing.T, n *Node) {
			d := newDoors(n, "master")
			for range 2 {
				_, err := d.enter(t.Context(), "")
				require.Error(t, err)
			}
			require.Zero(t, hits(n, limits.RefusedTokens))
			_, err := d.enter(t.Context(), "")
			require.Error(t, err)
			require.EqualValues(t, 1, hits(n, limits.RefusedTokens))
			_, err = d.enter(t.Context(), "master")
			require.NoError(t, err)
		}, waits: true},
		limits.QueriesPeer: elsewhere("retrievalmarket/network/network_test.go TestQueriesAtLimit", func(n *Node) { _ = n.limits.Hit(limits.QueriesPeer) }),
		limits.Selector:    elsewhere("retrievalmarket/impl/provider_test.go TestSelectorAtLimit", func(n *Node) { _ = n.limits.Hit(limits.Selector) }),
		limits.DAGDepth: {at: func(t *testing.T, _ *Node) { require.NoError(t, carstore.CheckDepth(limits.MaxDepth)) }, beyond: func(t *testing.T, n *Node) {
			n.limits.Ended(reasonOf(t, carstore.CheckDepth(limits.MaxDepth+1)))
		}},
		limits.Links: {at: func(t *testing.T, _ *Node) { require.NoError(t, carstore.CheckLinks(limits.MaxLinks, 1<<30)) }, beyond: func(t *testing.T, n *Node) {
			n.limits.Ended(reasonOf(t, carstore.CheckLinks(limits.MaxLinks+1, 1<<30)))
		}},
		limits.Block: {at: func(t *testing.T, _ *Node) { require.NoError(t, putBlock(t, limits.MaxBlock)) }, beyond: func(t *testing.T, n *Node) {
			n.limits.Ended(reasonOf(t, putBlock(t, limits.MaxBlock+1)))
		}},
		limits.GatewayRequests:    gatewayRow(gateway.BoundRequests, "gateway/limits_test.go TestG_95_Limits"),
		limits.GatewayRequestsAll: gatewayRow(gateway.BoundAllRequests, "gateway/limits_test.go TestG_95_Limits"),
		limits.GatewayFree:        gatewayRow(gateway.BoundFree, "gateway/limits_test.go TestConcurrentAnswers"),
		limits.GatewayFreeHost:    gatewayRow(gateway.BoundFreePerAddress, "gateway/limits_test.go TestConcurrentAnswers"),
	}
}

// noRowTest are the limits that have no test of both sides yet, so that the list only shrinks.
var noRowTest = map[limits.Name]bool{
	limits.RestartBurst: true, limits.RestartEvery: true, limits.Yield: true, limits.GraphsyncDeals: true, limits.RPCBody: true,
	limits.GatewayConns: true, limits.GatewayConnsHost: true, limits.GatewayFailures: true, limits.GatewayMemory: true,
}

func hits(n *Node, name limits.Name) uint64 {
	for _, r := range n.limits.Rows() {
		if r.Name == name {
			return r.Hits
		}
	}
	return 0
}

// TestEveryLimit walks the registry: each limit is reached exactly, which counts nothing, and gone beyond by one, which counts one.
func TestEveryLimit(t *testing.T) {
	tests := rowTests()
	for _, row := range limits.Default().Rows() {
		test, ok := tests[row.Name]
		require.NotEqual(t, ok, noRowTest[row.Name], "%s needs a test of both sides, or has one and is listed as if not", row.Name)
		if !ok {
			continue
		}
		t.Run(string(row.Name), func(t *testing.T) {
			values := map[string]any{}
			if test.value > 0 {
				values[string(row.Name)] = test.value
			}
			reg, err := limits.New(values, func(limits.Name) string { return "test" })
			require.NoError(t, err)
			n := &Node{limits: reg, tokens: testDoors(t).tokens}
			test.at(t, n)
			if test.where != "" {
				file, name, _ := strings.Cut(test.where, " ")
				text, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(file)))
				require.NoError(t, err)
				require.Contains(t, string(text), "func "+name+"(")
			}
			if test.waits {
				return
			}
			require.Zero(t, hits(n, row.Name), "at the limit")
			test.beyond(t, n)
			require.EqualValues(t, 1, hits(n, row.Name), "one beyond")
		})
	}
}

// reasonOf is the reason of an error, which there has to be.
func reasonOf(t *testing.T, err error) reason.Reason {
	require.Error(t, err)
	return reason.From(err)
}

func putBlock(t *testing.T, size int) error {
	data := make([]byte, size)
	c, err := cid.V1Builder{Codec: cid.Raw, MhType: 0x12}.Sum(data)
	require.NoError(t, err)
	s, err := carstore.Open(blob.OS{}, filepath.Join(t.TempDir(), "x.car"), c)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	return s.Put(c, data)
}
