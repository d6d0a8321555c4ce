// Package graphsync moves the blocks of data-transfer channels with go-graphsync. It is the only importer of it.
//
// No lock of this package is held across a call of graphsync or of the events handler: hooks run on graphsync's own
// loops and may arrive in any order (docs/protocol/datatransfer.md 5.3).
package graphsync

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/ipfs/go-graphsync"
	"github.com/ipfs/go-graphsync/donotsendfirstblocks"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/transport/graphsync/extension"
	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/port"
	"github.com/cartage-dev/cartage/shared"
)

var (
	defaultExtensions  = []graphsync.ExtensionName{extension.ExtensionDataTransfer1_1}
	incomingExtensions = []graphsync.ExtensionName{extension.ExtensionIncomingRequest1_1, extension.ExtensionDataTransfer1_1}
	blockExtensions    = []graphsync.ExtensionName{extension.ExtensionOutgoingBlock1_1, extension.ExtensionDataTransfer1_1}
)

// Option changes a default.
type Option func(*Transport)

// SupportedExtensions replaces the list of extension names.
func SupportedExtensions(names []graphsync.ExtensionName) Option {
	return func(t *Transport) { t.supported = names }
}

// RegisterCompletedRequestListener is told just before a request of ours completes.
func RegisterCompletedRequestListener(l func(channelID datatransfer.ChannelID)) Option {
	return func(t *Transport) { t.onRequestDone = l }
}

// RegisterCompletedResponseListener is told just before a response of ours completes.
func RegisterCompletedResponseListener(l func(channelID datatransfer.ChannelID)) Option {
	return func(t *Transport) { t.onResponseDone = l }
}

// OnBind is told when a channel has a request or response of this transport.
func OnBind(f func(datatransfer.ChannelID)) Option { return func(t *Transport) { t.bound = f } }

var _ port.Transport = (*Transport)(nil)

// Transport is a datatransfer.PauseableTransport. It is safe for concurrent use.
type Transport struct {
	gs             graphsync.GraphExchange
	self           peer.ID
	supported      []graphsync.ExtensionName
	onRequestDone  func(datatransfer.ChannelID)
	onResponseDone func(datatransfer.ChannelID)
	bound          func(datatransfer.ChannelID)
	events         atomic.Pointer[port.Handler]
	unregister     []graphsync.UnregisterHookFunc
	ctx            context.Context
	cancel         context.CancelFunc
	group          lifecycle.Group
	deciding       *deciding // nil: validators are asked inside graphsync's hook

	mu       sync.Mutex
	closed   bool
	channels map[datatransfer.ChannelID]*channel
	requests map[graphsync.RequestID]*channel
	backlogs map[graphsync.RequestID]*backlog
	room     chan struct{} // closed when a backlog has become shorter that somebody waits for
	stores   map[datatransfer.ChannelID]*store
	links    map[datatransfer.ChannelID]uint64
}

// channel is what graphsync knows of a channel; Transport.mu guards it.
type channel struct {
	id       datatransfer.ChannelID
	current  graphsync.RequestID
	live     bool  // current is running
	wrong    error // what was wrong with the data that came
	sending  bool
	previous []graphsync.RequestID
	away     bool // the requester paused or went away
	queued   []datatransfer.Message
	beside   []datatransfer.Message // to be said beside the next block of the response
	followed uint64                 // links, by the current response
	walked   walked                 // by the request walking
	walking  graphsync.RequestID
	refusing graphsync.RequestID // whose DAG is not walked on
	opening  bool                // a request of it is being decided on, or has not been answered yet
	last     wish                // what was asked for last while opening
	run      uint64              // grows with each wish to pause or resume: an older one gives up
	asking   bool                // the handler is being asked whether the next block may go
	holding  bool                // the sender is to stop after the block that it is at
	updating int                 // updates of its request that are taken, on the loop of graphsync that answers Unpause
	// pauses are the times that a hook made the current response pause, releases those that graphsync let it go on. A pause takes effect after the
	// hook, so that one more of the former means: it is paused, or about to be. Both only grow, in whatever order they are noted.
	pauses, releases uint64
	done             chan struct{}

	// Of a requester.
	ask      ask
	held     bool                // paused by this side: no request is to run
	stopping graphsync.RequestID // this side cancelled it and knows why
	asked    int                 // requests so far
	heard    bool                // the other side has answered the current request
	holdNext bool                // paused by this side, as soon as the other side has shown that it got the request
	shaken   bool                // messages of the other side may be lost
	position int64               // highest index of a block that came
}

