package stream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"

	"github.com/cartage-dev/cartage/carstore"
	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/port"
	"github.com/cartage-dev/cartage/internal/reason"
)

var (
	errVerification error = reason.HashMismatch.Errorf("data failed verification")
	errHeld               = errors.New("paused by the recipient")
	errGap                = errors.New("a block that should be here is missing")
	errMissing      error = reason.DataMissing.Errorf("the provider misses a block")
	errCut          error = reason.PeerUnreachable.Errorf("stream broke off")
	errIncomplete   error = reason.PeerSilent.Errorf("the sender ended before everything was sent")
)

// request opens a stream for what a recipient asks for.
func (t *Transport) request(chid dt.ChannelID, a ask) error {
	ctx, cancel := context.WithTimeout(a.ctx, openLimit)
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()
	s, err := t.host.NewStream(ctx, a.sender, ProtocolID)
	if err != nil {
		return err
	}
	t.bound(chid)
	rc := &recipient{t: t, in: t.spares.reader(uncut{s}), question: &a.question, has: a.question.has, seen: newSeen()}
	rc.blocks.r, rc.blocks.wait, rc.blocks.from = rc.in, rc.count, &t.spares
	t.mu.Lock()
	r, old, err := t.bind(chid, s, a.ctx)
	if err == nil {
		rc.r, r.gate.stop, r.gate.tell = r, rc.stop, rc.tell
		c := t.channels[chid]
		c.unasked, c.sending, c.held, c.ask, c.has = false, false, a.question.held, a, max(c.has, a.question.has)
	}
	t.mu.Unlock()
	if err != nil {
		_ = s.Reset()
		rc.free()
		return err
	}
	if old != nil {
		old.kill()
	}
	stop := context.AfterFunc(t.ctx, r.kill)
	work := func() {
		defer close(r.done)
		defer r.cancel()
		defer stop()
		defer rc.free()
		t.receive(rc, a)
	}
	if !t.group.Go(work) {
		r.kill()
		close(r.done)
		rc.free()
	}
	return nil
}

// free gives back what a recipient that has ended read with.
func (rc *recipient) free() {
	rc.blocks.giveBack()
	rc.t.spares.putReader(rc.in)
	rc.in, rc.blocks.r = nil, nil
}

// recipient is the receiving end of a stream.
type recipient struct {
	t        *Transport
	r        *run
	ls       ipld.LinkSystem
	in       *bufio.Reader
	blocks   sections
	question *question // until it is asked
	has      int64
	seen     *seen
	saving   context.Context
	gathered carstore.Gathered
	got      []port.BlockRef // taken by the store, and neither written for sure nor counted
	stopping atomic.Bool     // the sender was told to stop: what still comes is not taken
	limits   sync.Mutex      // of stopping and the time that reads have
	writing  sync.Mutex
	asked    bool // the question was written: only then may anything else be
	whole    bool // every block of the traversal is here
	how      outcome
	text     string
}

func (t *Transport) receive(rc *recipient, a ask) {
	r := rc.r
	defer context.AfterFunc(r.ctx, func() { _ = r.stream.Reset() })()
	var limit uint64
	rc.ls, limit = t.storeOf(r.chid)
	rc.saving = carstore.Gather(r.ctx, &rc.gathered)
	err := t.handler().OnChannelOpened(r.chid)
	if err != nil {
		t.log(r.chid, err)
		t.abandon(r)
		return
	}
	if !a.question.held {
		err = walk(func() error { return cut(r.ctx.Err()) }, &rc.ls, a.question.root, a.question.selector, limit, rc.visit)
		rc.whole = err == nil
		if cerr := rc.count(); err == nil {
			err = cerr
		}
		rc.blocks.giveBack()
	}
	if err == nil && !rc.needless() {
		if err = rc.ask(); err == nil {
			err = rc.rest()
		}
	}
	t.ended(r, rc, err)
}

// abandon ends a stream that the events handler does not want.
func (t *Transport) abandon(r *run) {
	r.kill()
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.channels[r.chid]; c != nil && c.run == r {
		delete(t.channels, r.chid)
	}
}

// needless tells that everything is here and that nobody has to hear of it: what is here already is never proposed, and an accepted
// push that brings nothing ends with the word of the recipient.
func (rc *recipient) needless() bool {
	if rc.question == nil {
		return false
	}
	switch m := rc.question.msg.(type) {
	case dt.Request:
		return m.IsNew()
	case dt.Response:
		return m.IsNew() && !m.IsPaused()
	}
	return false
}

// ask asks for what follows the blocks that are here, once.
func (rc *recipient) ask() error {
	q := rc.question
	if q == nil {
		return nil
	}
	rc.question = nil
	q.has = rc.has
	body, err := q.marshal()
	if err != nil {
		return err
	}
	rc.writing.Lock()
	defer rc.writing.Unlock()
	rc.asked = true
	return rc.put(frame(kindAsk, body))
}

