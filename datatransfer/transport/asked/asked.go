// Package asked lets the handler of a transport decide on what a recipient asks a sender for, whatever carries the question.
package asked

import (
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/port"
	"github.com/cartage-dev/cartage/shared"
)

// For is what a recipient asks for, with a message of data transfer.
type For struct {
	Root     cid.Cid
	Selector ipld.Node
	Has      int64 // the first blocks that it has
	Message  dt.Message
	Sending  bool // this side sends on the channel already
}

// Channel is the channel that a message from a peer is about.
func Channel(self, from peer.ID, m dt.Message) dt.ChannelID {
	if m.IsRequest() {
		return dt.ChannelID{Initiator: from, Responder: self, ID: m.TransferID()}
	}
	return dt.ChannelID{Initiator: self, Responder: from, ID: m.TransferID()}
}

// Decide asks the handler. The answer is to be sent in any case; ErrPause and ErrResume are no refusals.
func Decide(h port.Handler, chid dt.ChannelID, f For) (dt.Message, error) {
	switch m := f.Message.(type) {
	case dt.Request:
		if err := Check(h, chid, f, m); err != nil {
			return nil, err
		}
		resp, err := requested(h, chid, f, m)
		if resp == nil {
			return nil, err
		}
		return resp, err
	case dt.Response:
		var err error
		if m.IsNew() || m.IsRestart() {
			err = checkChannel(h, chid, f)
		} else {
			err = resumed(h, chid, f)
		}
		if err != nil {
			return nil, err
		}
		if m.IsNew() {
			h.OnTransferQueued(chid)
		}
		return nil, h.OnResponseReceived(chid, m)
	}
	return nil, fmt.Errorf("message of unknown kind %T", f.Message)
}

// requested lets the handler decide on a request.
func requested(h port.Handler, chid dt.ChannelID, f For, m dt.Request) (dt.Response, error) {
	resp, err := h.OnDataRequest(chid, m, f.Has)
	if m.IsNew() && (err == nil || errors.Is(err, dt.ErrPause)) {
		h.OnTransferQueued(chid)
	}
	return resp, err
}

// resumed lets a recipient go on after its own pause: it asks again, with another message in the place of the one that opened the
// channel. That message names no root and no selector, so those of the channel count. A sender that was started again meanwhile
// takes the channel up from its store.
func resumed(h port.Handler, chid dt.ChannelID, f For) error {
	if err := checkChannel(h, chid, f); err != nil {
		return err
	}
	if err := h.MayAskAgain(chid, f.Has); err != nil {
		return err
	}
	if f.Sending {
		return nil
	}
	return h.AdoptForSending(chid)
}

// checkChannel compares what is asked for with the channel that the message names.
func checkChannel(h port.Handler, chid dt.ChannelID, f For) error {
	return h.CheckRequest(chid, cidlink.Link{Cid: f.Root}, f.Selector)
}

// Check compares what is asked for with what the message is about; Decide does so first.
func Check(h port.Handler, chid dt.ChannelID, f For, m dt.Request) error {
	switch {
	case !m.IsNew() && !m.IsRestart() && m.IsUpdate():
		return resumed(h, chid, f)
	case !m.IsNew() && !m.IsRestart():
		return errors.New("only an update comes with the question of a recipient that goes on")
	case !m.IsPull():
		return errors.New("a push request cannot ask for data")
	case !m.BaseCid().Equals(f.Root):
		return fmt.Errorf("root %s is not the base CID %s of the request", f.Root, m.BaseCid())
	}
	sel, err := m.Selector()
	if err != nil {
		return err
	}
	if !shared.SameNode(sel, f.Selector) {
		return errors.New("the selector is not the selector of the request")
	}
	return nil
}

// Silent asks the handler whether a recipient that goes on after its pause gets nothing yet.
func Silent(h port.Handler, chid dt.ChannelID, msg dt.Message) bool {
	if r, ok := msg.(dt.Request); ok && (r.IsNew() || r.IsRestart()) {
		return false // its answer says so
	}
	if r, ok := msg.(dt.Response); ok && (r.IsNew() || r.IsRestart()) {
		return false
	}
	return h.Silent(chid)
}