// wish is what the application wants of a sender.
type wish int

const (
	noWish wish = iota
	wantsPause
	wantsResume
)

// over tells whether a sender pauses that was paused or not before the wish.
func (w wish) over(paused bool) bool { return paused && w != wantsResume || w == wantsPause }

// ask is what a requester asks for; its context bounds every request of the channel.
type ask struct {
	ctx      context.Context
	sender   peer.ID
	root     ipld.Link
	selector ipld.Node
	msg      datatransfer.Message
	skip     int64
	again    bool // skip is told even if it is 0
	retried  bool // a gap was found in what came, and asked for once more
}

// NewTransport makes a transport over a graphsync exchange.
func NewTransport(peerID peer.ID, gs graphsync.GraphExchange, options ...Option) *Transport {
	ctx, cancel := shared.Lifetime()
	t := &Transport{
		gs: gs, self: peerID, supported: defaultExtensions, ctx: ctx, cancel: cancel,
		channels: map[datatransfer.ChannelID]*channel{}, requests: map[graphsync.RequestID]*channel{}, stores: map[datatransfer.ChannelID]*store{},
		links: map[datatransfer.ChannelID]uint64{}, bound: func(datatransfer.ChannelID) {},
		backlogs: map[graphsync.RequestID]*backlog{},
	}
	for _, o := range options {
		o(t)
	}
	return t
}

// SetEventHandler registers the hooks.
func (t *Transport) SetEventHandler(events datatransfer.EventsHandler) error {
	handler := port.HandlerOf(events, t)
	if !t.events.CompareAndSwap(nil, &handler) {
		return datatransfer.ErrHandlerAlreadySet
	}
	t.registerHooks()
	return nil
}

func (t *Transport) handler() port.Handler { return *t.events.Load() }

// bind makes a request the current one of its channel; the old one is returned if it may still run. A requester tells what
// it asks for. mu is held.
func (t *Transport) bind(chid datatransfer.ChannelID, id graphsync.RequestID, a *ask) (old graphsync.RequestID, hadOld bool, err error) {
	if t.closed {
		return old, false, errShutDown
	}
	c := t.channels[chid]
	if c == nil {
		c = &channel{id: chid}
		t.channels[chid] = c
	}
	if c.current != id && c.current != (graphsync.RequestID{}) {
		old, hadOld = c.current, c.live
		c.previous = append(c.previous, old)
		if len(c.previous) > maxPrevious {
			c.previous = c.previous[1:]
		}
	}
	if hadOld {
		t.forget(old)
	}
	c.current, c.live, c.sending, c.away, c.done, c.followed = id, true, a == nil, false, make(chan struct{}), 0
	c.asking, c.holding, c.pauses, c.releases = false, false, 0, 0
	if a != nil {
		c.asked++
		c.ask, c.held, c.heard, c.holdNext, c.shaken, c.position = *a, false, false, pausedAnswer(a.msg), false, max(c.position, a.skip)
	}
	t.requests[id] = c
	return old, hadOld, nil
}

// of returns the channel whose current request is id.
func (t *Transport) of(id graphsync.RequestID) (datatransfer.ChannelID, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.requests[id]
	if c == nil {
		return datatransfer.ChannelID{}, false
	}
	return c.id, true
}

