// Package stream moves the blocks of data-transfer channels between two Cartage peers, each channel over one libp2p stream: the
// messages of data transfer as they are, and blocks in the order of the traversal, as sections of a CAR. The recipient walks the
// same selector; a block that is not the one that follows, or is not what its CID says, is neither stored nor counted
// (docs/protocol/stream.md).
//
// A sender sends until it is paused; the flow control of the stream keeps it from being faster than the store of the recipient. A
// recipient that pauses ends its stream, and asks from its position when it goes on.
//
// No lock of this package is held across a call of the events handler.
package stream

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/port"
	"github.com/cartage-dev/cartage/shared"
)

// ProtocolID is the protocol of the streams.
const ProtocolID = protocol.ID("/cartage/stream/1.0.0")

// Limits of a stream.
const (
	openLimit    = 10 * time.Second
	askLimit     = 30 * time.Second // until a question has come
	writeLimit   = 5 * time.Minute  // for one write to a recipient that takes nothing
	closeLimit   = time.Minute      // for what is still on its way after a pause
	lingerLimit  = 5 * time.Minute  // for a recipient to take the rest
	dismissLimit = time.Second      // for a last word
	maxInbound   = 1024             // streams of one peer
)

var _ port.Transport = (*Transport)(nil)

// Transport is a datatransfer.PauseableTransport. It is safe for concurrent use.
type Transport struct {
	host  host.Host
	ls    ipld.LinkSystem
	bound func(dt.ChannelID)
	// frameLimit is for a frame that has begun, and for each MiB of it.
	frameLimit time.Duration
	events     atomic.Pointer[port.Handler]
	ctx        context.Context
	cancel     context.CancelFunc
	group      lifecycle.Group
	lender     lender // of buffers to senders
	spares     spares // of recipients

	mu       sync.Mutex
	closed   bool
	channels map[dt.ChannelID]*channel
	stores   map[dt.ChannelID]ipld.LinkSystem
	links    map[dt.ChannelID]uint64
	inbound  map[peer.ID]int
}

// channel is what this transport knows of a channel; Transport.mu guards it.
type channel struct {
	id      dt.ChannelID
	run     *run // the running stream, if there is one
	sending bool
	fresh   bool // made by a question that is not accepted yet
	away    bool // the recipient paused or went away
	wishes  uint64

	// Of a sender whose first question is being decided on.
	opening int  // questions that are being decided on
	last    wish // what the application wished meanwhile
	queued  []dt.Message

	// Of a recipient.
	ask     ask
	held    bool // paused by this side: no stream is to run
	unasked bool // its last question was never sent
	has     int64
}

// wish is what an application wants of a channel whose question is being decided on.
type wish int

const (
	noWish wish = iota
	wantsPause
	wantsResume
)

// ask is what a recipient asks for; its context bounds every stream of the channel.
type ask struct {
	ctx      context.Context
	sender   peer.ID
	question question
	again    bool // the position was told
	retried  bool // a gap was found in what came, and asked for once more
}

// run is one stream of a channel.
type run struct {
	chid   dt.ChannelID
	stream network.Stream
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}
	gate   gate
}

// kill ends a stream at once.
func (r *run) kill() {
	r.cancel()
	_ = r.stream.Reset()
}

// dismiss ends a stream for good, with a last word to the other side.
func (r *run) dismiss() {
	stop := time.AfterFunc(dismissLimit, r.kill)
	context.AfterFunc(r.ctx, func() { stop.Stop() })
	if r.gate.stop != nil {
		r.gate.stop()
	} else {
		r.gate.close()
	}
}

// Option changes a transport.
type Option func(*Transport)

// OnBind is told when a channel has a stream of this transport.
func OnBind(f func(dt.ChannelID)) Option { return func(t *Transport) { t.bound = f } }

// FrameTimeout sets how long a frame that has begun may take, and each further MiB of it (one minute).
func FrameTimeout(d time.Duration) Option { return func(t *Transport) { t.frameLimit = d } }

// SendMemory bounds what senders hold of large blocks.
func SendMemory(m Memory) Option { return func(t *Transport) { t.lender.memory = m } }

