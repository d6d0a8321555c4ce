package impl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/channels"
	"github.com/cartage-dev/cartage/datatransfer/encoding"
	"github.com/cartage-dev/cartage/datatransfer/message"
	"github.com/cartage-dev/cartage/shared"
)

// ChannelDataTransferType is the part that this manager has in a channel, which decides how it is restarted.
type ChannelDataTransferType int

const (
	// ManagerPeerCreatePull is a pull that this manager opened.
	ManagerPeerCreatePull ChannelDataTransferType = iota
	// ManagerPeerCreatePush is a push that this manager opened.
	ManagerPeerCreatePush
	// ManagerPeerReceivePull is a pull that the other side opened.
	ManagerPeerReceivePull
	// ManagerPeerReceivePush is a push that the other side opened.
	ManagerPeerReceivePush
)

func channelDataTransferType(s dt.ChannelState) ChannelDataTransferType {
	switch mine := s.ChannelID().Initiator == s.SelfPeer(); {
	case mine && s.IsPull():
		return ManagerPeerCreatePull
	case mine:
		return ManagerPeerCreatePush
	case s.IsPull():
		return ManagerPeerReceivePull
	}
	return ManagerPeerReceivePush
}

// RestartDataTransferChannel implements datatransfer.Manager (section 4.10).
func (m *Manager) RestartDataTransferChannel(ctx context.Context, chid dt.ChannelID) (err error) {
	c, err := m.get(ctx, chid)
	if err != nil {
		return err
	}
	s := c.State()
	if !channels.IsChannelTerminated(s.Status()) {
		var end func(error)
		ctx, end = m.spans.Child(ctx, chid, "restartChannel")
		defer func() { end(err) }()
	}
	switch {
	case channels.IsChannelTerminated(s.Status()):
		return nil
	case channels.IsChannelCleaningUp(s.Status()):
		return ignoreOver(c, c.Apply(dt.CompleteCleanupOnRestart)) // looking it up has started what was left of the cleanup
	}
	r := restarting{m, c, s}
	switch t := channelDataTransferType(s); t {
	case ManagerPeerReceivePull, ManagerPeerReceivePush:
		return r.ask(ctx)
	default:
		return r.repeat(ctx, t)
	}
}

// restarting is a channel that goes on.
type restarting struct {
	m *Manager
	c *channels.Channel
	s dt.ChannelState
}

// repeat makes the first request of a channel that this manager opened once more, as a restart.
func (r restarting) repeat(ctx context.Context, t ChannelDataTransferType) error {
	m, c, s, chid := r.m, r.c, r.s, r.c.ID()
	v := s.Voucher()
	if v == nil {
		return fmt.Errorf("restart channel %s: its voucher does not decode", chid)
	}
	req, err := message.NewRequest(chid.ID, true, s.IsPull(), v.Type(), v, s.BaseCID(), s.Selector())
	if err != nil {
		return err
	}
	m.configure(chid, v)
	m.net.Protect(chid.Responder, chid.String())
	m.monitor.Add(chid)
	m.monitor.Asked(chid)
	if t == ManagerPeerCreatePull && !finished(s.Status()) {
		if err := m.transport.OpenChannel(m.ctx, chid.Responder, chid, cidlink.Link{Cid: s.BaseCID()}, s.Selector(), s, req); err != nil {
			return fmt.Errorf("Unable to send open channel restart request: %w", err)
		}
		return nil
	}
	c.Do(func(_ *channels.Record, cr *channels.Credit) { cr.Unasked = t == ManagerPeerCreatePush })
	if err := m.net.SendMessage(ctx, chid.Responder, req); err != nil {
		_ = c.Apply(dt.Disconnected, err.Error())
		return fmt.Errorf("Unable to send restart request: %w", err)
	}
	return nil
}

// finished tells that all data is here: a transport would find nothing to ask for, and the responder would hear nothing. The
// restart of such a pull goes over the network, and asks for the end alone.
func finished(s dt.Status) bool {
	return s == dt.TransferFinished || s == dt.ResponderFinalizingTransferFinished
}

// ask lets the initiator restart a channel of which this node is the responder.
func (r restarting) ask(ctx context.Context) error {
	m, s, chid := r.m, r.s, r.c.ID()
	v := s.Voucher()
	if v == nil {
		return fmt.Errorf("restart channel %s: its voucher does not decode", chid)
	}
	p, _ := m.validated.Processor(v.Type())
	val, ok := p.(dt.RequestValidator)
	if !ok || val == nil {
		return fmt.Errorf("no validator for voucher type %s", v.Type())
	}
	f := val.ValidatePush
	if s.IsPull() {
		f = val.ValidatePull
	}
	_, _, err := guarded(func() (bool, dt.VoucherResult, error) {
		r, err := f(true, chid, chid.Initiator, v, s.BaseCID(), s.Selector())
		return true, r, err
	})
	if !accepted(err) {
		return fmt.Errorf("failed to restart channel, validation error: %w", err)
	}
	m.net.Protect(chid.Initiator, chid.String())
	if err := m.net.SendMessage(ctx, chid.Initiator, message.RestartExistingChannelRequest(chid)); err != nil {
		return fmt.Errorf("unable to send restart request: %w", err)
	}
	return nil
}

// ReceiveRestartExistingChannelRequest implements network.Receiver.
func (r receiver) ReceiveRestartExistingChannelRequest(ctx context.Context, sender peer.ID, req dt.Request) {
	m := r.m
	chid, err := req.RestartChannelId()
	if err != nil || chid.Initiator != m.peerID || chid.Responder != sender {
		return
	}
	c, err := m.live(chid)
	if err != nil || over(c) {
		return
	}
	if m.monitor.Restart(chid) {
		return
	}
	if asked := m.askedToRestart(c); asked < time.Second {
		return
	}
	if before := m.beforeRestart(); before != nil {
		if err := before(m.ctx, chid); err != nil {
			slog.Debug("no restart for the other side", "channel", chid, "error", err)
			return
		}
	}
	if err := m.RestartDataTransferChannel(m.ctx, chid); err != nil {
		slog.Debug("restart asked for by the other side failed", "channel", chid, "error", err)
	}
}

