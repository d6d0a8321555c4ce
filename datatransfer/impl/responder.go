package impl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/channels"
	"github.com/cartage-dev/cartage/datatransfer/message"
	"github.com/cartage-dev/cartage/datatransfer/network"
	"github.com/cartage-dev/cartage/internal/reason"
)

// receiver takes messages of the network path.
type receiver struct{ m *Manager }

var (
	_ network.Receiver           = receiver{}
	_ network.DisconnectReceiver = receiver{}
)

// ReceiveRequest implements network.Receiver.
func (r receiver) ReceiveRequest(ctx context.Context, sender peer.ID, req dt.Request) {
	m := r.m
	chid := dt.ChannelID{Initiator: sender, Responder: m.peerID, ID: req.TransferID()}
	if m.silent(chid) && !req.IsCancel() {
		return
	}
	if req.IsRestart() && req.IsPull() {
		m.receiveFinished(chid, req)
		return
	}
	if req.IsNew() && req.IsPull() {
		if resp, err := m.reject(chid, req.IsRestart(), nil, errors.New("a pull request comes with a graphsync request")); resp != nil {
			slog.Debug("data-transfer request refused", "channel", chid, "error", err)
			m.outbox.once(chid, sender, resp)
		}
		return
	}
	resp, err := m.OnRequestReceived(chid, req)
	switch {
	case !req.IsNew() && !req.IsRestart():
		if resp != nil {
			m.outbox.send(chid, sender, resp, completeWorth)
		}
		if errors.Is(err, dt.ErrPause) && req.IsVoucher() {
			m.HoldForPayment(ctx, chid)
			return
		}
		m.steer(ctx, chid, err)
	case resp == nil:
	case resp.IsComplete():
		m.outbox.send(chid, sender, resp, completeWorth)
	case !resp.Accepted(): // whatever runs under that id goes on
		m.outbox.once(chid, sender, resp)
	default:
		if err := m.openForPush(ctx, chid, req, resp); err != nil {
			_ = m.apply(chid, dt.Error, err)
		}
	}
}

// receiveFinished answers the initiator of a pull who has all data and has not heard the end: the data phase of this side is
// over too, whatever became of it in a crash.
func (m *Manager) receiveFinished(chid dt.ChannelID, req dt.Request) {
	resp, err := m.receiveRestart(chid, req)
	if resp == nil {
		return
	}
	if !resp.Accepted() {
		slog.Debug("data-transfer restart refused", "channel", chid, "error", err)
		m.outbox.once(chid, chid.Initiator, resp)
		return
	}
	m.outbox.send(chid, chid.Initiator, resp, completeWorth)
	if resp.IsComplete() {
		return
	}
	c, err := m.live(chid)
	if err == nil && c.Status() != dt.Finalizing {
		if err = m.recount(c); err == nil {
			c.Do(func(r *channels.Record, _ *channels.Credit) { r.AllSent() })
			err = m.complete(c)
		}
	}
	if err != nil {
		slog.Debug("data-transfer channel did not complete", "channel", chid, "error", err)
	}
}

func (m *Manager) hold(ctx context.Context, chid dt.ChannelID) {
	if err := m.transport.PauseChannel(ctx, chid); err != nil && !errors.Is(err, dt.ErrUnsupported) {
		slog.Debug("channel could not be paused", "channel", chid, "error", err)
	}
}

// openForPush asks the initiator of an accepted push for the data.
func (m *Manager) openForPush(ctx context.Context, chid dt.ChannelID, req dt.Request, resp dt.Response) error {
	c, err := m.live(chid)
	if err != nil {
		return err
	}
	s := c.State()
	var state dt.ChannelState
	if req.IsRestart() {
		state = s
	}
	if err := m.transport.OpenChannel(m.ctx, chid.Initiator, chid, cidlink.Link{Cid: s.BaseCID()}, s.Selector(), state, resp); err != nil {
		return err
	}
	if !resp.IsPaused() {
		return nil
	}
	paused := false
	c.Do(func(_ *channels.Record, cr *channels.Credit) { paused, cr.Opening = cr.Paused, false })
	if !paused { // resumed before there was a request to resume
		return m.resume(ctx, c, m.updateMessage(chid, false))
	}
	if !m.transport.Traits().OpensPaused {
		m.hold(ctx, chid)
	}
	return nil
}