// SendMemoryInUse is how many bytes senders hold of large blocks.
func (t *Transport) SendMemoryInUse() int64 { return t.lender.inUse() }

// NotSpoken implements router.Fast.
func (t *Transport) NotSpoken(err error) bool {
	return errors.Is(err, multistream.ErrNotSupported[protocol.ID]{})
}

// New makes a transport on a host. Channels without a store of their own read and write through ls.
func New(h host.Host, ls ipld.LinkSystem, options ...Option) *Transport {
	t := &Transport{host: h, ls: ls, bound: func(dt.ChannelID) {}, frameLimit: time.Minute, channels: map[dt.ChannelID]*channel{}, stores: map[dt.ChannelID]ipld.LinkSystem{},
		links: map[dt.ChannelID]uint64{}, inbound: map[peer.ID]int{}}
	t.ctx, t.cancel = shared.Lifetime()
	for _, o := range options {
		o(t)
	}
	return t
}

// SetEventHandler implements datatransfer.Transport: from now on streams are taken.
func (t *Transport) SetEventHandler(events dt.EventsHandler) error {
	handler := port.HandlerOf(events, t)
	if !t.events.CompareAndSwap(nil, &handler) {
		return dt.ErrHandlerAlreadySet
	}
	t.host.SetStreamHandler(ProtocolID, t.incoming)
	return nil
}

func (t *Transport) handler() port.Handler { return *t.events.Load() }

func (t *Transport) log(chid dt.ChannelID, err error) {
	if err != nil {
		slog.Debug("data-transfer event refused", "channel", chid, "error", err)
	}
}

// Traits implements port.Transport.
func (t *Transport) Traits() port.Traits { return port.Traits{Pauses: true, OpensPaused: true} }

// Opening tells whether a question about a channel is being decided on.
func (t *Transport) Opening(chid dt.ChannelID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.channels[chid]
	return c != nil && c.opening > 0
}

// OpenChannel implements datatransfer.Transport. ctx bounds the channel. An error means that the peer did not take a stream.
func (t *Transport) OpenChannel(ctx context.Context, sender peer.ID, chid dt.ChannelID, root ipld.Link, selector ipld.Node, state dt.ChannelState, msg dt.Message) error {
	if t.events.Load() == nil {
		return dt.ErrHandlerNotSet
	}
	l, ok := root.(cidlink.Link)
	if !ok {
		return errors.New("the root of a channel is a CID")
	}
	t.stopCurrent(ctx, chid)
	a := ask{ctx: ctx, sender: sender, question: question{root: l.Cid, selector: selector, msg: msg, held: pausedAnswer(msg)}}
	if state != nil {
		a.question.has, a.again = state.ReceivedCidsTotal(), true
	}
	return t.request(chid, a)
}

// pausedAnswer tells whether a push is accepted paused: the answer travels with the question, and nothing is to be sent yet.
func pausedAnswer(msg dt.Message) bool {
	r, ok := msg.(dt.Response)
	return ok && (r.IsNew() || r.IsRestart()) && r.IsPaused()
}

