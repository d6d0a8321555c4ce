package graphsync

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs/go-graphsync"

	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/reason"
)

var errVerification error = reason.HashMismatch.Errorf("data failed verification")

// stopCurrent cancels the running request of a channel and waits a moment for its end, so that a restart does not mix
// with it. What still comes of it counts until then.
func (t *Transport) stopCurrent(ctx context.Context, chid datatransfer.ChannelID) {
	t.mu.Lock()
	c := t.channels[chid]
	if c == nil || !c.live {
		t.mu.Unlock()
		return
	}
	id, done := c.current, c.done
	c.stopping = id
	t.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = t.cancelRequest(ctx, id)
	select {
	case <-done:
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.live && c.current == id {
		t.retire(c)
	}
}

// drain reads both channels of a request to their end and reports how it ended.
func (t *Transport) drain(id graphsync.RequestID, responses <-chan graphsync.ResponseProgress, errs <-chan error) {
	var cause error
	missing := 0
	for responses != nil || errs != nil {
		select {
		case _, ok := <-responses:
			if !ok {
				responses = nil
			}
		case err, ok := <-errs:
			if !ok {
				errs = nil
				continue
			}
			if errors.As(err, new(graphsync.RemoteMissingBlockErr)) {
				missing++
			} else if cause == nil || own(cause) {
				cause = err
			}
		}
	}
	chid, wrong, current := t.finish(id)
	if !current {
		return
	}
	if wrong != nil {
		cause = fmt.Errorf("%w: %w", errVerification, wrong)
	}
	if own(cause) && t.isStopping(chid, id) {
		return
	}
	if cause == nil && missing > 0 && t.askAgain(chid) {
		return
	}
	if cause != nil && wrong == nil && errors.As(cause, new(graphsync.RemoteIncorrectResponseError)) {
		if t.isShaken(chid) {
			t.stop(chid) // a message is missing in between: only a restart helps
			t.log(chid, t.handler().OnReceiveDataError(chid, fmt.Errorf("messages were lost: %w", cause)))
			return
		}
		if t.askAgain(chid) { // after a restart the sender may have lost one without this side hearing of it
			return
		}
	}
	if t.onRequestDone != nil {
		t.onRequestDone(chid)
	}
	t.report(chid, cause, missing)
}

// own tells whether a request ended because this side wanted it to.
func own(err error) bool {
	return errors.Is(err, errHeld) || errors.As(err, new(graphsync.RequestClientCancelledErr))
}

func (t *Transport) report(chid datatransfer.ChannelID, cause error, missing int) {
	var err error
	switch {
	case errors.As(cause, new(graphsync.RequestClientCancelledErr)):
		t.log(chid, t.handler().OnRequestCancelled(chid, errors.New("graphsync request cancelled")))
		return
	case errors.As(cause, new(graphsync.RequestCancelledErr)):
		return
	case errors.As(cause, new(graphsync.RemoteIncorrectResponseError)):
		err = fmt.Errorf("%w: %w", errVerification, cause)
	case errors.Is(cause, errVerification):
		err = cause
	case cause != nil:
		err = fmt.Errorf("graphsync request failed to complete: %w", cause)
	case missing > 0:
		err = reason.DataMissing.Errorf("graphsync request failed to complete: the provider misses %d blocks", missing)
	}
	t.log(chid, t.handler().OnChannelCompleted(chid, err))
}
