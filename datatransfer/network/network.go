// Package network carries data-transfer messages on libp2p streams of their own: one message per stream.
package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/message"
	"github.com/cartage-dev/cartage/shared"
)

// Bounds of an inbound stream.
const (
	maxMessagesPerStream = 16
	readDeadline         = 30 * time.Second
)

// DataTransferNetwork sends and receives messages.
type DataTransferNetwork interface {
	Protect(id peer.ID, tag string)
	Unprotect(id peer.ID, tag string) bool
	SendMessage(ctx context.Context, to peer.ID, msg datatransfer.Message) error
	SetDelegate(Receiver)
	ConnectTo(ctx context.Context, to peer.ID) error
	ConnectWithRetry(ctx context.Context, to peer.ID) error
	ID() peer.ID
	Protocol(ctx context.Context, to peer.ID) (protocol.ID, error)
}

// Receiver gets what arrives.
type Receiver interface {
	ReceiveRequest(ctx context.Context, sender peer.ID, incoming datatransfer.Request)
	ReceiveResponse(ctx context.Context, sender peer.ID, incoming datatransfer.Response)
	ReceiveRestartExistingChannelRequest(ctx context.Context, sender peer.ID, incoming datatransfer.Request)
	ReceiveError(error)
}

// DisconnectReceiver is optional on a Receiver: it hears when the connection to a peer is gone, also if there is a new one.
type DisconnectReceiver interface {
	PeerDisconnected(p peer.ID)
}

// OrderedSender is a network that sends messages of which the next one is not to overtake the one before.
type OrderedSender interface {
	// SendInOrder sends a message and waits a moment for the other side to have taken it.
	SendInOrder(ctx context.Context, to peer.ID, msg datatransfer.Message) error
}

// OrderedOf is the ordered side of a network; one that has none sends as it does.
func OrderedOf(n DataTransferNetwork) OrderedSender {
	if o, ok := n.(OrderedSender); ok {
		return o
	}
	return unordered{n}
}

type unordered struct{ DataTransferNetwork }

// SendInOrder implements OrderedSender.
func (u unordered) SendInOrder(ctx context.Context, to peer.ID, msg datatransfer.Message) error {
	return u.SendMessage(ctx, to, msg)
}

var _ OrderedSender = (*libp2pNetwork)(nil)

// Option changes a default.
type Option func(*libp2pNetwork)

// DataTransferProtocols replaces the list of protocols.
func DataTransferProtocols(protocols []protocol.ID) Option {
	return func(n *libp2pNetwork) { n.protocols = protocols }
}

// SendMessageParameters sets how long opening a stream and sending a message may take (10 s each).
func SendMessageParameters(openStreamTimeout time.Duration, sendMessageTimeout time.Duration) Option {
	return func(n *libp2pNetwork) { n.retry.OpenTimeout, n.sendTimeout = openStreamTimeout, sendMessageTimeout }
}

// RetryParameters sets how often and how fast opening a stream is tried (1 s to 5 min, 5 attempts, factor 5).
func RetryParameters(minDuration time.Duration, maxDuration time.Duration, attempts float64, backoffFactor float64) Option {
	return func(n *libp2pNetwork) {
		n.retry.Min, n.retry.Max, n.retry.Attempts, n.retry.Factor = minDuration, maxDuration, attempts, backoffFactor
	}
}

// ReceiveParameters bounds an inbound stream: how many messages it may carry (16) and how long each may take (30 s).
// What goes beyond is reset.
func ReceiveParameters(messagesPerStream int, timeout time.Duration) Option {
	return func(n *libp2pNetwork) { n.perStream, n.readTimeout = messagesPerStream, timeout }
}

type libp2pNetwork struct {
	perStream   int
	readTimeout time.Duration
	host        host.Host
	receiver    Receiver
	protocols   []protocol.ID
	sendTimeout time.Duration
	retry       shared.RetryStream
	known       known
	notifee     *network.NotifyBundle
	mu          sync.Mutex
	ctx         context.Context // of what is being received
	cancel      context.CancelFunc
}