// steer does on the transport what a network message asked for. A pause of the other side needs nothing here: a sender that
// pauses sends nothing, a requester that pauses ends its request and asks anew when it goes on. If its request is still there,
// it goes on.
func (m *Manager) steer(ctx context.Context, chid dt.ChannelID, err error) {
	switch {
	case err == nil || errors.Is(err, dt.ErrPause):
	case errors.Is(err, dt.ErrResume):
		_ = m.transport.ResumeChannel(ctx, nil, chid)
	default:
		_ = m.transport.CloseChannel(ctx, chid)
	}
}

// ReceiveResponse implements network.Receiver.
func (r receiver) ReceiveResponse(ctx context.Context, sender peer.ID, resp dt.Response) {
	chid := dt.ChannelID{Initiator: r.m.peerID, Responder: sender, ID: resp.TransferID()}
	err := r.m.OnResponseReceived(chid, resp)
	if err != nil && !errors.Is(err, dt.ErrPause) {
		slog.Debug("data-transfer response refused", "channel", chid, "error", err)
	}
	r.m.steer(ctx, chid, err)
}

// ReceiveError implements network.Receiver.
func (r receiver) ReceiveError(err error) {
	slog.Debug("data-transfer message did not decode", "error", err)
}

// PeerDisconnected implements network.DisconnectReceiver.
func (r receiver) PeerDisconnected(p peer.ID) {
	r.m.transport.PeerAway(p)
	for _, c := range r.m.channels.Live() {
		if c.ID().OtherParty(r.m.peerID) == p {
			_ = c.Apply(dt.Disconnected, "connection to peer lost")
		}
	}
}

// OnRequestReceived implements datatransfer.EventsHandler.
func (m *Manager) OnRequestReceived(chid dt.ChannelID, req dt.Request) (dt.Response, error) {
	return m.requestReceived(chid, req, 0)
}

// OnDataRequest implements port.RequestJudge.
func (m *Manager) OnDataRequest(chid dt.ChannelID, req dt.Request, has int64) (dt.Response, error) {
	if !req.IsNew() {
		m.OnRestartPosition(chid, has)
	}
	return m.requestReceived(chid, req, uint64(max(has, 0)))
}

func (m *Manager) requestReceived(chid dt.ChannelID, req dt.Request, has uint64) (dt.Response, error) {
	if err := m.awaitReady(m.ctx); err != nil {
		return nil, err
	}
	if chid.Initiator == m.peerID {
		return nil, fmt.Errorf("channel %s: a request comes from the initiator", chid)
	}
	if m.silent(chid) && !req.IsCancel() {
		return nil, dt.ErrPause
	}
	switch {
	case req.IsNew():
		return m.receiveNew(chid, req, has)
	case req.IsRestart():
		return m.receiveRestart(chid, req)
	}
	c, err := m.live(chid)
	if err != nil {
		if req.IsCancel() {
			m.cancelEarly(chid)
		}
		return nil, err
	}
	if over(c) {
		if req.IsVoucher() || req.VoucherType() != "" {
			return m.receiveLateVoucher(c, req), nil
		}
		return nil, nil
	}
	switch {
	case req.IsCancel():
		return nil, c.Apply(dt.Cancel)
	case req.IsVoucher() || req.VoucherType() != "":
		return m.receiveVoucher(c, req)
	case req.IsPaused():
		if err := c.Apply(dt.PauseInitiator); err != nil {
			return nil, err
		}
		return nil, dt.ErrPause
	}
	if err := c.Apply(dt.ResumeInitiator); err != nil {
		return nil, err
	}
	if s := c.State().Status(); s == dt.ResponderPaused || s == dt.ResponderFinalizing {
		return nil, dt.ErrPause
	}
	return nil, dt.ErrResume
}

