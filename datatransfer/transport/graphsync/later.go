package graphsync

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync/atomic"

	"github.com/ipfs/go-graphsync"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/transport/asked"
	"github.com/cartage-dev/cartage/datatransfer/transport/graphsync/extension"
)

// How many requests may wait for a validator, in all and of one peer: what is over is refused.
const (
	maxDeciding        = 4096
	maxDecidingForPeer = 1024
)

// AsyncValidation makes the transport ask validators of pulls on goroutines of their own, and not on the one loop that serves the
// requests of all peers: a validator may then take its time, and several are asked at once, though never two about the same
// channel. Meanwhile the request is paused. store serves the channels for which nobody calls UseStore; graphsync has it as its own,
// but does not tell.
func AsyncValidation(store ipld.LinkSystem) Option {
	return func(t *Transport) {
		t.deciding = &deciding{store: store, byChannel: map[datatransfer.ChannelID][]*undecided{}, byRequest: map[graphsync.RequestID]*undecided{}}
	}
}

// deciding are the requests whose validators have not answered; Transport.mu guards the maps.
type deciding struct {
	store     ipld.LinkSystem
	byChannel map[datatransfer.ChannelID][]*undecided // in order of arrival; the first is being decided on
	byRequest map[graphsync.RequestID]*undecided
}

type undecided struct {
	chid    datatransfer.ChannelID
	from    peer.ID
	request graphsync.RequestData
	msg     datatransfer.Message
	store   *lateStore
	gone    bool // its requester has left; Transport.mu guards it
}

// decideLater takes a request whose validator has to be asked, and what else comes for its channel meanwhile; other requests are left alone.
// It runs on graphsync's response loop.
func (t *Transport) decideLater(p peer.ID, request graphsync.RequestData, msg datatransfer.Message, ha graphsync.IncomingRequestHookActions) bool {
	if t.deciding == nil {
		return false
	}
	m, ok := msg.(datatransfer.Request)
	u := &undecided{chid: asked.Channel(t.self, p, msg), from: p, request: request, msg: msg, store: &lateStore{reifiers: map[string]linking.NodeReifier{}}}
	asks := ok && (m.IsNew() || m.IsRestart())
	if !asks && !t.isDeciding(u.chid) {
		return false
	}
	if asks {
		if err := asked.Check(t.handler(), u.chid, t.asks(u.chid, request, msg), m); err != nil {
			ha.TerminateWithError(err)
			return true
		}
	}
	name := "data-transfer-undecided-" + request.ID().String()
	if err := t.gs.RegisterPersistenceOption(name, u.store.linkSystem()); err != nil {
		ha.TerminateWithError(err)
		return true
	}
	ha.UsePersistenceOption(name)
	_ = t.gs.UnregisterPersistenceOption(name) // the response has it now
	if err := t.enqueue(u); err != nil {
		ha.TerminateWithError(err)
		return true
	}
	ha.PauseResponse()
	ha.ValidateRequest()
	return true
}

// isDeciding tells whether a request of a channel is being decided on.
func (t *Transport) isDeciding(chid datatransfer.ChannelID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.deciding.byChannel[chid]) > 0
}

// enqueue lets the channel of a request decide on it when it is its turn.
func (t *Transport) enqueue(u *undecided) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.deciding
	if len(d.byRequest) >= maxDeciding {
		return fmt.Errorf("%d requests are being decided on, the limit is %d: try again later", len(d.byRequest), maxDeciding)
	}
	ofPeer := 0
	for _, o := range d.byRequest {
		if o.from == u.from {
			ofPeer++
		}
	}
	if ofPeer >= maxDecidingForPeer {
		return fmt.Errorf("%d requests of peer %s are being decided on, the limit is %d: try again later", ofPeer, u.from, maxDecidingForPeer)
	}
	if t.closed {
		return errShutDown
	}
	first := len(d.byChannel[u.chid]) == 0
	d.byChannel[u.chid] = append(d.byChannel[u.chid], u)
	d.byRequest[u.request.ID()] = u
	if first && !t.group.Go(func() { t.decideAll(u.chid) }) {
		delete(d.byChannel, u.chid)
		delete(d.byRequest, u.request.ID())
		return errShutDown
	}
	return nil
}

