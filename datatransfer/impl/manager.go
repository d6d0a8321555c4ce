// Package impl is the data-transfer manager: it opens, validates, meters, restarts and ends channels over any transport.
package impl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/channelmonitor"
	"github.com/cartage-dev/cartage/datatransfer/channels"
	"github.com/cartage-dev/cartage/datatransfer/encoding"
	"github.com/cartage-dev/cartage/datatransfer/network"
	"github.com/cartage-dev/cartage/datatransfer/registry"
	"github.com/cartage-dev/cartage/datatransfer/tracing"
	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/port"
	"github.com/cartage-dev/cartage/shared"
)

// DataTransferOption changes a default.
type DataTransferOption func(*Manager)

// ChannelRestartConfig makes the manager restart channels that it initiated when they break.
func ChannelRestartConfig(cfg channelmonitor.Config) DataTransferOption {
	return func(m *Manager) { m.monitorConfig = &cfg }
}

// completionDelay is how long after its last data, and so after its acceptance, the end of a channel is told. They travel on streams of
// their own, and a peer that hears of the end first is left waiting for the rest (interop.md).
const completionDelay = 50 * time.Millisecond

// CompletionDelay sets the time between the last data of a pull and the message that it is complete, by peer: none is needed
// for one that takes them in any order.
func CompletionDelay(f func(to peer.ID) time.Duration) DataTransferOption {
	return func(m *Manager) { m.delay = f }
}

// Manager implements datatransfer.Manager.
type Manager struct {
	ds        datastore.Batching
	net       network.DataTransferNetwork
	transport port.Transport
	given     dt.Transport // transport as the caller made it, for configurers
	peerID    peer.ID
	ids       *shared.TimeCounter
	ready     *shared.ReadyManager
	spans     *tracing.SpansIndex

	validated, revalidators, results, configurers *registry.Registry

	limits        Limits
	delay         func(peer.ID) time.Duration
	keep          func(dt.ChannelID) error // before a channel is stored as one whose data is here; nil: nothing
	idle          lifecycle.Group
	monitorConfig *channelmonitor.Config
	monitor       *channelmonitor.Monitor
	channels      *channels.Set
	outbox        *outbox

	each  atomic.Int32 // listeners who are told of each block
	subMu sync.Mutex
	subs  atomic.Pointer[[]*dt.Subscriber] // replaced, never changed

	againMu sync.Mutex
	again   map[dt.ChannelID]served

	comingMu sync.Mutex
	coming   map[peer.ID]int       // channels whose validators are being asked, if there are limits
	early    map[dt.ChannelID]bool // cancelled before they were there

	started  atomic.Bool
	ctx      context.Context
	cancel   context.CancelFunc
	stopOnce sync.Once
	stopped  chan struct{} // closed when Stop has done everything
	stopErr  error
}

var (
	_ port.Manager = (*Manager)(nil)
	_ port.Handler = (*Manager)(nil)
)