// allow sets how long the sender may take for what is read next; none is for ever. After a stop its limit stands.
func (rc *recipient) allow(d time.Duration) {
	rc.limits.Lock()
	defer rc.limits.Unlock()
	if rc.stopping.Load() {
		return
	}
	var until time.Time
	if d > 0 {
		until = time.Now().Add(d)
	}
	_ = rc.r.stream.SetReadDeadline(until)
}

// say writes a frame after the question.
func (rc *recipient) say(data []byte) error {
	rc.writing.Lock()
	defer rc.writing.Unlock()
	if !rc.asked {
		return errNotAsked
	}
	return rc.put(data)
}

var errNotAsked = errors.New("nothing was asked for yet")

func (rc *recipient) put(data []byte) error {
	_ = rc.r.stream.SetWriteDeadline(time.Now().Add(askLimit))
	_, err := rc.r.stream.Write(data)
	return cut(err)
}

// tell sends a message to the sender, if it can be told here.
func (rc *recipient) tell(m dt.Message) bool {
	if rc.stopping.Load() {
		return false
	}
	out, err := messageFrame(m)
	return err == nil && rc.say(out) == nil
}

// cut marks an error of the stream itself: it says nothing about what came over it.
func cut(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errCut, err)
}

// uncut reads a stream that has to go on: its end is an error too.
type uncut struct{ io.Reader }

// Read implements io.Reader.
func (u uncut) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	return n, cut(err)
}

// stop tells the sender to send no more; what is on its way is thrown away.
func (rc *recipient) stop() {
	rc.limits.Lock()
	again := rc.stopping.Swap(true)
	if !again {
		_ = rc.r.stream.SetReadDeadline(time.Now().Add(closeLimit))
	}
	rc.limits.Unlock()
	if again {
		return
	}
	rc.t.group.Go(func() { // who pauses does not wait for the other side
		rc.writing.Lock()
		defer rc.writing.Unlock()
		if rc.asked {
			_ = rc.put(frame(kindStop, nil))
			_ = rc.r.stream.CloseWrite()
		}
	})
}

// pause stops the sender if that is what an error says.
func (rc *recipient) pause(resumes uint64, err error) error {
	switch {
	case !errors.Is(err, dt.ErrPause):
		return err
	case rc.t.holdUnless(rc.r, resumes):
		return errHeld
	}
	return nil
}

// moved notes how far the blocks of a channel have come.
func (t *Transport) moved(r *run, index int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.channels[r.chid]; c != nil && c.run == r {
		c.has = max(c.has, index)
	}
}

// next reads frames until the section of a block is there.
func (rc *recipient) next(want cid.Cid) ([]byte, error) {
	if rc.stopping.Load() {
		return nil, errHeld
	}
	if err := rc.ask(); err != nil {
		return nil, err
	}
	for rc.blocks.left == 0 || rc.stopping.Load() {
		if rc.stopping.Load() {
			return nil, errHeld
		}
		rc.blocks.giveBack()
		if err := rc.frame(); err != nil {
			return nil, err
		}
	}
	return rc.blocks.next(want)
}

// ended tells the handler how a stream ended.
func (t *Transport) ended(r *run, rc *recipient, err error) {
	if errors.Is(err, errHeld) {
		err = nil
		if rc.asked {
			err = rc.rest()
		}
	}
	_ = r.stream.Close()
	held := rc.stopping.Load() || rc.how == stopped && !rc.whole // a sender whose channel is over says that it stops, with everything here too
	again := errors.Is(err, errGap) || errors.Is(err, errEnded) && rc.how == ended
	if err != nil || held {
		_ = r.stream.Reset()
	}
	lost := errors.Is(err, errCut)
	if !t.finish(r, func(c *channel) { c.away, c.held, c.unasked = false, c.held || held || lost, !rc.asked }) {
		return
	}
	switch {
	case held:
		return
	case again && t.askAgain(r.chid):
		return
	case lost:
		t.log(r.chid, t.handler().OnReceiveDataError(r.chid, err))
		return
	}
	t.log(r.chid, t.handler().OnChannelCompleted(r.chid, rc.cause(err)))
}

// cause says why a transfer failed.
func (rc *recipient) cause(err error) error {
	switch {
	case err == nil && rc.how == ended:
		return nil
	case unwalkable(err):
		return reason.From(err).Errorf("%w: %w", errVerification, err)
	case rc.how == missing:
		return fmt.Errorf("stream failed to complete: %w: %s", errMissing, rc.text)
	case rc.how == refused:
		return fmt.Errorf("stream failed to complete: the sender said: %s", rc.text)
	case errors.Is(err, errEnded):
		return fmt.Errorf("stream failed to complete: %w", errIncomplete)
	case errors.Is(err, errWrongBlock):
		return fmt.Errorf("%w: %w", errVerification, err)
	case err != nil:
		return fmt.Errorf("stream failed to complete: %w", err)
	}
	return nil
}