// decideAll decides on the requests of a channel one after the other.
func (t *Transport) decideAll(chid datatransfer.ChannelID) {
	for {
		t.mu.Lock()
		waiting := t.deciding.byChannel[chid]
		if len(waiting) == 0 {
			delete(t.deciding.byChannel, chid)
			t.mu.Unlock()
			return
		}
		u := waiting[0]
		skip := u.gone || t.closed
		t.mu.Unlock()
		if !skip {
			t.settle(u)
		}
		t.mu.Lock()
		t.deciding.byChannel[chid] = t.deciding.byChannel[chid][1:]
		delete(t.deciding.byRequest, u.request.ID())
		t.mu.Unlock()
	}
}

// settle asks the handler and tells graphsync what came of it.
func (t *Transport) settle(u *undecided) {
	c, b, resp, err := t.decide(u.chid, u.request, u.msg)
	if errors.Is(err, errShutDown) {
		return // nothing is refused: the requester asks again
	}
	paused := errors.Is(err, datatransfer.ErrPause)
	exts, xerr := answers(resp, nil, t.supported)
	if xerr != nil {
		paused, err = false, xerr
	}
	if err != nil && !paused {
		t.giveBack(c)
		t.refuse(u, resp, exts, err)
		t.revert(u.chid, b)
		return
	}
	if b.hadOld {
		t.background(func(ctx context.Context) { t.log(u.chid, t.cancelRequest(ctx, b.old)) })
	}
	u.store.use(t.linkSystem(u.chid))
	if t.leftMeanwhile(u) {
		t.giveBack(c)
		return
	}
	paused, say := t.startsPaused(u.chid, u.request, u.msg, paused)
	t.endAsking(u.chid, u.request.ID(), true) // it pauses until it was decided on, which graphsync may only be about to note
	if more, err := answers(nil, say, t.supported); err == nil {
		exts = append(exts, more...)
	}
	if err := t.start(c, u.request.ID(), exts, paused); err != nil {
		if errors.As(err, new(graphsync.RequestNotFoundErr)) { // its end has not been told yet
			t.requesterCancelled(u.from, u.request)
		}
		t.log(u.chid, err)
		t.giveBack(c)
	}
}

// revert gives what the application wished for while a request was decided on, which was refused, to the request that runs.
func (t *Transport) revert(chid datatransfer.ChannelID, b begun) {
	for _, m := range b.queued {
		t.undelivered(chid, m, errAway)
	}
	ctx := t.ctx
	switch b.last {
	case wantsResume:
		t.log(chid, t.ResumeChannel(ctx, nil, chid))
	case wantsPause:
		t.log(chid, t.PauseChannel(ctx, chid))
	}
}

// start sends the answer to a request, and then what the application wished for since: the other side has to hear the answer first.
func (t *Transport) start(c *channel, id graphsync.RequestID, exts []graphsync.ExtensionData, paused bool) error {
	for first := true; ; first = false {
		queued, last := t.takeWishes(c, func(queued int, last wish) bool { return !first && queued == 0 && last == noWish })
		if !first && len(queued) == 0 && last == noWish {
			return nil
		}
		more, err := answers(nil, queued, t.supported)
		if err == nil {
			err = t.move(c, id, append(exts, more...), queued, first, first && paused, last)
		}
		if err != nil {
			for _, m := range queued {
				t.undelivered(c.id, m, err)
			}
			return err
		}
		exts = nil
	}
}

// move does one step of start: the answer lets a response go on unless it is accepted paused; later only wishes change that.
func (t *Transport) move(c *channel, id graphsync.RequestID, exts []graphsync.ExtensionData, queued []datatransfer.Message, first, paused bool, last wish) error {
	if first {
		queued = nil // what leaves with the answer is the answer's
	}
	switch {
	case first && !last.over(paused), !first && last == wantsResume:
		t.mu.Lock()
		run := c.run
		c.holding = false
		t.mu.Unlock()
		return t.unpause(c.id, id, run, exts, queued, func(err error) { t.log(c.id, err) })
	}
	leaves := len(exts) == 0
	t.onChannel(c.id, func(c *channel) {
		leaves = leaves || !first && !c.isPaused() && c.keepBeside(id, queued)
	})
	if !leaves {
		if err := t.gs.SendUpdate(t.ctx, id, exts...); err != nil {
			return err
		}
	}
	if !first && last == wantsPause {
		t.mu.Lock()
		c.holding = true
		t.mu.Unlock()
	}
	return nil
}