// receiveNew validates a request for a new channel whose initiator has the first has blocks of a pull; nothing is kept unless it is accepted (section 4.3).
func (m *Manager) receiveNew(chid dt.ChannelID, req dt.Request, has uint64) (dt.Response, error) {
	if _, err := m.live(chid); !errors.Is(err, dt.ErrChannelNotFound) {
		return m.reject(chid, false, nil, fmt.Errorf("channel %s exists already", chid))
	}
	done, err := m.admit(chid.Initiator)
	if err != nil {
		return m.reject(chid, false, nil, err)
	}
	defer done()
	result, voucher, err := m.validate(false, chid, req)
	if !accepted(err) {
		return m.reject(chid, false, result, err)
	}
	sel, serr := req.Selector()
	if serr != nil {
		return m.reject(chid, false, nil, serr)
	}
	st, serr := channels.NewStatic(m.peerID, chid, req.BaseCid(), sel, req.IsPull())
	if serr != nil {
		return m.reject(chid, false, nil, serr)
	}
	enc, serr := channels.Encode(voucher)
	if serr != nil {
		return m.reject(chid, false, nil, serr)
	}
	c, serr := m.channels.Create(st, enc, has) // what is there already is not owed
	if serr != nil {
		return m.reject(chid, false, nil, serr)
	}
	c.Do(func(_ *channels.Record, cr *channels.Credit) { cr.Has = has })
	if serr := m.channels.Sync(m.ctx); serr != nil { // before the acceptance leaves: who was accepted may pay
		_ = c.Apply(dt.Error, reason.StoreFailed.Errorf("store channel: %w", serr))
		return m.reject(chid, false, nil, serr)
	}
	if m.cancelledEarly(chid) {
		_ = c.Apply(dt.Cancel)
		return m.reject(chid, false, nil, errors.New("the channel was cancelled while it was decided on"))
	}
	resp, serr := m.accept(c, dt.Accept, voucher, result, errors.Is(err, dt.ErrPause), errors.Is(err, dt.ErrPause))
	if resp == nil && serr != nil { // stored, and not to be answered: it ends here
		_ = c.Apply(dt.Error, serr)
		return m.reject(chid, false, nil, serr)
	}
	return resp, serr
}

// accept announces an accepted request and answers it.
func (m *Manager) accept(c *channels.Channel, event dt.EventCode, voucher dt.Voucher, result dt.VoucherResult, awaiting, paused bool) (dt.Response, error) {
	chid := c.ID()
	m.net.Protect(chid.OtherParty(m.peerID), chid.String()) // its end, which may come any time from here on, takes that back
	paused, err := m.recordAccepted(c, event, result, awaiting, paused)
	if err != nil {
		if over(c) {
			m.net.Unprotect(chid.OtherParty(m.peerID), chid.String())
		}
		return nil, err
	}
	m.configure(chid, voucher)
	mk := message.NewResponse
	if event == dt.Restart {
		mk = message.RestartResponse
	}
	resp, err := mk(chid.ID, true, paused, resultType(result), result)
	if err != nil {
		return nil, err
	}
	if !paused {
		return resp, nil
	}
	return resp, dt.ErrPause
}

// recordAccepted records an acceptance, and returns whether it says that the channel waits: a payment may have come since that was decided.
func (m *Manager) recordAccepted(c *channels.Channel, event dt.EventCode, result dt.VoucherResult, awaiting, paused bool) (bool, error) {
	c.Hold()
	defer c.Release()
	if err := record(c, result); err != nil {
		return false, err
	}
	c.Do(func(r *channels.Record, cr *channels.Credit) {
		paused = awaiting || paused && !(cr.Limited && cr.Open(r.Queued) && !cr.Held)
		cr.Paused, cr.Awaiting, cr.Opening = paused, awaiting, paused && !c.IsPull()
	})
	if err := c.Apply(event); err != nil || !paused {
		return paused, err
	}
	return paused, c.Apply(dt.PauseResponder)
}

func (m *Manager) reject(chid dt.ChannelID, restart bool, result dt.VoucherResult, cause error) (dt.Response, error) {
	mk := message.NewResponse
	if restart {
		mk = message.RestartResponse
	}
	slog.Debug("data-transfer request refused", "channel", chid, "restart", restart, "error", cause)
	resp, err := mk(chid.ID, false, false, resultType(result), result)
	if err != nil {
		return nil, err
	}
	return resp, cause
}

// validate decodes the voucher of a request and asks its validator.
func (m *Manager) validate(restart bool, chid dt.ChannelID, req dt.Request) (dt.VoucherResult, dt.Voucher, error) {
	d, ok := m.validated.Decoder(req.VoucherType())
	if !ok {
		return nil, nil, fmt.Errorf("unknown voucher type: %s", req.VoucherType())
	}
	dec, err := req.Voucher(d)
	if err != nil {
		return nil, nil, err
	}
	voucher, ok := dec.(dt.Voucher)
	if !ok {
		return nil, nil, fmt.Errorf("%T is not a voucher", dec)
	}
	p, _ := m.validated.Processor(req.VoucherType())
	v, ok := p.(dt.RequestValidator)
	if !ok || v == nil {
		return nil, nil, fmt.Errorf("no validator for voucher type %s", req.VoucherType())
	}
	sel, err := req.Selector()
	if err != nil {
		return nil, nil, err
	}
	f := v.ValidatePush
	if req.IsPull() {
		f = v.ValidatePull
	}
	_, result, err := guarded(func() (bool, dt.VoucherResult, error) {
		r, err := f(restart, chid, chid.Initiator, voucher, req.BaseCid(), sel)
		return true, r, err
	})
	return result, voucher, err
}
