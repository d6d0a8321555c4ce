package graphsync

import (
	"github.com/ipfs/go-graphsync"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/datatransfer"
)

// MaxLinks bounds how many links the requests of a channel may follow on this side, as sender and as recipient; 0
// is no bound of the channel's own. Call it from a transport configurer, before the request exists.
func (t *Transport) MaxLinks(chid datatransfer.ChannelID, n uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	t.links[chid] = n
}

func (t *Transport) maxLinks(chid datatransfer.ChannelID) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.links[chid]
}

// overBound counts a link that the response to a request follows, repeats included, and returns MaxLinks of its channel if that is passed:
// graphsync cannot be told of it when requests are made before their channel is configured.
func (t *Transport) overBound(id graphsync.RequestID) (passed uint64) {
	if t.deciding == nil {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.requests[id]
	if c == nil {
		return 0
	}
	if n := t.links[c.id]; n > 0 {
		if c.followed++; c.followed > n {
			return n
		}
	}
	return 0
}

// ChannelsForPeer are the channels with one peer.
type ChannelsForPeer struct {
	SendingChannels   map[datatransfer.ChannelID]ChannelGraphsyncRequests
	ReceivingChannels map[datatransfer.ChannelID]ChannelGraphsyncRequests
}

// ChannelGraphsyncRequests are the graphsync requests of a channel: the last one, and those before its restarts, oldest first, at most 8.
type ChannelGraphsyncRequests struct {
	Current  graphsync.RequestID
	Previous []graphsync.RequestID
}

const maxPrevious = 8

// ChannelsForPeer lists the channels with a peer, by direction of the data.
func (t *Transport) ChannelsForPeer(p peer.ID) ChannelsForPeer {
	out := ChannelsForPeer{map[datatransfer.ChannelID]ChannelGraphsyncRequests{}, map[datatransfer.ChannelID]ChannelGraphsyncRequests{}}
	if p == t.self {
		return out
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, c := range t.channels {
		if id.OtherParty(t.self) != p {
			continue
		}
		r := ChannelGraphsyncRequests{c.current, append([]graphsync.RequestID(nil), c.previous...)}
		if c.sending {
			out.SendingChannels[id] = r
		} else {
			out.ReceivingChannels[id] = r
		}
	}
	return out
}
