package network

import (
	"testing"

	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
)

// TestKnown: what a host has forgotten of a peer is recalled as long as the peer shares a channel.
func TestKnown(t *testing.T) {
	book := pstoremem.NewAddrBook()
	defer book.Close()
	one, two := ma.StringCast("/ip4/127.0.0.1/tcp/1"), ma.StringCast("/ip4/127.0.0.1/tcp/2")
	var k known
	k.keep("peer", "a", []ma.Multiaddr{one})
	k.keep("peer", "b", nil) // nothing new
	k.drop("peer", "a")
	k.recall("peer", book)
	require.Equal(t, []ma.Multiaddr{one}, book.Addrs("peer"))
	book.ClearAddrs("peer")
	k.refresh("peer", book) // the host knows nothing
	k.recall("peer", book)
	require.Equal(t, []ma.Multiaddr{one}, book.Addrs("peer"))
	book.ClearAddrs("peer")
	book.AddAddrs("peer", []ma.Multiaddr{two}, 1<<40)
	k.refresh("peer", book)
	book.ClearAddrs("peer")
	k.recall("peer", book)
	require.Equal(t, []ma.Multiaddr{two}, book.Addrs("peer"))
	book.ClearAddrs("peer")
	k.drop("peer", "b")
	k.recall("peer", book)
	require.Empty(t, book.Addrs("peer"))
	require.Empty(t, k.peers)
	k.refresh("stranger", book)
	k.drop("stranger", "a")
	require.Empty(t, k.peers)
}
