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

	"github.com/cartage-dev/cartage/carstore"
	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/message"
	"github.com/cartage-dev/cartage/internal/port"
	"github.com/cartage-dev/cartage/internal/reason"
)

// sender is the sending end of a stream.
type sender struct {
	t    *Transport
	r    *run
	ls   ipld.LinkSystem
	out  *output
	has  int64
	seen *seen
	sent []port.BlockRef // written and not told yet

	buf     []byte // of the block that is being read and written, lent to the store
	pooled  *lent
	loan    int64 // what the last block took: the next one is expected to take as much
	cleared bool  // the handler has let the next block out
	bySize  bool  // if it fits
	at      int64
	reading context.Context
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
	sd := &sender{t: t, r: r, ls: ls, out: out, has: q.has, seen: newSeen(), loan: lentBuffer}
	sd.reading = carstore.Lend(r.ctx, &sd.buf)
	defer sd.giveBack()
	listening := make(chan struct{})
	go func() { // ends with the stream
		defer close(listening)
		sd.listen(in)
	}()
	err := sd.pass(q.has+1, 0) // a stream that is paused from the start reads nothing
	if err == nil {
		err = walk(sd.alive, &ls, q.root, q.selector, limit, sd.visit)
	}
	if err == nil {
		err = sd.pass(sd.at+1, 0) // a pause at the last block
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
	case <-time.After(lingerLimit):
	case <-r.ctx.Done():
	}
	_ = r.stream.Reset() // ends the listener; what was to be read was read, or never is
	<-listening
}

// overWithAnswer is over when everything was sent: what the handler says to that goes before the end of the stream.
func (sd *sender) overWithAnswer() {
	chid := sd.r.chid
	if sd.t.finish(sd.r, func(c *channel) { c.away = false }) {
		m, err := sd.t.handler().OnAllSent(chid)
		sd.t.log(chid, err)
		if m != nil {
			if sd.out.message(m); sd.out.err != nil {
				sd.t.undelivered(chid, m, sd.out.err)
			}
		}
	}
	sd.out.end(ended, "")
	if sd.out.err != nil {
		_ = sd.r.stream.Reset()
	}
	_ = sd.r.stream.CloseWrite()
}

