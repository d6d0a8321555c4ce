package impl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/channels"
	"github.com/cartage-dev/cartage/datatransfer/message"
	"github.com/cartage-dev/cartage/internal/reason"
)

// open stores a new channel that this node initiates, for good.
func (m *Manager) open(ctx context.Context, to peer.ID, voucher dt.Voucher, base cid.Cid, sel ipld.Node, pull bool) (*channels.Channel, dt.Request, error) {
	if err := m.awaitReady(ctx); err != nil {
		return nil, nil, err
	}
	c, req, err := m.create(to, voucher, base, sel, pull)
	for errors.Is(err, channels.ErrExists) { // the clock went back
		c, req, err = m.create(to, voucher, base, sel, pull)
	}
	if err != nil {
		return nil, nil, err
	}
	if err := m.channels.Sync(ctx); err != nil { // before the request leaves: what the responder accepts is gone on with after a crash
		_ = c.Apply(dt.Error, reason.StoreFailed.Errorf("store channel: %w", err))
		return nil, nil, err
	}
	m.configure(c.ID(), voucher)
	m.net.Protect(to, c.ID().String())
	m.monitor.Add(c.ID())
	return c, req, nil
}

func (m *Manager) create(to peer.ID, voucher dt.Voucher, base cid.Cid, sel ipld.Node, pull bool) (*channels.Channel, dt.Request, error) {
	chid := dt.ChannelID{Initiator: m.peerID, Responder: to, ID: dt.TransferID(m.ids.Next())}
	req, err := message.NewRequest(chid.ID, false, pull, voucher.Type(), voucher, base, sel)
	if err != nil {
		return nil, nil, err
	}
	st, err := channels.NewStatic(m.peerID, chid, base, sel, pull)
	if err != nil {
		return nil, nil, err
	}
	enc, err := channels.Encode(voucher)
	if err != nil {
		return nil, nil, err
	}
	c, err := m.channels.Create(st, enc, 0)
	return c, req, err
}

// OpenPushDataChannel implements datatransfer.Manager.
func (m *Manager) OpenPushDataChannel(ctx context.Context, to peer.ID, voucher dt.Voucher, base cid.Cid, sel ipld.Node) (dt.ChannelID, error) {
	c, req, err := m.open(ctx, to, voucher, base, sel, false)
	if err != nil {
		return dt.ChannelID{}, err
	}
	if err := m.net.SendMessage(ctx, to, req); err != nil {
		err = fmt.Errorf("Unable to send request: %w", err)
		_ = c.Apply(dt.Error, err)
		return c.ID(), err
	}
	return c.ID(), nil
}

// OpenPullDataChannel implements datatransfer.Manager.
func (m *Manager) OpenPullDataChannel(ctx context.Context, to peer.ID, voucher dt.Voucher, base cid.Cid, sel ipld.Node) (dt.ChannelID, error) {
	c, req, err := m.open(ctx, to, voucher, base, sel, true)
	if err != nil {
		return dt.ChannelID{}, err
	}
	if err := m.transport.OpenChannel(ctx, to, c.ID(), cidlink.Link{Cid: base}, sel, nil, req); err != nil {
		err = fmt.Errorf("Unable to send request: %w", err)
		_ = c.Apply(dt.Error, err)
		return c.ID(), err
	}
	m.monitor.Asked(c.ID()) // a first request may be lost without an error as a restart may
	return c.ID(), nil
}

// SendVoucher implements datatransfer.Manager. The voucher is recorded before it is sent, so that the answer cannot come first. One of a channel
// that has ended is sent all the same: its receiver books what was paid whatever became of the transfer.
func (m *Manager) SendVoucher(ctx context.Context, chid dt.ChannelID, voucher dt.Voucher) (err error) {
	c, err := m.get(ctx, chid)
	if err != nil {
		return err
	}
	ctx, end := m.spans.Child(ctx, chid, "sendVoucher")
	defer func() { end(err) }()
	if chid.Initiator != m.peerID {
		return errors.New("cannot send voucher for request we did not initiate")
	}
	req, err := message.VoucherRequest(chid.ID, voucher.Type(), voucher)
	if err != nil {
		return err
	}
	enc, err := channels.Encode(voucher)
	if err != nil {
		return err
	}
	if err := ignoreOver(c, c.Voucher(enc)); err != nil {
		return err
	}
	if m.transport.SendControl(chid, req) { // it costs no stream of its own
		return nil
	}
	if err := m.net.SendMessage(ctx, chid.OtherParty(m.peerID), req); err != nil {
		_ = c.Apply(dt.Disconnected, err.Error())
		return fmt.Errorf("Unable to send request: %w", err)
	}
	return nil
}

