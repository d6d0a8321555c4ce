package graphsync

import (
	"context"
	"fmt"
	"slices"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/datatransfer"
)

// CheckedNetwork looks at each graphsync message before the exchange does. Graphsync computes the CID of every block that
// comes, drops blocks that nobody asked for, and then waits for the right ones: with a sender that has stopped to be paid,
// for ever. A block that no response of its message names is therefore reported to the transport, which ends the channel.
// An honest sender names every block that it sends. New requests get keys of their own, and messages with blocks wait until a slow store has room for them.
type CheckedNetwork struct {
	gsnet.GraphSyncNetwork
	admit func(ctx context.Context, from peer.ID, m gsmsg.GraphSyncMessage)
	wrong func(p peer.ID, requests []graphsync.RequestID, block cid.Cid)
}

// NewCheckedNetwork wraps the network of an exchange; the transport over that exchange gets it with Checked.
func NewCheckedNetwork(net gsnet.GraphSyncNetwork) *CheckedNetwork {
	return &CheckedNetwork{GraphSyncNetwork: net, wrong: func(peer.ID, []graphsync.RequestID, cid.Cid) {}, admit: func(context.Context, peer.ID, gsmsg.GraphSyncMessage) {}}
}

// Checked makes a transport end channels whose sender sends wrong blocks, and bounds what waits for a slow store. It must be given before the exchange gets its first
// message.
func Checked(n *CheckedNetwork) Option {
	return func(t *Transport) { n.wrong, n.admit = t.wrongBlock, t.admit }
}

// SetDelegate implements the network of graphsync.
func (n *CheckedNetwork) SetDelegate(r gsnet.Receiver) {
	n.GraphSyncNetwork.SetDelegate(checkedReceiver{r, n})
}

type checkedReceiver struct {
	gsnet.Receiver
	net *CheckedNetwork
}

// ReceiveMessage implements the receiver of graphsync.
func (r checkedReceiver) ReceiveMessage(ctx context.Context, sender peer.ID, incoming gsmsg.GraphSyncMessage) {
	if requests, bad := unnamedBlock(incoming); bad.Defined() {
		r.net.wrong(sender, requests, bad)
	}
	r.net.admit(ctx, sender, incoming)
	r.Receiver.ReceiveMessage(ctx, sender, withOwnKeys(incoming))
}

// withOwnKeys gives each new request a key of its own for blocks that are not sent twice. With the key of its peer, or none, blocks that an earlier
// request has traversed are left out as long as that one has not ended: of a channel that is restarted meanwhile they would never come, and a channel
// beside it would be short of them.
func withOwnKeys(m gsmsg.GraphSyncMessage) gsmsg.GraphSyncMessage {
	all := m.Requests()
	if !slices.ContainsFunc(all, func(r gsmsg.GraphSyncRequest) bool { return r.Type() == graphsync.RequestTypeNew }) {
		return m
	}
	requests := make(map[graphsync.RequestID]gsmsg.GraphSyncRequest, len(all))
	for _, r := range all {
		if r.Type() == graphsync.RequestTypeNew {
			r = r.ReplaceExtensions([]graphsync.ExtensionData{{Name: graphsync.ExtensionDeDupByKey, Data: basicnode.NewString(r.ID().String())}})
		}
		requests[r.ID()] = r
	}
	responses := map[graphsync.RequestID]gsmsg.GraphSyncResponse{}
	for _, r := range m.Responses() {
		responses[r.RequestID()] = r
	}
	blks := map[cid.Cid]blocks.Block{}
	for _, b := range m.Blocks() {
		blks[b.Cid()] = b
	}
	return gsmsg.NewMessage(requests, responses, blks)
}

// unnamedBlock returns a block of a message that no response in it names, with the requests of those responses.
func unnamedBlock(m gsmsg.GraphSyncMessage) (requests []graphsync.RequestID, bad cid.Cid) {
	all := m.Blocks()
	if len(all) == 0 {
		return nil, cid.Undef
	}
	named := make(map[cid.Cid]struct{}, len(all))
	for _, r := range m.Responses() {
		requests = append(requests, r.RequestID())
		r.Metadata().Iterate(func(c cid.Cid, _ graphsync.LinkAction) { named[c] = struct{}{} })
	}
	for _, b := range all {
		if _, ok := named[b.Cid()]; !ok {
			return requests, b.Cid()
		}
	}
	return nil, cid.Undef
}

// wrongBlock ends the requests of a sender that sent a block which is not what it claims to be.
func (t *Transport) wrongBlock(p peer.ID, requests []graphsync.RequestID, block cid.Cid) {
	for _, id := range requests {
		chid, ok := t.blame(p, id, fmt.Errorf("the sender sent block %s, which is none of those that it announced", block))
		if ok {
			t.background(func(ctx context.Context) { t.log(chid, t.cancelRequest(ctx, id)) })
		}
	}
}

// blame notes why a request is about to be cancelled, if it is the current one of a channel with that peer.
func (t *Transport) blame(p peer.ID, id graphsync.RequestID, why error) (datatransfer.ChannelID, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.requests[id]
	if c == nil || c.current != id || c.sending || c.id.OtherParty(t.self) != p {
		return datatransfer.ChannelID{}, false
	}
	if c.wrong == nil {
		c.wrong = why
	}
	return c.id, true
}