// beforeRestart prepares, or refuses, the restart of a channel of this node.
func (m *Manager) beforeRestart() func(context.Context, dt.ChannelID) error {
	if m.monitorConfig == nil {
		return nil
	}
	return m.monitorConfig.BeforeRestart
}

// askedToRestart is how long ago the other side asked last.
func (m *Manager) askedToRestart(c *channels.Channel) (ago time.Duration) {
	now := time.Now()
	c.Do(func(_ *channels.Record, cr *channels.Credit) { ago, cr.NextRestart = now.Sub(cr.NextRestart), now })
	return ago
}

// receiveRestart continues a channel, at the position that both sides know and never past what is paid.
func (m *Manager) receiveRestart(chid dt.ChannelID, req dt.Request) (dt.Response, error) {
	c, err := m.live(chid)
	if err != nil {
		return m.reject(chid, true, nil, err)
	}
	s := c.State()
	if err := (restarting{m, c, s}).check(req); err != nil {
		return m.reject(chid, true, nil, err)
	}
	if s.Status() == dt.Completed || s.Status() == dt.Completing {
		return m.sayCompleted(s)
	}
	if channels.IsChannelTerminated(s.Status()) || channels.IsChannelCleaningUp(s.Status()) {
		return m.reject(chid, true, nil, errors.New("channel is already terminated"))
	}
	if m.channels.Resident(chid) == nil {
		return m.reject(chid, true, nil, errors.New("channel is not live"))
	}
	if err := errors.Join(m.pace(c), m.boundRestarts(c)); err != nil {
		return m.reject(chid, true, nil, err)
	}
	result, voucher, err := m.validate(true, chid, req)
	if !accepted(err) {
		return m.reject(chid, true, result, fmt.Errorf("restart request for channel %s failed validation: %w", chid, err))
	}
	awaiting := errors.Is(err, dt.ErrPause)
	return m.accept(c, dt.Restart, voucher, result, awaiting, awaiting || m.mustStayPaused(c))
}

// resendFloor is how much may go out again whatever the size of the channel: what is on the way when a connection breaks.
const resendFloor = 16 << 20

// boundRestarts refuses to send a channel over and over: at most its own size again for each three restarts.
func (m *Manager) boundRestarts(c *channels.Channel) (err error) {
	c.Do(func(r *channels.Record, cr *channels.Credit) {
		cr.Restart++
		allowed := uint64(cr.Restart)*resendFloor + uint64(cr.Restart+2)/3*r.Queued
		if cr.Resent > allowed {
			err = fmt.Errorf("channel was restarted %d times and %d bytes were sent again: the bound is %d", cr.Restart, cr.Resent, allowed)
		}
	})
	return err
}

// mustStayPaused tells whether the responder's account keeps a restarted channel paused.
func (m *Manager) mustStayPaused(c *channels.Channel) bool {
	cr := m.credit(c)
	s := c.State()
	if cr.Held {
		return true
	}
	if cr.Limited {
		// What was counted and lost on the way may go out again; nothing new may.
		return !cr.Open(s.Queued()) && cr.Has >= uint64(s.QueuedCidsTotal())
	}
	return s.Status() == dt.ResponderPaused || s.Status() == dt.BothPaused
}

// MayAskAgain bounds what a recipient gets once more that goes on after a pause of its own: as at a restart; one that is over is sent a few
// times more.
func (m *Manager) MayAskAgain(chid dt.ChannelID, has int64) (err error) {
	c, err := m.live(chid)
	if err != nil {
		return err
	}
	if s := c.Status(); over(c) && (s != dt.Completed && s != dt.Completing || !m.serveAgain(chid)) { // everything may have left before the pause came
		return fmt.Errorf("channel %s has ended", chid)
	}
	c.Do(func(r *channels.Record, cr *channels.Credit) {
		allowed := uint64(cr.Restart+1)*resendFloor + uint64(cr.Restart+2)/3*r.Queued
		if uint64(max(has, 0)) < r.QueuedTotal && cr.Resent > allowed {
			err = fmt.Errorf("%d bytes of the channel were sent again: the bound is %d", cr.Resent, allowed)
		}
	})
	return err
}

func (r restarting) check(req dt.Request) error {
	m, s := r.m, r.s
	if !req.BaseCid().Equals(s.BaseCID()) {
		return errors.New("base cid does not match")
	}
	if req.IsPull() != s.IsPull() {
		return errors.New("direction does not match")
	}
	sel, err := req.Selector()
	if err != nil || !shared.SameNode(sel, s.Selector()) {
		return errors.New("selector does not match")
	}
	v := s.Voucher()
	if v == nil || v.Type() != req.VoucherType() {
		return errors.New("channel and request voucher types do not match")
	}
	d, ok := m.validated.Decoder(req.VoucherType())
	if !ok {
		return fmt.Errorf("unknown voucher type: %s", req.VoucherType())
	}
	rv, err := req.Voucher(d)
	if err != nil {
		return err
	}
	want, err := encoding.EncodeToNode(v)
	if err != nil {
		return err
	}
	got, err := encoding.EncodeToNode(rv)
	if err != nil {
		return err
	}
	if !shared.SameNode(want, got) {
		return errors.New("channel and request vouchers do not match")
	}
	return nil
}