func (m *Manager) cancelMessage(chid dt.ChannelID) dt.Message {
	if chid.Initiator == m.peerID {
		return message.CancelRequest(chid.ID)
	}
	return message.CancelResponse(chid.ID)
}

// CloseDataTransferChannel implements datatransfer.Manager.
func (m *Manager) CloseDataTransferChannel(ctx context.Context, chid dt.ChannelID) (err error) {
	c, err := m.get(ctx, chid)
	if err != nil {
		return err
	}
	if over(c) {
		return nil
	}
	ctx, end := m.spans.Child(ctx, chid, "closeChannel")
	defer func() { end(err) }()
	_ = m.transport.CloseChannel(ctx, chid)
	m.outbox.send(chid, chid.OtherParty(m.peerID), m.cancelMessage(chid), 30*time.Second)
	return ignoreOver(c, c.Apply(dt.Cancel))
}

// CloseDataTransferChannelWithError ends a channel as failed and tells the other side.
func (m *Manager) CloseDataTransferChannelWithError(ctx context.Context, chid dt.ChannelID, cherr error) error {
	c, err := m.get(ctx, chid)
	if err != nil {
		return err
	}
	if over(c) {
		return nil
	}
	_ = m.transport.CloseChannel(ctx, chid)
	_ = m.net.SendMessage(ctx, chid.OtherParty(m.peerID), m.cancelMessage(chid))
	return ignoreOver(c, c.Apply(dt.Error, orUnknown(cherr)))
}

func over(c *channels.Channel) bool {
	s := c.Status()
	return channels.IsChannelTerminated(s) || channels.IsChannelCleaningUp(s)
}

func ignoreOver(c *channels.Channel, err error) error {
	if err != nil && over(c) {
		return nil
	}
	return err
}

var errUnknown = errors.New("unknown error")

// orUnknown replaces a nil error.
func orUnknown(err error) error {
	if err == nil {
		return errUnknown
	}
	return err
}

func errText(err error) string { return orUnknown(err).Error() }

// PauseDataTransferChannel implements datatransfer.Manager.
func (m *Manager) PauseDataTransferChannel(ctx context.Context, chid dt.ChannelID) error {
	c, err := m.get(ctx, chid)
	if err != nil {
		return err
	}
	if !m.transport.Traits().Pauses {
		return dt.ErrUnsupported
	}
	_ = m.transport.PauseChannel(ctx, chid)
	if err := m.net.SendMessage(ctx, chid.OtherParty(m.peerID), m.updateMessage(chid, true)); err != nil {
		_ = c.Apply(dt.Disconnected, err.Error())
		return fmt.Errorf("Unable to send pause message: %w", err)
	}
	if chid.Initiator == m.peerID {
		return c.Apply(dt.PauseInitiator)
	}
	c.Do(func(_ *channels.Record, cr *channels.Credit) { cr.Paused, cr.Held = true, true })
	return c.Apply(dt.PauseResponder)
}

func (m *Manager) updateMessage(chid dt.ChannelID, paused bool) dt.Message {
	if chid.Initiator == m.peerID {
		return message.UpdateRequest(chid.ID, paused)
	}
	return message.UpdateResponse(chid.ID, paused)
}

// ResumeDataTransferChannel implements datatransfer.Manager.
func (m *Manager) ResumeDataTransferChannel(ctx context.Context, chid dt.ChannelID) error {
	c, err := m.get(ctx, chid)
	if err != nil {
		return err
	}
	if !m.transport.Traits().Pauses {
		return dt.ErrUnsupported
	}
	event, opening := dt.ResumeInitiator, false
	if chid.Initiator != m.peerID {
		event = dt.ResumeResponder
		c.Do(func(_ *channels.Record, cr *channels.Credit) {
			cr.Paused, cr.Held, cr.Awaiting, opening = false, false, false, cr.Opening
		})
	}
	// The event comes first: data flows as soon as the transport goes on, and may reach its end before this returns.
	if err := c.Apply(event); err != nil || opening { // what opens it sees that it is not paused any more
		return err
	}
	return m.resume(ctx, c, m.updateMessage(chid, false))
}

// resume resumes on the transport; a message that it cannot carry goes over the network.
func (m *Manager) resume(ctx context.Context, c *channels.Channel, msg dt.Message) error {
	if !m.transport.Traits().Pauses {
		return dt.ErrUnsupported
	}
	if err := m.transport.ResumeChannel(ctx, msg, c.ID()); err != nil {
		m.outbox.send(c.ID(), c.ID().OtherParty(m.peerID), msg, time.Minute)
	}
	return nil
}
