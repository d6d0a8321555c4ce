package testutil

import (
	"context"
	"sync"

	"github.com/ipld/go-ipld-prime"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/network"
)

// FakeSentMessage is a message that a FakeNetwork was given.
type FakeSentMessage struct {
	PeerID  peer.ID
	Message dt.Message
}

// FakeNetwork is a DataTransferNetwork that keeps what is sent. It is safe for concurrent use.
type FakeNetwork struct {
	Self peer.ID
	// Err is what sending returns.
	Err error

	mu        sync.Mutex
	sent      []FakeSentMessage
	delegate  network.Receiver
	protected map[string]bool
}

var _ network.DataTransferNetwork = (*FakeNetwork)(nil)

// NewFakeNetwork returns the network of a peer.
func NewFakeNetwork(self peer.ID) *FakeNetwork {
	return &FakeNetwork{Self: self, protected: map[string]bool{}}
}

// SentMessages are the messages so far.
func (f *FakeNetwork) SentMessages() []FakeSentMessage {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]FakeSentMessage(nil), f.sent...)
}

// Delegate is what gets incoming messages; nil before the manager is ready and after it stopped.
func (f *FakeNetwork) Delegate() network.Receiver {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.delegate
}

// Protected tells whether a connection is protected with a tag.
func (f *FakeNetwork) Protected(p peer.ID, tag string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.protected[p.String()+tag]
}

// Protect implements DataTransferNetwork.
func (f *FakeNetwork) Protect(p peer.ID, tag string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.protected[p.String()+tag] = true
}

// Unprotect implements DataTransferNetwork.
func (f *FakeNetwork) Unprotect(p peer.ID, tag string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.protected, p.String()+tag)
	return false
}

// SendMessage implements DataTransferNetwork.
func (f *FakeNetwork) SendMessage(_ context.Context, to peer.ID, msg dt.Message) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Err != nil {
		return f.Err
	}
	f.sent = append(f.sent, FakeSentMessage{to, msg})
	return nil
}

// SetDelegate implements DataTransferNetwork.
func (f *FakeNetwork) SetDelegate(r network.Receiver) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delegate = r
}

// ConnectTo implements DataTransferNetwork.
func (f *FakeNetwork) ConnectTo(context.Context, peer.ID) error { return f.Err }

// ConnectWithRetry implements DataTransferNetwork.
func (f *FakeNetwork) ConnectWithRetry(context.Context, peer.ID) error { return f.Err }

// ID implements DataTransferNetwork.
func (f *FakeNetwork) ID() peer.ID { return f.Self }

// Protocol implements DataTransferNetwork.
func (f *FakeNetwork) Protocol(context.Context, peer.ID) (protocol.ID, error) {
	return dt.ProtocolDataTransfer1_2, f.Err
}

// OpenedChannel is a channel that a FakeTransport was asked to open.
type OpenedChannel struct {
	DataSender peer.ID
	ChannelID  dt.ChannelID
	Root       ipld.Link
	Selector   ipld.Node
	Channel    dt.ChannelState
	Message    dt.Message
}

// ResumedChannel is a channel that a FakeTransport was asked to resume, with the message that travels along.
type ResumedChannel struct {
	ChannelID dt.ChannelID
	Message   dt.Message
}

// FakeTransport is a PauseableTransport that moves nothing and keeps what it is asked for.
type FakeTransport struct {
	// OpenErr is what OpenChannel returns, ResumeErr what ResumeChannel does.
	OpenErr, ResumeErr error

	mu                      sync.Mutex
	events                  dt.EventsHandler
	opened                  []OpenedChannel
	closed, paused, cleaned []dt.ChannelID
	resumed                 []ResumedChannel
	isShutdown              bool
}

var _ dt.PauseableTransport = (*FakeTransport)(nil)

// NewFakeTransport returns a transport.
func NewFakeTransport() *FakeTransport { return &FakeTransport{} }

// EventHandler is the handler that was set.
func (f *FakeTransport) EventHandler() dt.EventsHandler {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.events
}

func (f *FakeTransport) note(list *[]dt.ChannelID, chid dt.ChannelID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	*list = append(*list, chid)
}

func copied[T any](f *FakeTransport, list *[]T) []T {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]T(nil), *list...)
}

// OpenedChannels are the channels opened so far.
func (f *FakeTransport) OpenedChannels() []OpenedChannel { return copied(f, &f.opened) }

// ClosedChannels are the channels closed so far.
func (f *FakeTransport) ClosedChannels() []dt.ChannelID { return copied(f, &f.closed) }

// PausedChannels are the channels paused so far.
func (f *FakeTransport) PausedChannels() []dt.ChannelID { return copied(f, &f.paused) }

// ResumedChannels are the channels resumed so far.
func (f *FakeTransport) ResumedChannels() []ResumedChannel { return copied(f, &f.resumed) }

// CleanedUpChannels are the channels cleaned up so far.
func (f *FakeTransport) CleanedUpChannels() []dt.ChannelID { return copied(f, &f.cleaned) }

// OpenChannel implements Transport.
func (f *FakeTransport) OpenChannel(_ context.Context, sender peer.ID, chid dt.ChannelID, root ipld.Link, sel ipld.Node, ch dt.ChannelState, msg dt.Message) error {
	f.mu.Lock()
	f.opened = append(f.opened, OpenedChannel{sender, chid, root, sel, ch, msg})
	events, err := f.events, f.OpenErr
	f.mu.Unlock()
	if err != nil {
		return err
	}
	return events.OnChannelOpened(chid)
}

// CloseChannel implements Transport.
func (f *FakeTransport) CloseChannel(_ context.Context, chid dt.ChannelID) error {
	f.note(&f.closed, chid)
	return nil
}

// SetEventHandler implements Transport.
func (f *FakeTransport) SetEventHandler(events dt.EventsHandler) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.events != nil {
		return dt.ErrHandlerAlreadySet
	}
	f.events = events
	return nil
}

// CleanupChannel implements Transport.
func (f *FakeTransport) CleanupChannel(chid dt.ChannelID) { f.note(&f.cleaned, chid) }

// Shutdown implements Transport.
func (f *FakeTransport) Shutdown(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.isShutdown = true
	return nil
}

// IsShutdown tells whether Shutdown was called.
func (f *FakeTransport) IsShutdown() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.isShutdown
}

// PauseChannel implements PauseableTransport.
func (f *FakeTransport) PauseChannel(_ context.Context, chid dt.ChannelID) error {
	f.note(&f.paused, chid)
	return nil
}

// ResumeChannel implements PauseableTransport.
func (f *FakeTransport) ResumeChannel(_ context.Context, msg dt.Message, chid dt.ChannelID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ResumeErr != nil {
		return f.ResumeErr
	}
	f.resumed = append(f.resumed, ResumedChannel{chid, msg})
	return nil
}
