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
	"github.com/cartage-dev/cartage/shared"
)

// ChannelChecker is optional on an EventsHandler: whether a question that carries an answer of the other side is about what the
// channel is about.
type ChannelChecker interface {
	CheckRequest(chid dt.ChannelID, root ipld.Link, selector ipld.Node) error
}

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
func Decide(h dt.EventsHandler, chid dt.ChannelID, f For) (dt.Message, error) {
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
func requested(h dt.EventsHandler, chid dt.ChannelID, f For, m dt.Request) (dt.Response, error) {
	if !m.IsNew() {
		tellPosition(h, chid, f.Has)
	}
	resp, err := h.OnRequestReceived(chid, m)
	if m.IsNew() && (err == nil || errors.Is(err, dt.ErrPause)) {
		tellPosition(h, chid, f.Has)
		h.OnTransferQueued(chid)
	}
	return resp, err
}

// tellPosition passes on how many blocks a recipient says that it has.
func tellPosition(h dt.EventsHandler, chid dt.ChannelID, has int64) {
	if p, ok := h.(interface {
		OnRestartPosition(dt.ChannelID, int64)
	}); ok {
		p.OnRestartPosition(chid, has)
	}
}

// resumed lets a recipient go on after its own pause: it asks again, with another message in the place of the one that opened the
// channel. That message names no root and no selector, so those of the channel count. A sender that was started again meanwhile
// takes the channel up from its store.
func resumed(h dt.EventsHandler, chid dt.ChannelID, f For) error {
	if err := checkChannel(h, chid, f); err != nil {
		return err
	}
	if b, ok := h.(interface {
		MayAskAgain(dt.ChannelID, int64) error
	}); ok {
		if err := b.MayAskAgain(chid, f.Has); err != nil {
			return err
		}
	}
	if f.Sending {
		return nil
	}
	if t, ok := h.(interface{ TakeUp(dt.ChannelID) error }); ok {
		return t.TakeUp(chid)
	}
	return errors.New("data is asked for to open, restart or resume a channel: updates go to the running one")
}

// checkChannel compares what is asked for with the channel that the message names.
func checkChannel(h dt.EventsHandler, chid dt.ChannelID, f For) error {
	c, ok := h.(ChannelChecker)
	if !ok {
		return nil
	}
	return c.CheckRequest(chid, cidlink.Link{Cid: f.Root}, f.Selector)
}

// Check compares what is asked for with what the message is about; Decide does so first.
func Check(h dt.EventsHandler, chid dt.ChannelID, f For, m dt.Request) error {
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
func Silent(h dt.EventsHandler, chid dt.ChannelID, msg dt.Message) bool {
	if r, ok := msg.(dt.Request); ok && (r.IsNew() || r.IsRestart()) {
		return false // its answer says so
	}
	if r, ok := msg.(dt.Response); ok && (r.IsNew() || r.IsRestart()) {
		return false
	}
	s, ok := h.(interface{ Silent(dt.ChannelID) bool })
	return ok && s.Silent(chid)
}

// Undelivered hands a message back to the handler that could not be carried.
func Undelivered(h dt.EventsHandler, chid dt.ChannelID, m dt.Message) {
	if u, ok := h.(interface {
		Undelivered(dt.ChannelID, dt.Message)
	}); ok && m != nil {
		u.Undelivered(chid, m)
	}
}

// Tell notes that the other side asks for the data of a channel.
func Tell(h dt.EventsHandler, chid dt.ChannelID) {
	if a, ok := h.(interface{ OnDataAsked(dt.ChannelID) }); ok {
		a.OnDataAsked(chid)
	}
}