// NewFromLibp2pHost returns the network over a host.
func NewFromLibp2pHost(h host.Host, options ...Option) DataTransferNetwork {
	n := &libp2pNetwork{
		host: h, protocols: []protocol.ID{datatransfer.ProtocolDataTransfer1_2},
		sendTimeout: 10 * time.Second, perStream: maxMessagesPerStream, readTimeout: readDeadline, retry: shared.DefaultRetryStream(),
	}
	n.retry.OpenTimeout = 10 * time.Second
	for _, o := range options {
		o(n)
	}
	return n
}

func (n *libp2pNetwork) ID() peer.ID { return n.host.ID() }

func (n *libp2pNetwork) Protect(id peer.ID, tag string) {
	n.host.ConnManager().Protect(id, tag)
	n.known.keep(id, tag, n.host.Peerstore().Addrs(id))
}

func (n *libp2pNetwork) Unprotect(id peer.ID, tag string) bool {
	n.known.drop(id, tag)
	return n.host.ConnManager().Unprotect(id, tag)
}

// SetDelegate starts to handle streams; nil stops it.
func (n *libp2pNetwork) SetDelegate(r Receiver) {
	if r == nil {
		n.mu.Lock()
		if n.cancel != nil {
			n.cancel() // resets what is being received
		}
		n.mu.Unlock()
		for _, p := range n.protocols {
			n.host.RemoveStreamHandler(p)
		}
		if n.notifee != nil {
			n.host.Network().StopNotify(n.notifee)
		}
		return
	}
	n.receiver = r
	n.mu.Lock()
	n.ctx, n.cancel = shared.Lifetime()
	n.mu.Unlock()
	for _, p := range n.protocols {
		n.host.SetStreamHandler(p, n.handleNewStream)
	}
	if d, ok := r.(DisconnectReceiver); ok {
		n.notifee = &network.NotifyBundle{DisconnectedF: func(nw network.Network, c network.Conn) {
			if gone(nw, c) {
				d.PeerDisconnected(c.RemotePeer())
			}
		}}
		n.host.Network().Notify(n.notifee)
	}
}

// lifetime ends when streams are handled no more; nil before they are.
func (n *libp2pNetwork) lifetime() context.Context {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ctx
}

// gone tells whether what was on its way over a connection may be lost: it was the oldest one to its peer. There may be a new one
// already when the end of the old one is told.
func gone(nw network.Network, c network.Conn) bool {
	for _, other := range nw.ConnsToPeer(c.RemotePeer()) {
		if other.ID() != c.ID() && other.Stat().Opened.Before(c.Stat().Opened) {
			return false
		}
	}
	return true
}

func (n *libp2pNetwork) ConnectTo(ctx context.Context, to peer.ID) error {
	// Who restarts a channel spaces its attempts itself: the dialer's own pause after a failed one would only add to
	// them, and outlast the return of a peer that was away for a moment.
	ctx = network.WithForceDirectDial(ctx, "data transfer")
	n.recall(to)
	err := n.host.Connect(ctx, peer.AddrInfo{ID: to})
	if err == nil {
		n.known.refresh(to, n.host.Peerstore())
	}
	return err
}

func (n *libp2pNetwork) ConnectWithRetry(ctx context.Context, to peer.ID) error {
	s, err := n.openStream(ctx, to)
	if err != nil {
		return err
	}
	return s.Close()
}

func (n *libp2pNetwork) Protocol(ctx context.Context, to peer.ID) (protocol.ID, error) {
	if p, err := n.host.Peerstore().FirstSupportedProtocol(to, n.protocols...); err == nil && p != "" {
		return p, nil
	}
	s, err := n.openStream(ctx, to)
	if err != nil {
		return "", err
	}
	defer s.Close()
	return s.Protocol(), nil
}

