package graphsync

import (
	"errors"
	"fmt"
	"net"

	"github.com/ipfs/go-graphsync"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/datatransfer"
)

func (t *Transport) responseCompleted(p peer.ID, request graphsync.RequestData, status graphsync.ResponseStatusCode) {
	if status == graphsync.RequestCancelled {
		return
	}
	chid, refused, current := t.finish(request.ID())
	if !current {
		return
	}
	if t.onResponseDone != nil {
		t.onResponseDone(chid)
	}
	var err error
	if status != graphsync.RequestCompletedFull {
		err = fmt.Errorf("graphsync response to peer %s did not complete: response status code %s", p, status)
	}
	if refused != nil {
		err = refused
	}
	t.log(chid, t.handler().OnChannelCompleted(chid, err))
}

// requesterCancelled is also what a pause of the requester looks like: the channel waits for its next request.
func (t *Transport) requesterCancelled(p peer.ID, request graphsync.RequestData) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.undecidedGone(request.ID())
	if c := t.requests[request.ID()]; c != nil && c.current == request.ID() {
		c.away = true
		t.retire(c)
	}
}

func (t *Transport) sendError(p peer.ID, request graphsync.RequestData, gserr error) {
	if chid, ok := t.of(request.ID()); ok {
		t.log(chid, t.handler().OnSendDataError(chid, gserr))
	}
}

func (t *Transport) receiveError(p peer.ID, gserr error) {
	t.mu.Lock()
	var ids []datatransfer.ChannelID
	for _, c := range t.liveWith(p, func(*channel) bool { return true }) {
		ids = append(ids, c.id)
	}
	t.mu.Unlock()
	if timeout := net.Error(nil); !errors.As(gserr, &timeout) || !timeout.Timeout() { // an idle stream loses nothing
		t.shake(ids)
	}
	for _, id := range ids {
		t.log(id, t.handler().OnReceiveDataError(id, gserr))
	}
}