// NewDataTransfer makes a manager. ds is namespaced by the caller.
func NewDataTransfer(ds datastore.Batching, net network.DataTransferNetwork, transport dt.Transport, options ...DataTransferOption) (dt.Manager, error) {
	m := &Manager{
		ds: ds, net: net, transport: port.TransportOf(transport), given: transport, peerID: net.ID(), ids: shared.NewTimeCounter(0),
		ready: shared.NewReadyManager(), spans: tracing.NewSpansIndex(),
		validated: registry.NewRegistry(), revalidators: registry.NewRegistry(), results: registry.NewRegistry(), configurers: registry.NewRegistry(),
		again: map[dt.ChannelID]served{}, coming: map[peer.ID]int{}, early: map[dt.ChannelID]bool{}, delay: func(peer.ID) time.Duration { return completionDelay },
		stopped: make(chan struct{}),
	}
	for _, o := range options {
		o(m)
	}
	if m.monitorConfig != nil {
		if err := m.monitorConfig.Check(); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Start implements datatransfer.Manager. The lifetime of the manager ends with Stop, not with ctx.
func (m *Manager) Start(ctx context.Context) error {
	m.ctx, m.cancel = context.WithCancel(context.WithoutCancel(ctx))
	set, err := channels.New(m.ctx, m.ds, m.voucherDecoder, m.results.Decoder, m.publish, m.onCleanup)
	if err != nil {
		return err
	}
	set.Coarse(func() bool { return m.each.Load() == 0 })
	m.channels = set
	m.outbox = newOutbox(m.ctx, m.net, m.sendFailed, m.durable)
	m.monitor = channelmonitor.NewMonitor(m, m.monitorConfig)
	m.started.Store(true)
	go func() {
		err := set.Start(m.ctx)
		if err == nil {
			err = m.ctx.Err() // stopped meanwhile
		}
		if err == nil {
			err = m.transport.SetEventHandler(m)
		}
		if err == nil {
			m.net.SetDelegate(receiver{m})
		}
		if err == nil && m.limits.IdleTimeout > 0 {
			m.idle.Go(func() { m.watchIdle(m.ctx) })
		}
		m.ready.FireReady(err)
	}()
	return nil
}

// OnReady implements datatransfer.Manager.
func (m *Manager) OnReady(f dt.ReadyFunc) { m.ready.OnReady(shared.ReadyFunc(f)) }

// Stop implements datatransfer.Manager. What the application is doing in a validator or a subscriber is waited for until ctx ends; stopping goes on without
// a caller then, and Stop may be called again to wait for its end.
func (m *Manager) Stop(ctx context.Context) error {
	m.stopOnce.Do(func() {
		if !m.started.Load() {
			close(m.stopped)
			return
		}
		if m.ready.Ready() != nil {
			m.cancel() // a store that is not open yet need not be opened
		}
		go m.shutDown(context.WithoutCancel(ctx))
	})
	select {
	case <-m.stopped:
		return m.stopErr
	case <-ctx.Done():
		return ctx.Err()
	}
}

// shutDown ends everything, in order.
func (m *Manager) shutDown(ctx context.Context) {
	defer close(m.stopped)
	_ = m.ready.AwaitReady(ctx)
	m.net.SetDelegate(nil)
	m.monitor.Shutdown()
	err := m.transport.Shutdown(ctx)
	m.cancel()
	m.stopErr = errors.Join(err, m.idle.Close(ctx), m.outbox.wait(ctx), m.channels.Close(ctx))
	m.spans.EndAll()
}

// awaitReady lets what is asked of a manager that has been started wait for its store. Before the start it is refused.
func (m *Manager) awaitReady(ctx context.Context) error {
	if !m.started.Load() {
		return shared.ErrNotReady
	}
	return m.ready.AwaitReady(ctx)
}

// PeerID is the id of this node.
func (m *Manager) PeerID() peer.ID { return m.peerID }

// ConnectTo connects to a peer; the monitor calls it before a restart.
func (m *Manager) ConnectTo(ctx context.Context, p peer.ID) error { return m.net.ConnectTo(ctx, p) }

func (m *Manager) voucherDecoder(t dt.TypeIdentifier) (encoding.Decoder, bool) {
	if d, ok := m.validated.Decoder(t); ok {
		return d, true
	}
	return m.revalidators.Decoder(t)
}

func register(what string, r *registry.Registry, v dt.Registerable, p any) error {
	if err := r.Register(v, p); err != nil {
		return fmt.Errorf("error registering %s: %w", what, err)
	}
	return nil
}

// RegisterVoucherType implements datatransfer.Manager.
func (m *Manager) RegisterVoucherType(v dt.Voucher, validator dt.RequestValidator) error {
	return register("voucher type", m.validated, v, validator)
}

// Validator returns who validates a type of voucher, or nil.
func (m *Manager) Validator(v dt.Voucher) dt.RequestValidator {
	p, _ := m.validated.Processor(v.Type())
	out, _ := p.(dt.RequestValidator)
	return out
}

// RegisterRevalidator implements datatransfer.Manager.
func (m *Manager) RegisterRevalidator(v dt.Voucher, r dt.Revalidator) error {
	return register("revalidator type", m.revalidators, v, r)
}

// RegisterVoucherResultType implements datatransfer.Manager.
func (m *Manager) RegisterVoucherResultType(r dt.VoucherResult) error {
	return register("voucher type", m.results, r, nil)
}

// RegisterTransportConfigurer implements datatransfer.Manager.
func (m *Manager) RegisterTransportConfigurer(v dt.Voucher, c dt.TransportConfigurer) error {
	return register("transport configurer", m.configurers, v, c)
}

func (m *Manager) configure(chid dt.ChannelID, v dt.Voucher) {
	if v == nil {
		return
	}
	if p, ok := m.configurers.Processor(v.Type()); ok {
		p.(dt.TransportConfigurer)(chid, v, m.given)
	}
}

// SubscribeToEvents implements datatransfer.Manager.
func (m *Manager) SubscribeToEvents(s dt.Subscriber) dt.Unsubscribe {
	m.each.Add(1)
	end := m.SubscribeToProgress(s)
	once := sync.OnceFunc(func() { m.each.Add(-1) })
	return func() {
		once()
		end()
	}
}

// SubscribeToProgress is SubscribeToEvents for listeners who need to know how far a channel is and not each block: while there are no
// others, blocks in a row are told of together, with the state after the last of them. It costs nothing for each block.
func (m *Manager) SubscribeToProgress(s dt.Subscriber) dt.Unsubscribe {
	mine := &s
	m.changeSubscribers(func(all []*dt.Subscriber) []*dt.Subscriber { return append(all, mine) })
	return func() {
		m.changeSubscribers(func(all []*dt.Subscriber) []*dt.Subscriber {
			return slices.DeleteFunc(all, func(o *dt.Subscriber) bool { return o == mine })
		})
	}
}

func (m *Manager) changeSubscribers(f func([]*dt.Subscriber) []*dt.Subscriber) {
	m.subMu.Lock()
	defer m.subMu.Unlock()
	var all []*dt.Subscriber
	if old := m.subs.Load(); old != nil {
		all = slices.Clone(*old)
	}
	all = f(all)
	m.subs.Store(&all)
}

// publish tells subscribers, with no lock held.
func (m *Manager) publish(e dt.Event, s dt.ChannelState) {
	m.monitor.Observe(e, s)
	if all := m.subs.Load(); all != nil {
		for _, sub := range *all {
			tell(*sub, e, s)
		}
	}
}

// tell calls a subscriber; a panic of it ends nothing.
func tell(sub dt.Subscriber, e dt.Event, s dt.ChannelState) {
	defer func() {
		if p := recover(); p != nil {
			slog.Error("data-transfer subscriber panicked", "channel", s.ChannelID(), "panic", p)
		}
	}()
	sub(e, s)
}

// onCleanup frees what belongs to a channel that ends.
func (m *Manager) onCleanup(c *channels.Channel) {
	m.transport.CleanupChannel(c.ID())
	m.spans.EndChannelSpan(c.ID())
	m.net.Unprotect(c.ID().OtherParty(m.peerID), c.ID().String())
}

// durable waits until what happened on a live channel is stored; one that has ended is.
func (m *Manager) durable(ctx context.Context, chid dt.ChannelID) error {
	if c := m.channels.Resident(chid); c != nil {
		return c.Stored(ctx)
	}
	return nil
}

func (m *Manager) sendFailed(chid dt.ChannelID, err error) {
	if c := m.channels.Resident(chid); c != nil {
		_ = c.Apply(dt.Disconnected, err.Error())
	}
}

// TransferChannelStatus implements datatransfer.Manager.
func (m *Manager) TransferChannelStatus(ctx context.Context, x dt.ChannelID) dt.Status {
	s, err := m.ChannelState(ctx, x)
	if err != nil {
		return dt.ChannelNotFoundError
	}
	return s.Status()
}

// ChannelState implements datatransfer.Manager.
func (m *Manager) ChannelState(ctx context.Context, chid dt.ChannelID) (dt.ChannelState, error) {
	c, err := m.get(ctx, chid)
	if err != nil {
		return nil, err
	}
	return c.State(), nil
}

// InProgressChannels implements datatransfer.Manager.
func (m *Manager) InProgressChannels(ctx context.Context) (map[dt.ChannelID]dt.ChannelState, error) {
	if err := m.awaitReady(ctx); err != nil {
		return nil, err
	}
	return m.channels.All(ctx)
}

func (m *Manager) get(ctx context.Context, chid dt.ChannelID) (*channels.Channel, error) {
	if err := m.awaitReady(ctx); err != nil {
		return nil, err
	}
	return m.channels.Get(ctx, chid)
}

// Reposition sets what a recipient really has, as found by reading its store, before a restart: a count that
// was not stored in time is neither lost nor asked for again.
func (m *Manager) Reposition(ctx context.Context, chid dt.ChannelID, received uint64, position int64) error {
	c, err := m.get(ctx, chid)
	if err != nil {
		return err
	}
	c.Do(func(r *channels.Record, _ *channels.Credit) {
		if uint64(position) < r.ReceivedTotal {
			r.LostBlocks()
		}
		r.Received, r.ReceivedTotal = received, uint64(position)
	})
	return nil
}

// Silent tells whether this side, as the sender of a channel, sends nothing at present: it paused, or waits for the recipient's
// payment. A transport asks it whenever a recipient asks for data with a message that does not open or restart the channel.
func (m *Manager) Silent(chid dt.ChannelID) bool {
	c, err := m.live(chid)
	if err != nil {
		return true
	}
	held, limited := false, false
	c.Do(func(_ *channels.Record, cr *channels.Credit) {
		held, limited = cr.Held || cr.Awaiting || cr.Paused && !cr.Limited, cr.Limited
	})
	switch c.State().Status() {
	case dt.BothPaused:
		return true
	case dt.ResponderPaused:
		return chid.Initiator != m.peerID && (held || !limited)
	case dt.InitiatorPaused:
		return chid.Initiator == m.peerID
	}
	return held && chid.Initiator != m.peerID
}

// Undelivered takes a message that a transport could not carry after all.
func (m *Manager) Undelivered(chid dt.ChannelID, msg dt.Message) bool {
	m.outbox.send(chid, chid.OtherParty(m.peerID), msg, time.Minute)
	return true
}
