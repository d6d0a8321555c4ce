package stream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-varint"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/message"
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

// sender is the sending end of a stream.
type sender struct {
	t    *Transport
	r    *run
	ls   ipld.LinkSystem
	out  *output
	has  int64
	seen seen
	sent []block // written and not told yet
}

type block struct {
	cid   cid.Cid
	size  uint64
	index int64
}

var errStopped = errors.New("the recipient wants no more")

type missingBlock struct {
	cid cid.Cid
	err error
}

func (m *missingBlock) Error() string {
	return fmt.Sprintf("block %s is not here: %s", m.cid, m.err)
}

func (t *Transport) send(r *run, q *question, in *bufio.Reader, out *output) {
	defer context.AfterFunc(r.ctx, func() { _ = r.stream.Reset() })()
	ls, limit := t.storeOf(r.chid)
	sd := &sender{t: t, r: r, ls: ls, out: out, has: q.has, seen: seen{}}
	listening := make(chan struct{})
	go func() { // ends with the stream
		defer close(listening)
		sd.listen(in)
	}()
	err := walk(&ls, q.root, q.selector, limit, sd.visit)
	if err == nil {
		err = sd.pass() // a pause at the last block
	}
	if err == nil {
		err = sd.flush()
	}
	left := r.gate.end()
	if err == nil {
		err = out.err
	}
	sd.over(err, left)
	select {
	case <-listening:
	case <-time.After(closeLimit):
	case <-r.ctx.Done():
	}
	_ = r.stream.Reset() // ends the listener; what was to be read was read, or never is
	<-listening
}

// over says how it ended, to the recipient and to the handler.
func (sd *sender) over(err error, left []dt.Message) {
	lost := new(missingBlock)
	switch {
	case err == nil:
		sd.out.end(ended, "")
	case errors.Is(err, errStopped):
		sd.out.end(stopped, "")
	case errors.As(err, &lost):
		sd.out.end(missing, lost.cid.String())
	case sd.out.err == nil && sd.r.ctx.Err() == nil:
		sd.out.end(refused, err.Error())
	}
	_ = sd.r.stream.CloseWrite()
	quiet := errors.Is(err, errStopped) || sd.out.err != nil
	current := sd.t.finish(sd.r, quiet)
	for _, m := range left {
		sd.t.undelivered(sd.r.chid, m, errAway)
	}
	if !current {
		return
	}
	h, chid := sd.t.handler(), sd.r.chid
	switch {
	case quiet && (sd.out.err == nil || errors.Is(sd.out.err, network.ErrReset)):
	case quiet:
		sd.t.log(chid, h.OnSendDataError(chid, sd.out.err))
	case err != nil:
		sd.t.log(chid, h.OnChannelCompleted(chid, fmt.Errorf("stream to %s did not complete: %w", sd.r.stream.Conn().RemotePeer(), err)))
	default:
		sd.t.log(chid, h.OnChannelCompleted(chid, nil))
	}
}

// listen takes what the recipient says while it is served.
func (sd *sender) listen(in *bufio.Reader) {
	for {
		k, size, err := readHeader(in)
		if err != nil {
			if !errors.Is(err, io.EOF) { // what is no frame, or the end of the stream
				sd.r.kill()
			}
			return
		}
		switch k {
		case kindStop:
			sd.r.gate.mu.Lock()
			sd.r.gate.over = true
			sd.r.gate.ring()
			sd.r.gate.mu.Unlock()
			return
		case kindMessage:
			body, err := readBody(in, size)
			if err == nil {
				err = sd.message(body)
			}
			if err == nil {
				continue
			}
		}
		sd.r.kill() // nothing else comes from a recipient
		return
	}
}

// message lets the handler take a message of the recipient.
func (sd *sender) message(body []byte) error {
	msg, err := message.FromNet(bytes.NewReader(body))
	if err != nil {
		return err
	}
	chid, h := sd.r.chid, sd.t.handler()
	var resp dt.Response
	switch m := msg.(type) {
	case dt.Request:
		if chid.Initiator == sd.t.host.ID() {
			return errors.New("received request on response channel")
		}
		resp, err = h.OnRequestReceived(chid, m)
	case dt.Response:
		if chid.Initiator != sd.t.host.ID() {
			return errors.New("received response on request channel")
		}
		err = h.OnResponseReceived(chid, m)
	}
	if resp != nil && !sd.r.gate.say(resp) {
		sd.t.undelivered(chid, resp, errAway)
	}
	switch {
	case err == nil || errors.Is(err, dt.ErrResume):
		return nil
	case !errors.Is(err, dt.ErrPause):
		return err
	}
	if r, ok := msg.(dt.Request); ok && r.IsVoucher() {
		if p, ok := h.(interface {
			HoldForPayment(context.Context, dt.ChannelID)
		}); ok {
			p.HoldForPayment(sd.r.ctx, chid)
		}
	}
	return nil
}

// say queues a message without ending a pause, unless nothing is said any more.
func (g *gate) say(msg dt.Message) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over || len(g.out) >= maxQueued {
		return false
	}
	g.out = append(g.out, msg)
	g.ring()
	return true
}

