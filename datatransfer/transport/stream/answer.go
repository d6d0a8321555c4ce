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
	t.begin(chid)
	f := asked.For{Root: q.root, Selector: q.selector, Has: q.has, Message: q.msg, Sending: t.sends(chid)}
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
		t.refuse(chid)
		out.end(refused, err.Error())
		out.close(in)
		return
	}
	asked.Tell(t.handler(), chid)
	b, err := t.accept(chid, s, paused || asked.Silent(t.handler(), chid, q.msg))
	if err != nil {
		_ = s.Reset()
		return
	}
	defer close(b.run.done)
	defer b.run.cancel()
	for _, m := range b.queued {
		out.message(m)
	}
	if q.held {
		t.finish(b.run, true)
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

func (t *Transport) sends(chid dt.ChannelID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.channels[chid]
	return c != nil && c.sending
}

// begin notes that a question is being decided on, so that a resume by the application meets it; refuse forgets a channel that was
// not accepted.
func (t *Transport) begin(chid dt.ChannelID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.channels[chid]
	if c == nil {
		c = &channel{id: chid}
		t.channels[chid] = c
	}
	c.opening, c.resume = true, false
}

func (t *Transport) refuse(chid dt.ChannelID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.channels[chid]
	if c == nil {
		return
	}
	c.queued, c.opening, c.resume = nil, false, false
	if c.run == nil && !c.away {
		delete(t.channels, chid)
	}
}

// begun is what came of a question that was accepted.
type begun struct {
	run    *run
	queued []dt.Message
}

// accept makes a stream the current one of its channel, in one step with taking what was asked for while it was decided on: a
// resume that comes from now on finds the pause that it ends.
func (t *Transport) accept(chid dt.ChannelID, s network.Stream, paused bool) (b begun, err error) {
	ctx := t.handler().OnContextAugment(chid)(t.ctx)
	t.bound(chid) // before a resume may look for it
	t.mu.Lock()
	if c := t.channels[chid]; c != nil {
		b.queued, paused = c.queued, paused && !c.resume
		c.queued, c.opening, c.resume = nil, false, false
	}
	r, old, err := t.bind(chid, s, ctx)
	if err == nil {
		t.channels[chid].sending = true
		r.gate.paused = paused
	}
	t.mu.Unlock()
	if err != nil {
		return b, err
	}
	if old != nil {
		old.kill()
	}
	b.run = r
	return b, nil
}
