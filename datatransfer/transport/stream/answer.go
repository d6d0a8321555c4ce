package stream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/transport/asked"
	"github.com/cartage-dev/cartage/internal/port"
)

// incoming serves a stream that a recipient opened.
func (t *Transport) incoming(s network.Stream) {
	p := s.Conn().RemotePeer()
	served := t.enter(p) && t.group.Go(func() {
		defer t.leave(p)
		stop := context.AfterFunc(t.ctx, func() { _ = s.Reset() })
		defer stop()
		t.answer(p, s)
	})
	if !served {
		_ = s.Reset()
	}
}

func (t *Transport) enter(p peer.ID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.inbound[p] >= maxInbound {
		return false
	}
	t.inbound[p]++
	return true
}

func (t *Transport) leave(p peer.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.inbound[p]--; t.inbound[p] == 0 {
		delete(t.inbound, p)
	}
}

func (t *Transport) answer(p peer.ID, s network.Stream) {
	in := bufio.NewReader(s)
	q, err := readQuestion(s, in)
	if err != nil {
		_ = s.Reset()
		return
	}
	chid := asked.Channel(t.host.ID(), p, q.msg)
	c, known, err := t.begin(chid)
	if err != nil {
		_ = s.Reset()
		return
	}
	f := asked.For{Root: q.root, Selector: q.selector, Has: q.has, Message: q.msg, Sending: known}
	resp, err := asked.Decide(t.handler(), chid, f)
	paused := errors.Is(err, dt.ErrPause)
	if errors.Is(err, dt.ErrResume) || paused {
		err = nil
	}
	out := &output{s: s}
	if resp != nil {
		out.message(resp)
	}
	if err != nil {
		t.log(chid, err)
		t.refuse(c)
		out.end(refused, "the question was refused")
		out.close(in)
		return
	}
	t.handler().OnDataAsked(chid)
	may, say := t.handler().MaySend(chid, q.has+1, 0)
	b, err := t.accept(c, s, may == port.ReleaseAsTold && (paused || asked.Silent(t.handler(), chid, q.msg)))
	if err != nil {
		_ = s.Reset()
		return
	}
	b.queued = append(say, b.queued...)
	defer close(b.run.done)
	defer b.run.cancel()
	for _, m := range b.queued {
		out.message(m)
	}
	if q.held {
		t.finish(b.run, goneAway)
		out.end(stopped, "")
		out.close(in)
		return
	}
	t.send(b.run, q, in, out)
}

func readQuestion(s network.Stream, in *bufio.Reader) (*question, error) {
	_ = s.SetReadDeadline(time.Now().Add(askLimit))
	k, size, err := readHeader(in)
	if err != nil {
		return nil, err
	}
	if k != kindAsk {
		return nil, fmt.Errorf("the first frame is of kind %d", k)
	}
	body, err := readBody(in, size)
	if err != nil {
		return nil, err
	}
	q := &question{}
	if err := q.unmarshal(body); err != nil {
		return nil, err
	}
	return q, s.SetReadDeadline(time.Time{})
}

// begin notes that a question is being decided on, so that what the application wishes meanwhile meets it. A channel on which this
// side receives has no questions. known tells whether a question about it was accepted before.
func (t *Transport) begin(chid dt.ChannelID) (c *channel, known bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c = t.channels[chid]
	if c == nil {
		c = &channel{id: chid, sending: true, fresh: true}
		t.channels[chid] = c
	}
	if !c.sending {
		return nil, false, errors.New("this side receives on the channel")
	}
	if c.opening++; c.opening == 1 {
		c.last = noWish
	}
	return c, !c.fresh, nil
}

// refuse ends a question that was not accepted, and forgets a channel that it made. What the application wished meanwhile goes to
// the stream that runs.
func (t *Transport) refuse(c *channel) {
	t.mu.Lock()
	queued, last, r := c.queued, c.last, c.run
	c.queued = nil
	if c.opening--; c.opening == 0 && c.fresh && c.run == nil && t.channels[c.id] == c {
		delete(t.channels, c.id)
	}
	t.mu.Unlock()
	if r != nil && last == wantsResume {
		r.gate.resume(nil)
	}
	for _, m := range queued {
		if r == nil || !r.gate.say(m) {
			t.undelivered(c.id, m, errAway)
		}
	}
}

// begun is what came of a question that was accepted.
type begun struct {
	run    *run
	queued []dt.Message
}

// accept makes a stream the current one of its channel, in one step with taking what was wished for while it was decided on: a resume
// that comes from now on finds the pause that it ends. A channel that was cleaned up meanwhile is not taken up again.
func (t *Transport) accept(c *channel, s network.Stream, paused bool) (b begun, err error) {
	ctx := t.handler().OnContextAugment(c.id)(t.ctx)
	t.bound(c.id) // before a resume may look for it
	t.mu.Lock()
	if t.channels[c.id] != c {
		t.mu.Unlock()
		return b, dt.ErrChannelNotFound
	}
	b.queued, c.queued = c.queued, nil
	paused = paused && c.last != wantsResume || c.last == wantsPause
	c.opening--
	c.fresh, c.last = false, noWish
	r, old, err := t.bind(c.id, s, ctx)
	if err == nil {
		r.gate.paused = paused
	}
	t.mu.Unlock()
	if err != nil {
		return b, err
	}
	if old != nil {
		old.kill()
		select { // one walk at a time
		case <-old.done:
		case <-time.After(dismissLimit):
		}
	}
	b.run = r
	return b, nil
}