// pass says what is to be said, and waits while the channel is paused.
func (sd *sender) pass() error {
	g := &sd.r.gate
	for {
		out, paused := g.take()
		for _, m := range out {
			if err := sd.flush(); err != nil {
				return err
			}
			sd.out.message(m)
		}
		g.mu.Lock()
		over := g.over
		g.mu.Unlock()
		switch {
		case over:
			return errStopped
		case sd.r.ctx.Err() != nil:
			sd.out.fail(network.ErrReset)
			return network.ErrReset
		case !paused:
			return sd.out.err
		}
		if err := sd.flush(); err != nil {
			return err
		}
		select {
		case <-g.wake:
		case <-sd.r.ctx.Done():
		}
	}
}

// visit sends the next block of the traversal, unless the recipient has it.
func (sd *sender) visit(c cid.Cid, index int64, leaf bool) ([]byte, error) {
	if data, ok := inlined(c); ok {
		return data, nil
	}
	if again := sd.seen.add(c); again || index <= sd.has {
		if leaf {
			return nil, nil
		}
		return sd.load(c)
	}
	if err := sd.pass(); err != nil {
		return nil, err
	}
	data, err := sd.load(c)
	if err != nil {
		return nil, err
	}
	resumes := sd.r.gate.count()
	msg, err := sd.t.handler().OnDataQueued(sd.r.chid, cidlink.Link{Cid: c}, uint64(len(data)), index, true)
	pause := errors.Is(err, dt.ErrPause)
	if err != nil && !pause {
		return nil, err
	}
	if err := sd.block(c, data, index); err != nil {
		return nil, err
	}
	if msg != nil {
		if err := sd.flush(); err != nil {
			return nil, err
		}
		sd.out.message(msg)
	}
	if pause {
		sd.r.gate.pauseUnless(resumes)
	}
	return data, sd.out.err
}

func (sd *sender) load(c cid.Cid) ([]byte, error) {
	data, err := load(&sd.ls, c)
	if err != nil {
		return nil, &missingBlock{c, err}
	}
	if len(data) > MaxBlock {
		return nil, fmt.Errorf("block %s of more than %d bytes", c, MaxBlock)
	}
	return data, nil
}

// large is the size from which a block is written from where it is, and not copied into a frame with others.
const large = 32 << 10

func (sd *sender) block(c cid.Cid, data []byte, index int64) error {
	sd.sent = append(sd.sent, block{c, uint64(len(data)), index})
	if len(data) < large {
		sd.out.add(c, data)
		if len(sd.out.buf) < runSize {
			return sd.out.err
		}
		return sd.flush()
	}
	sd.out.flush()
	sd.out.single(c, data)
	return sd.flush()
}

// flush writes what was gathered, and tells the handler what has left.
func (sd *sender) flush() error {
	sd.out.flush()
	if sd.out.err != nil {
		return sd.out.err
	}
	for _, b := range sd.sent {
		sd.t.log(sd.r.chid, sd.t.handler().OnDataSent(sd.r.chid, cidlink.Link{Cid: b.cid}, b.size, b.index, true))
	}
	sd.sent = sd.sent[:0]
	return nil
}

// output writes frames; the first error stays.
type output struct {
	s   network.Stream
	buf []byte // a frame of small blocks, with room for its head
	err error
}

func (o *output) fail(err error) {
	if o.err == nil {
		o.err = err
	}
}

func (o *output) write(data []byte) {
	if o.err != nil {
		return
	}
	_ = o.s.SetWriteDeadline(time.Now().Add(writeLimit))
	if _, err := o.s.Write(data); err != nil {
		o.fail(err)
	}
}

func section(buf []byte, c cid.Cid, size int) []byte {
	key := c.KeyString()
	return append(append(buf, varint.ToUvarint(uint64(len(key)+size))...), key...)
}

func (o *output) add(c cid.Cid, data []byte) {
	if len(o.buf) == 0 {
		if o.buf == nil {
			o.buf = make([]byte, 0, runSize+large+maxCid+headerSize+varint.MaxLenUvarint63)
		}
		o.buf = o.buf[:headerSize]
	}
	o.buf = append(section(o.buf, c, len(data)), data...)
}

func (o *output) flush() {
	if len(o.buf) == 0 {
		return
	}
	h := header(kindBlocks, len(o.buf)-headerSize)
	copy(o.buf, h[:])
	o.write(o.buf)
	o.buf = o.buf[:0]
}

// single writes a frame of one block without copying it.
func (o *output) single(c cid.Cid, data []byte) {
	head := section(make([]byte, headerSize, headerSize+maxCid+varint.MaxLenUvarint63), c, len(data))
	h := header(kindBlocks, len(head)-headerSize+len(data))
	copy(head, h[:])
	o.write(head)
	o.write(data)
}

func (o *output) message(m dt.Message) {
	out, err := messageFrame(m)
	if err != nil {
		o.fail(err)
		return
	}
	o.write(out)
}

func (o *output) end(how outcome, text string) { o.write(endFrame(how, text)) }

// close ends a stream on which nothing was sent, when the recipient has taken what was said.
func (o *output) close(in *bufio.Reader) {
	_ = o.s.CloseWrite()
	_ = o.s.SetReadDeadline(time.Now().Add(askLimit))
	for o.err == nil {
		k, size, err := readHeader(in)
		if err != nil {
			break
		}
		if _, err := in.Discard(size); err != nil || k == kindStop {
			break
		}
	}
	_ = o.s.Reset()
}