// over says how it ended, to the recipient and to the handler.
func (sd *sender) over(err error, left []dt.Message) {
	lost := new(missingBlock)
	if err == nil && len(left) == 0 && sd.r.chid.Initiator != sd.t.host.ID() {
		sd.overWithAnswer()
		return
	}
	switch {
	case err == nil:
		sd.out.end(ended, "")
	case errors.Is(err, errStopped):
		sd.out.end(stopped, "")
	case errors.As(err, &lost):
		sd.out.end(missing, lost.cid.String())
	case unwalkable(err): // what came before it leaves first, so that the recipient sees for itself
		if sd.flush() == nil {
			sd.out.end(refused, reason.From(err).Error())
		}
	case sd.out.err == nil && sd.r.ctx.Err() == nil:
		sd.out.end(refused, "the sender failed")
	}
	if sd.out.err != nil {
		_ = sd.r.stream.Reset()
	}
	_ = sd.r.stream.CloseWrite()
	quiet := errors.Is(err, errStopped) || sd.out.err != nil
	current := sd.t.finish(sd.r, func(c *channel) { c.away = quiet })
	for _, m := range left {
		sd.t.undelivered(sd.r.chid, m, errAway)
	}
	if !current {
		return
	}
	h, chid := sd.t.handler(), sd.r.chid
	switch {
	case quiet && (sd.out.err == nil || errors.Is(sd.out.err, network.ErrReset) && chid.Initiator != sd.t.host.ID()):
	case quiet: // an initiator restarts
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
			sd.r.gate.close()
			return
		}
		switch k {
		case kindStop:
			sd.r.gate.close()
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
	if msg.TransferID() != chid.ID {
		return errForeign
	}
	var resp dt.Response
	switch m := msg.(type) {
	case dt.Request:
		if m.IsNew() || m.IsRestart() || chid.Initiator == sd.t.host.ID() {
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
	sd.r.gate.ring()
	switch {
	case err == nil || errors.Is(err, dt.ErrResume):
		return nil
	case !errors.Is(err, dt.ErrPause):
		return err
	}
	if r, ok := msg.(dt.Request); ok && r.IsVoucher() {
		h.HoldForPayment(sd.r.ctx, chid)
	}
	return nil
}

// say queues a message without ending a pause, unless nothing is said any more.
func (g *gate) say(msg dt.Message) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over.Load() || len(g.out) >= maxQueued {
		return false
	}
	g.out = append(g.out, msg)
	g.ring()
	return true
}

// alive tells whether the walk is to go on.
func (sd *sender) alive() error {
	switch {
	case sd.r.ctx.Err() != nil:
		sd.out.fail(network.ErrReset)
		return network.ErrReset
	case sd.r.gate.over.Load():
		return errStopped
	}
	return nil
}

// visit sends the next block of the traversal, unless the recipient has it.
func (sd *sender) visit(c cid.Cid, index int64, leaf bool) ([]byte, error) {
	if data, ok := carstore.Inlined(c); ok {
		return data, nil
	}
	if again := sd.seen.add(c); again || index <= sd.has {
		if err := carstore.CheckLinks(uint64(index), sd.seen.n); err != nil {
			return nil, err
		}
		if !again && sd.t.handler().ClaimCounts(sd.r.chid, index) {
			return sd.claimed(c, index)
		}
		if leaf {
			return nil, nil
		}
		return sd.load(c)
	}
	data, err := sd.loadReleased(c, index)
	if err != nil {
		return nil, err
	}
	resumes := sd.r.gate.count()
	msg, err := sd.t.handler().OnDataQueued(sd.r.chid, cidlink.Link{Cid: c}, uint64(len(data)), index, true)
	pause := errors.Is(err, dt.ErrPause)
	if err != nil && !pause {
		return nil, err
	}
	if data, err = sd.block(c, data, index); err != nil {
		return nil, err
	}
	if msg != nil {
		if err := sd.flush(); err != nil {
			return nil, err
		}
		sd.out.message(msg)
	}
	sd.at, sd.cleared = index, true
	if pause && sd.askRelease(0) == port.ReleaseAsTold {
		sd.r.gate.pauseUnless(resumes)
	}
	return data, sd.out.err
}

// load reads a block, in memory that is counted for its peer and for all. It expects one of the size of the last; one of more than a MiB that was
// not expected is read again when its memory is there.
func (sd *sender) load(c cid.Cid) ([]byte, error) {
	data, err := sd.read(c, sd.loan)
	if err != nil {
		return nil, err
	}
	if need := loanFor(len(data)); need == largeLoan && sd.loan != need {
		if data, err = sd.read(c, need); err != nil {
			return nil, err
		}
	}
	sd.loan = loanFor(len(data))
	if sd.pooled != nil && len(data) < large { // a buffer is not held for so little
		data = bytes.Clone(data)
		sd.giveBack()
	}
	return data, nil
}

// read reads a block when so much memory is there for it.
func (sd *sender) read(c cid.Cid, loan int64) ([]byte, error) {
	sd.giveBack()
	if loan > 0 {
		if sd.pooled = sd.t.lender.take(sd.r.ctx, sd.peer(), loan); sd.pooled != nil {
			sd.buf = sd.pooled.buf
		}
	}
	data, err := load(sd.reading, &sd.ls, c)
	if err != nil {
		return nil, &missingBlock{c, err}
	}
	if len(data) > MaxBlock {
		return nil, carstore.TooLarge(c, uint64(len(data)))
	}
	return data, nil
}

// peer is who the blocks are for.
func (sd *sender) peer() peer.ID { return sd.r.stream.Conn().RemotePeer() }

// giveBack returns the buffer of the last block, which has left and was walked.
func (sd *sender) giveBack() {
	if sd.pooled != nil {
		sd.t.lender.put(sd.pooled)
		sd.pooled, sd.buf = nil, nil
	}
}

// large is the size from which a block is written from where it is, and not copied into a frame with others.
const large = 32 << 10

// gather is how many bytes of small blocks wait for each other: with the last of them they are what a deal holds that is not read.
const gather = 32 << 10

// block hands a block to the recipient, and returns its bytes, which may have been read again.
func (sd *sender) block(c cid.Cid, data []byte, index int64) ([]byte, error) {
	sd.sent = append(sd.sent, port.BlockRef{Cid: c, Size: uint64(len(data)), Index: index})
	if len(data) < large {
		sd.out.add(c, data)
		if len(sd.out.buf) < gather {
			return data, sd.out.err
		}
		return data, sd.flush()
	}
	sd.out.flush()
	sd.out.head(c, len(data))
	data, err := sd.body(c, data)
	if err != nil {
		return nil, err
	}
	return data, sd.flush()
}

// body writes the bytes of a block. While its recipient is slow, a step of them is all that is held: the block is given back and read again
// when the step has left.
func (sd *sender) body(c cid.Cid, data []byte) ([]byte, error) {
	for at := 0; at < len(data) && sd.out.err == nil; {
		n, slow := sd.out.try(data[at:])
		if at += n; !slow {
			continue
		}
		next := bytes.Clone(data[at:min(at+step, len(data))])
		sd.buf, data = nil, nil
		sd.giveBack()
		sd.out.write(next)
		at += len(next)
		var err error
		if data, err = sd.load(c); err != nil {
			sd.out.fail(err)
			return nil, err
		}
	}
	return data, sd.out.err
}

// flush writes what was gathered, and tells the handler what has left.
func (sd *sender) flush() error {
	sd.out.flush()
	if sd.out.err != nil {
		return sd.out.err
	}
	if len(sd.sent) == 0 {
		return nil
	}
	sd.t.log(sd.r.chid, sd.t.handler().OnBlocksSent(sd.r.chid, sd.sent))
	sd.sent = sd.sent[:0]
	return nil
}
