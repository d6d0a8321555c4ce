package network

import (
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"
)

// known keeps the addresses of peers that share a channel with this node. A host forgets those of a peer that is away for long, and at
// once those of one that says, while it closes, that it listens no more.
type known struct {
	mu    sync.Mutex
	peers map[peer.ID]*acquaintance
}

type acquaintance struct {
	tags  map[string]struct{} // of its channels
	addrs []ma.Multiaddr
}

// keep remembers where a peer is; from then on until drop was called for each tag.
func (k *known) keep(id peer.ID, tag string, at []ma.Multiaddr) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.peers == nil {
		k.peers = map[peer.ID]*acquaintance{}
	}
	a := k.peers[id]
	if a == nil {
		a = &acquaintance{tags: map[string]struct{}{}}
		k.peers[id] = a
	}
	a.tags[tag] = struct{}{}
	if len(at) > 0 {
		a.addrs = at
	}
}

func (k *known) drop(id peer.ID, tag string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if a := k.peers[id]; a != nil {
		delete(a.tags, tag)
		if len(a.tags) == 0 {
			delete(k.peers, id)
		}
	}
}

// refresh notes where a known peer is now.
func (k *known) refresh(id peer.ID, book peerstore.AddrBook) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if a := k.peers[id]; a != nil {
		if at := book.Addrs(id); len(at) > 0 {
			a.addrs = at
		}
	}
}

// recall gives a host back what it has forgotten.
func (k *known) recall(id peer.ID, book peerstore.AddrBook) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if a := k.peers[id]; a != nil {
		book.AddAddrs(id, a.addrs, peerstore.TempAddrTTL)
	}
}
