package stream

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	dt "github.com/cartage-dev/cartage/datatransfer"
)

// gate is where a sender waits: whether it is paused, what it has to say first, and how it is woken. Both ends count resumes in it.
type gate struct {
	stop func()                // of a recipient: tells the sender to stop
	tell func(dt.Message) bool // of a recipient: sends it a message

	mu      sync.Mutex
	paused  bool
	resumes uint64 // grows with each resume
	out     []dt.Message
	over    atomic.Bool // nothing is said any more
	wake    chan struct{}
}

func (g *gate) ring() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// resume ends a pause; a message is said before the next block. It reports whether the sender still listens.
func (g *gate) resume(msg dt.Message) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over.Load() || len(g.out) >= maxQueued {
		return false
	}
	g.paused = false
	g.resumes++
	if msg != nil {
		g.out = append(g.out, msg)
	}
	g.ring()
	return true
}

const maxQueued = 64

func (g *gate) pause() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paused = true
}

// pauseUnless pauses if there was no resume since the count was read: one that came meanwhile ended this pause.
func (g *gate) pauseUnless(since uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.resumes == since {
		g.paused = true
	}
}

// resumed counts a resume of a recipient.
func (g *gate) resumed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.resumes++
}

func (g *gate) count() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.resumes
}

// take returns what is to be said, and whether the sender is paused.
func (g *gate) take() (out []dt.Message, paused bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	out, g.out = g.out, nil
	return out, g.paused
}

// close lets a sender end at its next block.
func (g *gate) close() {
	g.over.Store(true)
	g.ring()
}

// end closes the gate and returns what was not said.
func (g *gate) end() []dt.Message {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over.Store(true)
	out := g.out
	g.out = nil
	return out
}

// PauseChannel implements datatransfer.PauseableTransport. A sender stops after the block that it is at; a recipient ends its stream
// and asks from its position when it resumes.
func (t *Transport) PauseChannel(_ context.Context, chid dt.ChannelID) error {
	t.mu.Lock()
	c := t.channels[chid]
	if c == nil {
		t.mu.Unlock()
		return dt.ErrChannelNotFound
	}
	if !c.sending {
		t.mu.Unlock()
		t.hold(chid)
		return nil
	}
	if c.opening > 0 {
		c.last = wantsPause
	}
	c.wishes++
	r := c.run
	t.mu.Unlock()
	if r != nil {
		r.gate.pause()
	}
	return nil
}

// SendControl implements port.Transport: the message goes on the stream of the channel.
func (t *Transport) SendControl(chid dt.ChannelID, m dt.Message) bool {
	t.mu.Lock()
	c := t.channels[chid]
	var r *run
	if c != nil && !c.sending {
		r = c.run
	}
	t.mu.Unlock()
	return r != nil && r.gate.tell(m)
}

// holdUnless is hold, unless there was a resume since the count was read: one that came meanwhile ended this pause.
func (t *Transport) holdUnless(r *run, since uint64) (held bool) {
	if r.gate.count() != since {
		return false
	}
	t.hold(r.chid)
	return true
}

// hold ends the stream of a recipient until it is resumed.
func (t *Transport) hold(chid dt.ChannelID) {
	t.mu.Lock()
	c := t.channels[chid]
	if c == nil || c.sending {
		t.mu.Unlock()
		return
	}
	c.wishes++
	c.held = true
	r := c.run
	t.mu.Unlock()
	if r != nil && r.gate.stop != nil {
		r.gate.stop()
	}
}

var (
	errOtherWish = errors.New("another wish came since")
	errNotHeld   = errors.New("the channel is not paused by this side")
	// errAway means that the recipient is not there at the moment: its next question decides anew whether data flows.
	errAway = errors.New("the recipient is away")
)

// ResumeChannel implements datatransfer.PauseableTransport. msg travels with the resumption; an error means that it has to go
// another way.
func (t *Transport) ResumeChannel(_ context.Context, msg dt.Message, chid dt.ChannelID) error {
	t.mu.Lock()
	c := t.channels[chid]
	if c == nil {
		t.mu.Unlock()
		return dt.ErrChannelNotFound
	}
	if c.opening > 0 {
		defer t.mu.Unlock()
		if msg != nil && len(c.queued) < maxQueued {
			c.queued = append(c.queued, msg)
		}
		c.last = wantsResume
		return nil
	}
	if !c.sending {
		if c.run != nil {
			c.run.gate.resumed()
		}
		return t.resumeRecipient(c, msg)
	}
	c.wishes++
	r := c.run
	t.mu.Unlock()
	if r == nil || !r.gate.resume(msg) {
		return errAway
	}
	return nil
}

// resumeRecipient asks for the rest. It is called with mu held, and unlocks it.
func (t *Transport) resumeRecipient(c *channel, msg dt.Message) error {
	if msg == nil || !c.held {
		t.mu.Unlock()
		return errNotHeld
	}
	c.held = false
	c.wishes++
	chid, wish, r := c.id, c.wishes, c.run
	t.mu.Unlock()
	t.group.Go(func() {
		if r != nil {
			select {
			case <-r.done:
			case <-time.After(closeLimit): // the sender does not end what it was told to end
				r.kill()
				<-r.done
			case <-t.ctx.Done():
				return
			}
		}
		t.undelivered(chid, msg, t.askRest(chid, wish, msg))
	})
	return nil
}

// askRest asks for what follows the position of a recipient.
func (t *Transport) askRest(chid dt.ChannelID, wish uint64, msg dt.Message) error {
	t.mu.Lock()
	c := t.channels[chid]
	if c == nil || c.wishes != wish {
		t.mu.Unlock()
		return errOtherWish
	}
	a := c.ask
	if c.unasked { // the sender has not heard of the channel: what opens it goes first
		t.mu.Unlock()
		if err := t.request(chid, a); err != nil {
			return err
		}
		return errNotAsked
	}
	a.question.msg, a.question.has, a.question.held, a.again, a.retried = msg, c.has, false, true, false
	t.mu.Unlock()
	return t.request(chid, a)
}

// askAgain asks once more for everything that is not here, if blocks are missing after a question that skipped some: sender and
// recipient may count differently.
func (t *Transport) askAgain(chid dt.ChannelID) bool {
	t.mu.Lock()
	c := t.channels[chid]
	if c == nil || !c.ask.again || c.ask.retried {
		t.mu.Unlock()
		return false
	}
	a := c.ask
	a.question.has, a.retried = 0, true
	c.has = 0
	t.mu.Unlock()
	return t.request(chid, a) == nil
}

// undelivered hands a message back that did not leave with a resumption.
func (t *Transport) undelivered(chid dt.ChannelID, msg dt.Message, err error) {
	if err == nil {
		return
	}
	t.log(chid, err)
	if msg != nil {
		t.handler().Undelivered(chid, msg)
	}
}
