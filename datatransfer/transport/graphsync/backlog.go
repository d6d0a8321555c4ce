package graphsync

import (
	"context"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	"github.com/libp2p/go-libp2p/core/peer"
)

// graphsync queues what a sender sends for as long as the store of the recipient is slower, without a bound. Messages of blocks for a
// request that has much in that queue are therefore not handed over: the stream is not read on, and the sender stops at its window.

const (
	// maxBacklog is how much of a request waits for its store before the next message with blocks for it does.
	maxBacklog = 8 << 20
	// backlogWait is how long that lasts while nothing moves: the count may be wrong, and no message is held for ever.
	backlogWait = 30 * time.Second
)

// backlog is what has come for a request and was not taken yet, in the order of its traversal.
type backlog struct {
	blocks []waitingBlock
	bytes  int
}

type waitingBlock struct {
	cid  cid.Cid
	size int
}

// forget ends what is known of a request; mu is held.
func (t *Transport) forget(id graphsync.RequestID) {
	delete(t.requests, id)
	if _, ok := t.backlogs[id]; ok {
		delete(t.backlogs, id)
		t.backlogMoved()
	}
}

// backlogMoved wakes who waits for room; mu is held.
func (t *Transport) backlogMoved() {
	if t.room != nil {
		close(t.room)
		t.room = nil
	}
}

// admit waits until there is room for the blocks of a message, and counts them.
func (t *Transport) admit(ctx context.Context, from peer.ID, m gsmsg.GraphSyncMessage) {
	sizes := map[cid.Cid]int{}
	for _, b := range m.Blocks() {
		sizes[b.Cid()] = len(b.RawData())
	}
	if len(sizes) == 0 {
		return
	}
	timeout := time.NewTimer(backlogWait)
	defer timeout.Stop()
	for late := false; ; {
		t.mu.Lock()
		if late || !t.full(from, m) {
			t.count(from, m, sizes)
			t.mu.Unlock()
			return
		}
		if t.room == nil {
			t.room = make(chan struct{})
		}
		moved := t.room
		t.mu.Unlock()
		select {
		case <-moved:
			timeout.Reset(backlogWait)
		case <-timeout.C:
			late = true
		case <-ctx.Done():
			return
		case <-t.ctx.Done():
			return
		}
	}
}

// receives tells whether a request of this side is answered by a peer; mu is held.
func (t *Transport) receives(from peer.ID, id graphsync.RequestID) bool {
	c := t.requests[id]
	return c != nil && !c.sending && c.id.OtherParty(t.self) == from
}

// full tells whether a message has to wait: a request has too much, and none that has nothing needs the message. mu is held.
func (t *Transport) full(from peer.ID, m gsmsg.GraphSyncMessage) (full bool) {
	for _, r := range m.Responses() {
		if !t.receives(from, r.RequestID()) {
			continue
		}
		b := t.backlogs[r.RequestID()]
		if b == nil || b.bytes == 0 {
			return false
		}
		full = full || b.bytes >= maxBacklog
	}
	return full
}

// count notes the blocks of a message; mu is held.
func (t *Transport) count(from peer.ID, m gsmsg.GraphSyncMessage, sizes map[cid.Cid]int) {
	for _, r := range m.Responses() {
		id := r.RequestID()
		if !t.receives(from, id) {
			continue
		}
		seen := map[cid.Cid]bool{}
		r.Metadata().Iterate(func(c cid.Cid, a graphsync.LinkAction) {
			size, ok := sizes[c]
			if !ok || seen[c] || a != graphsync.LinkActionPresent {
				return
			}
			seen[c] = true
			b := t.backlogs[id]
			if b == nil {
				b = &backlog{}
				t.backlogs[id] = b
			}
			b.blocks, b.bytes = append(b.blocks, waitingBlock{c, size}), b.bytes+size
		})
	}
}

// taken notes that the store has a block, and with it all that came before it.
func (t *Transport) taken(id graphsync.RequestID, c cid.Cid) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.backlogs[id]
	if b == nil {
		return
	}
	n := slices.IndexFunc(b.blocks, func(w waitingBlock) bool { return w.cid.Equals(c) })
	if n < 0 {
		return // it was here already
	}
	for _, w := range b.blocks[:n+1] {
		b.bytes -= w.size
	}
	if b.blocks = b.blocks[n+1:]; len(b.blocks) == 0 {
		b.blocks = nil
	}
	t.backlogMoved()
}
