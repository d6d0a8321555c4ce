package stream

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/message"
)

// errForeign is a message that has no business on the stream of a running channel.
var errForeign = errors.New("a message that is not of this channel, or opens one")

var errEnded = errors.New("the sender has ended")

// frame reads one frame. Of a frame of blocks it reads the head only.
func (rc *recipient) frame() error {
	if err := rc.count(); err != nil {
		return err
	}
	rc.allow(0) // a pause may be long
	if _, err := rc.in.Peek(1); err != nil {
		return err
	}
	rc.allow(rc.t.frameLimit)
	k, size, err := readHeader(rc.in)
	if err != nil {
		return unexpected(err)
	}
	rc.allow(rc.t.frameLimit * time.Duration(1+size>>20))
	switch k {
	case kindBlocks:
		rc.blocks.left = size
		if size == 0 {
			return fmt.Errorf("%w: an empty frame", errWrongBlock)
		}
		return nil
	case kindMessage, kindEnd:
		body, err := readBody(rc.in, size)
		if err != nil {
			return err
		}
		if k == kindMessage {
			return rc.message(body)
		}
		return rc.end(body)
	}
	return fmt.Errorf("a sender sent a frame of kind %d", k)
}

func (rc *recipient) end(body []byte) error {
	if len(body) == 0 {
		return errors.New("an end without an outcome")
	}
	rc.how, rc.text = outcome(body[0]), string(body[1:])
	return errEnded
}

// message lets the handler take a message of the sender.
func (rc *recipient) message(body []byte) error {
	msg, err := message.FromNet(bytes.NewReader(body))
	if err != nil {
		return err
	}
	if msg.TransferID() != rc.r.chid.ID {
		return errForeign
	}
	resumes := rc.r.gate.count()
	var answer dt.Message
	switch m := msg.(type) {
	case dt.Response:
		err = rc.t.handler().OnResponseReceived(rc.r.chid, m)
	case dt.Request:
		if m.IsNew() || m.IsRestart() {
			return errForeign
		}
		var resp dt.Response
		if resp, err = rc.t.handler().OnRequestReceived(rc.r.chid, m); resp != nil {
			answer = resp
		}
	}
	if answer != nil && !rc.stopping.Load() {
		out, xerr := messageFrame(answer)
		if xerr == nil {
			xerr = rc.say(out)
		}
		rc.t.log(rc.r.chid, xerr)
	}
	switch {
	case errors.Is(err, dt.ErrPause):
		rc.t.holdUnless(rc.r, resumes)
	case errors.Is(err, dt.ErrResume): // says that this side need not wait for the other any more: it does not
	default:
		return err
	}
	return nil
}

// rest reads what the sender still says after the last block, or after a pause.
func (rc *recipient) rest() (err error) {
	for err == nil {
		if rc.blocks.left > 0 {
			if !rc.stopping.Load() {
				return fmt.Errorf("%w: %d bytes more than were asked for", errWrongBlock, rc.blocks.left)
			}
			if _, err := rc.in.Discard(rc.blocks.left); err != nil {
				return errHeld
			}
			rc.blocks.left = 0
		}
		err = rc.frame()
	}
	switch {
	case errors.Is(err, errEnded), rc.stopping.Load():
		return nil
	}
	return err
}