// retire forgets the running request of a channel: what still comes of it is nobody's. mu is held.
func (t *Transport) retire(c *channel) {
	t.forget(c.current)
	if rest := c.beside; len(rest) > 0 {
		c.beside = nil
		chid := c.id
		t.background(func(context.Context) {
			for _, m := range rest {
				t.undelivered(chid, m, errEnded)
			}
		})
	}
	if c.live {
		c.live = false
		close(c.done)
	}
}

// liveWith are the channels with a peer that have a running request and satisfy a condition; mu is held.
func (t *Transport) liveWith(p peer.ID, also func(*channel) bool) (out []*channel) {
	for id, c := range t.channels {
		if c.live && id.OtherParty(t.self) == p && also(c) {
			out = append(out, c)
		}
	}
	return out
}

// finish forgets a request that has ended, and tells what was wrong with its data.
func (t *Transport) finish(id graphsync.RequestID) (chid datatransfer.ChannelID, wrong error, current bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.requests[id]
	if c == nil {
		return datatransfer.ChannelID{}, nil, false
	}
	if c.current != id {
		t.forget(id)
		return c.id, nil, false
	}
	t.retire(c)
	return c.id, c.wrong, true
}

// OpenChannel implements datatransfer.Transport. ctx bounds the request.
func (t *Transport) OpenChannel(ctx context.Context, dataSender peer.ID, chid datatransfer.ChannelID, root ipld.Link, stor ipld.Node, state datatransfer.ChannelState, msg datatransfer.Message) error {
	if t.events.Load() == nil {
		return datatransfer.ErrHandlerNotSet
	}
	t.stopCurrent(ctx, chid)
	a := ask{ctx: ctx, sender: dataSender, root: root, selector: stor, msg: msg}
	if state != nil {
		a.skip, a.again = state.ReceivedCidsTotal(), true
		t.onChannel(chid, func(c *channel) { c.position = a.skip }) // it may be fewer than came: the store may have lost some
	}
	return t.request(chid, a)
}

// onChannel does something with a channel, if there is one, under the lock.
func (t *Transport) onChannel(chid datatransfer.ChannelID, do func(*channel)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.channels[chid]; c != nil {
		do(c)
	}
}

// request asks for the data of a channel.
func (t *Transport) request(chid datatransfer.ChannelID, a ask) error {
	exts, err := extension.ToExtensionData(a.msg, t.supported)
	if err != nil {
		return err
	}
	if a.again {
		exts = append(exts, graphsync.ExtensionData{
			Name: graphsync.ExtensionsDoNotSendFirstBlocks, Data: donotsendfirstblocks.EncodeDoNotSendFirstBlocks(a.skip),
		})
	}
	id := graphsync.NewRequestID()
	t.mu.Lock()
	_, _, err = t.bind(chid, id, &a)
	t.mu.Unlock()
	if err != nil {
		return err
	}
	t.bound(chid)
	if key, again := t.dedupKey(chid, a.again && reifies(a.selector)); again {
		exts = append(exts, graphsync.ExtensionData{Name: graphsync.ExtensionDeDupByKey, Data: basicnode.NewString(key)})
	}
	ctx, cancel := context.WithCancel(context.WithValue(a.ctx, graphsync.RequestIDContextKey{}, id))
	stop := context.AfterFunc(t.ctx, cancel)
	responses, errs := t.gs.Request(ctx, a.sender, a.root, a.selector, exts...)
	drain := func() {
		defer cancel()
		defer stop()
		t.drain(id, responses, errs)
	}
	if !t.group.Go(drain) { // shut down since: the request is cancelled already
		cancel()
		drain()
	}
	return nil
}

func (t *Transport) log(chid datatransfer.ChannelID, err error) {
	if err != nil {
		slog.Debug("data-transfer event refused", "channel", chid, "error", err)
	}
}