// giveBack hands the messages back that wait for a request that is not there any more.
func (t *Transport) giveBack(c *channel) {
	queued, _ := t.takeWishes(c, decided)
	for _, m := range queued {
		t.undelivered(c.id, m, errAway)
	}
}

// answers are the extensions of a response to a request and of what was said since it was decided on.
func answers(resp datatransfer.Message, queued []datatransfer.Message, supported []graphsync.ExtensionName) (exts []graphsync.ExtensionData, err error) {
	if resp != nil {
		if exts, err = extension.ToExtensionData(resp, incomingExtensions); err != nil {
			return nil, err
		}
	}
	for _, m := range queued {
		if more, err := extension.ToExtensionData(m, supported); err == nil {
			exts = append(exts, more[0])
		}
	}
	return exts, nil
}

// refuse ends a request that was not accepted. A message that says so ends the channel of the requester, who is then told that this side
// has cancelled the request; without one the request fails, because to a requester a cancel says nothing.
func (t *Transport) refuse(u *undecided, resp datatransfer.Message, exts []graphsync.ExtensionData, cause error) {
	t.log(u.chid, cause)
	ctx, id := t.ctx, u.request.ID()
	if r, ok := resp.(datatransfer.Response); ok && !r.Accepted() && len(exts) > 0 {
		t.log(u.chid, t.gs.SendUpdate(ctx, id, exts...))
		t.log(u.chid, t.cancelRequest(ctx, id))
		return
	}
	u.store.use(failing(cause))
	t.log(u.chid, t.gs.Unpause(ctx, id, exts...))
}

// leftMeanwhile tells whether the requester of an accepted request has gone: its channel waits for the next one.
func (t *Transport) leftMeanwhile(u *undecided) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.requests[u.request.ID()]
	if u.gone && c != nil {
		c.away = true
		t.retire(c)
	}
	return u.gone || c == nil
}

// undecidedGone takes an undecided request for gone; mu is held. One whose connection is lost is left alone: it may have come over the
// next one, and if it did not, another request takes its place.
func (t *Transport) undecidedGone(id graphsync.RequestID) {
	if t.deciding == nil {
		return
	}
	if u := t.deciding.byRequest[id]; u != nil {
		u.gone = true
	}
}

// linkSystem is what a channel is served from.
func (t *Transport) linkSystem(chid datatransfer.ChannelID) ipld.LinkSystem {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.stores[chid]; s != nil {
		return s.lsys
	}
	return t.deciding.store
}

// lateStore is the link system of a response from before it is known what it is served from.
type lateStore struct {
	is       atomic.Pointer[ipld.LinkSystem]
	reifiers map[string]linking.NodeReifier // filled before the response reads
}

func (s *lateStore) use(ls ipld.LinkSystem) {
	for name, r := range ls.KnownReifiers {
		s.reifiers[name] = r
	}
	s.is.Store(&ls)
}

var errUndecided = errors.New("the request has not been decided on")

func (s *lateStore) linkSystem() ipld.LinkSystem {
	ls := cidlink.DefaultLinkSystem()
	decoder, hasher := ls.DecoderChooser, ls.HasherChooser
	ls.KnownReifiers = s.reifiers
	ls.StorageReadOpener = func(ctx linking.LinkContext, l datamodel.Link) (io.Reader, error) {
		is := s.is.Load()
		if is == nil {
			return nil, errUndecided
		}
		return is.StorageReadOpener(ctx, l)
	}
	ls.DecoderChooser = func(l datamodel.Link) (codec.Decoder, error) {
		if is := s.is.Load(); is != nil && is.DecoderChooser != nil {
			return is.DecoderChooser(l)
		}
		return decoder(l)
	}
	ls.HasherChooser = func(p datamodel.LinkPrototype) (hash.Hash, error) {
		if is := s.is.Load(); is != nil && is.HasherChooser != nil {
			return is.HasherChooser(p)
		}
		return hasher(p)
	}
	ls.NodeReifier = func(ctx linking.LinkContext, n datamodel.Node, through *linking.LinkSystem) (datamodel.Node, error) {
		if is := s.is.Load(); is != nil && is.NodeReifier != nil {
			return is.NodeReifier(ctx, n, through)
		}
		return n, nil
	}
	return ls
}

func failing(cause error) ipld.LinkSystem {
	ls := cidlink.DefaultLinkSystem()
	ls.StorageReadOpener = func(linking.LinkContext, datamodel.Link) (io.Reader, error) { return nil, cause }
	return ls
}