// recall makes the addresses of a peer known that is to be dialled.
func (n *libp2pNetwork) recall(id peer.ID) {
	if n.host.Network().Connectedness(id) != network.Connected {
		n.known.recall(id, n.host.Peerstore())
	}
}

func (n *libp2pNetwork) openStream(ctx context.Context, to peer.ID) (network.Stream, error) {
	retry := n.retry
	retry.Before = func() { n.recall(to) }
	if life := n.lifetime(); life != nil {
		retry.Ended = life.Done()
	}
	s, err := retry.Open(ctx, n.host, to, n.protocols...)
	var out *shared.ExhaustedError
	if errors.As(err, &out) {
		err = fmt.Errorf("exhausted %d attempts but failed to open stream to %s, err: %w", out.Attempts, to, out.Err)
	}
	return s, err
}

func (n *libp2pNetwork) SendMessage(ctx context.Context, to peer.ID, msg datatransfer.Message) error {
	s, err := n.send(ctx, to, msg)
	if err != nil {
		return err
	}
	return s.Close()
}

// takenWithin is how long SendInOrder waits for a receiver.
const takenWithin = 2 * time.Second

// SendInOrder sends a message and waits a moment for the other side to have taken it, which it shows by closing its end: every
// message has a stream of its own, and streams overtake each other.
func (n *libp2pNetwork) SendInOrder(ctx context.Context, to peer.ID, msg datatransfer.Message) error {
	s, err := n.send(ctx, to, msg)
	if err != nil {
		return err
	}
	if err := s.CloseWrite(); err != nil {
		_ = s.Reset()
		return err
	}
	_ = s.SetReadDeadline(time.Now().Add(takenWithin))
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil && !errors.Is(err, io.EOF) {
		_ = s.Reset() // sent all the same
		return nil
	}
	return s.Close()
}

func (n *libp2pNetwork) send(ctx context.Context, to peer.ID, msg datatransfer.Message) (network.Stream, error) {
	s, err := n.openStream(ctx, to)
	if err != nil {
		return nil, err
	}
	m, err := msg.MessageForProtocol(s.Protocol())
	if err != nil {
		_ = s.Reset()
		return nil, fmt.Errorf("unrecognized protocol on remote: %s", s.Protocol())
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(n.sendTimeout)
	}
	_ = s.SetWriteDeadline(deadline)
	if err := m.ToNet(s); err != nil {
		_ = s.Reset()
		return nil, err
	}
	return s, nil
}

func (n *libp2pNetwork) handleNewStream(s network.Stream) {
	defer s.Close()
	p := s.Conn().RemotePeer()
	defer func() { // nothing that a peer sends may end the node
		if cause := recover(); cause != nil {
			_ = s.Reset()
			slog.Error("data-transfer message broke its handler", "peer", p, "panic", cause)
		}
	}()
	if s.Protocol() != datatransfer.ProtocolDataTransfer1_2 {
		_ = s.Reset()
		return
	}
	stop := context.AfterFunc(n.lifetime(), func() { _ = s.Reset() })
	defer stop()
	for i := 0; ; i++ {
		_ = s.SetReadDeadline(time.Now().Add(n.readTimeout))
		msg, err := message.FromNet(s)
		if err == nil && i == n.perStream {
			_ = s.Reset()
			return
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				_ = s.Reset()
				n.receiver.ReceiveError(err)
				slog.Debug("data-transfer message refused", "peer", p, "error", err)
			}
			return
		}
		n.dispatch(p, msg)
	}
}

func (n *libp2pNetwork) dispatch(p peer.ID, msg datatransfer.Message) {
	ctx, cancel := context.WithTimeout(n.lifetime(), readDeadline)
	defer cancel()
	switch m := msg.(type) {
	case datatransfer.Request:
		if m.IsRestartExistingChannelRequest() {
			n.receiver.ReceiveRestartExistingChannelRequest(ctx, p, m)
		} else {
			n.receiver.ReceiveRequest(ctx, p, m)
		}
	case datatransfer.Response:
		n.receiver.ReceiveResponse(ctx, p, m)
	}
}