// bind makes a stream the current one of its channel; the old one is returned. mu is held.
func (t *Transport) bind(chid dt.ChannelID, s network.Stream, parent context.Context) (*run, *run, error) {
	if t.closed {
		return nil, nil, errors.New("transport is shut down")
	}
	c := t.channels[chid]
	if c == nil {
		c = &channel{id: chid}
		t.channels[chid] = c
	}
	old := c.run
	r := &run{chid: chid, stream: s, done: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancel(parent)
	r.gate.wake = make(chan struct{}, 1)
	c.run, c.away, c.held = r, false, false
	return r, old, nil
}

// finish forgets a stream that has ended, and tells whether it was the current one of its channel.
func (t *Transport) finish(r *run, how func(c *channel)) (current bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.channels[r.chid]
	if c == nil || c.run != r {
		return false
	}
	c.run = nil
	how(c)
	return true
}

// goneAway is a recipient that asks anew when it goes on.
func goneAway(c *channel) { c.away = true }

// stopCurrent ends the running stream of a channel and waits a moment for its end, so that a restart does not mix with it.
func (t *Transport) stopCurrent(ctx context.Context, chid dt.ChannelID) {
	t.mu.Lock()
	c := t.channels[chid]
	if c == nil || c.run == nil {
		t.mu.Unlock()
		return
	}
	r := c.run
	c.run = nil
	t.mu.Unlock()
	r.kill()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	select {
	case <-r.done:
	case <-ctx.Done():
	}
}

// storeOf returns the store and the bound of a channel.
func (t *Transport) storeOf(chid dt.ChannelID) (ipld.LinkSystem, uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	ls, ok := t.stores[chid]
	if !ok {
		ls = t.ls
	}
	return ls, t.links[chid]
}

// StoreOf implements port.ChannelStores.
func (t *Transport) StoreOf(chid dt.ChannelID) (ipld.LinkSystem, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	ls, ok := t.stores[chid]
	return ls, ok
}

// UseStore makes the streams of a channel read and write through lsys. Called again it keeps the first store while a stream runs
// and replaces it otherwise.
func (t *Transport) UseStore(chid dt.ChannelID, lsys ipld.LinkSystem) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, have := t.stores[chid]
	if c := t.channels[chid]; !have || c == nil || c.run == nil {
		t.stores[chid] = lsys
	}
	return nil
}

// MaxLinks bounds how many links the streams of a channel may follow on this side; 0 is no bound of the channel's own.
func (t *Transport) MaxLinks(chid dt.ChannelID, n uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.links[chid] = n
}

// CloseChannel implements datatransfer.Transport; without a stream it returns at once.
func (t *Transport) CloseChannel(_ context.Context, chid dt.ChannelID) error {
	t.mu.Lock()
	c := t.channels[chid]
	if c == nil {
		t.mu.Unlock()
		return dt.ErrChannelNotFound
	}
	r := c.run
	c.run = nil
	c.wishes++
	t.mu.Unlock()
	if r != nil {
		r.dismiss()
	}
	return nil
}

// Halt ends the stream of a channel at once and without a word, as the end of the process would.
func (t *Transport) Halt(_ context.Context, chid dt.ChannelID) error {
	t.mu.Lock()
	c := t.channels[chid]
	var r *run
	if c != nil {
		r, c.run = c.run, nil
		c.wishes++
		delete(t.channels, chid) // a question that is being decided on now is not accepted
	}
	t.mu.Unlock()
	if r != nil {
		r.kill()
	}
	return nil
}

// CleanupChannel implements datatransfer.Transport: a running stream is ended, everything is freed.
func (t *Transport) CleanupChannel(chid dt.ChannelID) {
	t.mu.Lock()
	c := t.channels[chid]
	delete(t.channels, chid)
	delete(t.stores, chid)
	delete(t.links, chid)
	var r *run
	if c != nil {
		r, c.run = c.run, nil
		c.wishes++
	}
	t.mu.Unlock()
	if r != nil {
		r.dismiss()
	}
}

// PeerAway ends the streams with a peer whose connection is gone; the recipient has to ask again.
func (t *Transport) PeerAway(p peer.ID) {
	t.mu.Lock()
	var gone []*run
	for id, c := range t.channels {
		if c.run != nil && id.OtherParty(t.host.ID()) == p {
			gone = append(gone, c.run)
			c.run, c.away, c.held = nil, c.sending, !c.sending
		}
	}
	t.mu.Unlock()
	for _, r := range gone {
		r.kill()
	}
}

// Shutdown implements datatransfer.Transport: all goroutines have ended, unless ctx ends first.
func (t *Transport) Shutdown(ctx context.Context) error {
	t.mu.Lock()
	t.closed = true
	var runs []*run
	for _, c := range t.channels {
		if c.run != nil {
			runs = append(runs, c.run)
		}
	}
	t.channels = map[dt.ChannelID]*channel{}
	t.mu.Unlock()
	t.host.RemoveStreamHandler(ProtocolID)
	t.cancel()
	for _, r := range runs {
		r.kill()
	}
	return t.group.Close(ctx)
}
