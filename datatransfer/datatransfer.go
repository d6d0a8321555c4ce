// Package datatransfer is the contract of the data-transfer protocol: it opens push and pull channels between two
// peers, lets the responder validate what the initiator asks for, and tells both how it goes. The implementation is
// in impl; the wire format and its requirements (R-n) are docs/protocol/datatransfer.md.
//
// Amounts of data are bytes of blocks. A ChannelState is an immutable snapshot and may be kept.
package datatransfer

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	cbg "github.com/whyrusleeping/cbor-gen"

	"github.com/cartage-dev/cartage/datatransfer/encoding"
	"github.com/cartage-dev/cartage/internal/wire"
)

// ProtocolDataTransfer1_2 is the protocol id of the messages that travel on streams of their own.
var ProtocolDataTransfer1_2 protocol.ID = "/fil/datatransfer/1.2.0"

type errorType string

func (e errorType) Error() string { return string(e) }

const (
	// ErrHandlerAlreadySet is the answer to a second SetEventHandler.
	ErrHandlerAlreadySet = errorType("already set event handler")
	// ErrHandlerNotSet means that a transport was used before SetEventHandler.
	ErrHandlerNotSet = errorType("event handler has not been set")
	// ErrChannelNotFound means that the channel does not exist.
	ErrChannelNotFound = errorType("channel not found")
	// ErrPause is returned by a validator, revalidator or handler to pause the channel.
	ErrPause = errorType("pause channel")
	// ErrResume is returned by a revalidator or handler to resume the channel.
	ErrResume = errorType("resume channel")
	// ErrRejected is the message of the Error event on a channel that the responder refused.
	ErrRejected = errorType("response rejected")
	// ErrUnsupported means that the transport cannot pause and resume.
	ErrUnsupported = errorType("unsupported")
)

// TypeIdentifier names a type of voucher or result on the wire.
type TypeIdentifier string

// EmptyTypeIdentifier stands for no voucher and no result.
const EmptyTypeIdentifier = TypeIdentifier("")

// Registerable is an encodable value with a type identifier.
type Registerable interface {
	encoding.Encodable
	// Type identifies the type on the wire.
	Type() TypeIdentifier
}

// Voucher justifies a request: the responder validates it.
type Voucher Registerable

// VoucherResult is the responder's answer to a voucher.
type VoucherResult Registerable

// TransferID numbers a channel; it is chosen by the initiator and below 2^63.
type TransferID uint64

// ChannelID identifies a channel. It is comparable and used as a key.
type ChannelID struct {
	Initiator peer.ID
	Responder peer.ID
	ID        TransferID
}

// String is `<initiator>-<responder>-<id>`: the datastore key and the tag of the protected connection.
func (c ChannelID) String() string {
	return fmt.Sprintf("%s-%s-%d", c.Initiator, c.Responder, c.ID)
}

// OtherParty is the peer on the other side, seen from thisPeer.
func (c ChannelID) OtherParty(thisPeer peer.ID) peer.ID {
	if thisPeer == c.Initiator {
		return c.Responder
	}
	return c.Initiator
}

func (c *ChannelID) fields() []wire.Field {
	return []wire.Field{wire.Peer("Initiator", &c.Initiator), wire.Peer("Responder", &c.Responder), wire.Uint("ID", &c.ID)}
}

// MarshalCBOR writes the tuple [initiator, responder, id].
func (c *ChannelID) MarshalCBOR(w io.Writer) error {
	if c == nil {
		_, err := w.Write(cbg.CborNull)
		return err
	}
	return wire.WriteTuple(w, c.fields())
}

// UnmarshalCBOR reads the tuple [initiator, responder, id].
func (c *ChannelID) UnmarshalCBOR(r io.Reader) error {
	*c = ChannelID{}
	return wire.ReadTuple(r, "ChannelID", c.fields())
}

// Channel is what two peers agreed to transfer.
type Channel interface {
	TransferID() TransferID
	BaseCID() cid.Cid
	// Selector is the selector of the transfer, nil if the stored one does not decode.
	Selector() ipld.Node
	// Voucher is the opening voucher, nil if its type is not registered.
	Voucher() Voucher
	// Sender is the peer that sends data.
	Sender() peer.ID
	// Recipient is the peer that receives data.
	Recipient() peer.ID
	// TotalSize is 0: the size of a DAG is not known ahead.
	TotalSize() uint64
	// IsPull tells whether the initiator receives.
	IsPull() bool
	ChannelID() ChannelID
	// OtherPeer is the peer that is not this node.
	OtherPeer() peer.ID
}

// ChannelState is an immutable snapshot of a channel.
type ChannelState interface {
	Channel
	SelfPeer() peer.ID
	Status() Status
	// Sent is the bytes of unique blocks handed to the network.
	Sent() uint64
	// Received is the bytes of unique blocks that came from the other peer.
	Received() uint64
	// Message is the last error, or empty.
	Message() string
	// Vouchers are all vouchers in order; those that do not decode are left out.
	Vouchers() []Voucher
	VoucherResults() []VoucherResult
	// LastVoucher is nil when there is none or it does not decode.
	LastVoucher() Voucher
	LastVoucherResult() VoucherResult
	// ReceivedCidsTotal is the highest position in the traversal that was received, repeats included.
	ReceivedCidsTotal() int64
	QueuedCidsTotal() int64
	SentCidsTotal() int64
	// Queued is the bytes of unique blocks read and queued for sending.
	Queued() uint64
	// Stages is the log of the channel; never nil, read-only.
	Stages() *ChannelStages
}

// Subscriber is told about each event with the state right after it.
type Subscriber func(event Event, channelState ChannelState)

// Unsubscribe ends a subscription; it may be called more than once and inside a callback.
type Unsubscribe func()

// Event is something that happened on a channel.
type Event struct {
	Code      EventCode
	Message   string
	Timestamp time.Time
	// Cause is why a channel ended with Error, as long as the process runs in which it did: decide from it, and show Message.
	Cause error
}

// ReadyFunc is told once how the start went.
type ReadyFunc func(error)

// Message is a request or a response of the protocol.
type Message interface {
	IsRequest() bool
	IsRestart() bool
	IsNew() bool
	IsUpdate() bool
	IsPaused() bool
	IsCancel() bool
	TransferID() TransferID
	// ToNet writes the message as one bare dag-cbor object.
	ToNet(w io.Writer) error
	ToIPLD() (datamodel.Node, error)
	MessageForProtocol(targetProtocol protocol.ID) (newMsg Message, err error)
}

// Request is a message from the initiator.
type Request interface {
	Message
	IsPull() bool
	IsVoucher() bool
	VoucherType() TypeIdentifier
	Voucher(decoder encoding.Decoder) (encoding.Encodable, error)
	BaseCid() cid.Cid
	Selector() (ipld.Node, error)
	IsRestartExistingChannelRequest() bool
	RestartChannelId() (ChannelID, error)
}

// Response is a message from the responder.
type Response interface {
	Message
	IsVoucherResult() bool
	IsComplete() bool
	Accepted() bool
	VoucherResultType() TypeIdentifier
	VoucherResult(decoder encoding.Decoder) (encoding.Encodable, error)
	EmptyVoucherResult() bool
}

// Manager opens, follows and ends channels. All methods are safe for concurrent use and may be called from
// subscribers.
type Manager interface {
	// Start begins processing; OnReady tells when the store is migrated.
	Start(ctx context.Context) error
	OnReady(ReadyFunc)
	// Stop ends all processing and leaves no goroutine behind; channels can be restarted later.
	Stop(ctx context.Context) error
	// RegisterVoucherType sets who validates requests with this type of voucher. The validator may be nil on a
	// node that only initiates.
	RegisterVoucherType(voucherType Voucher, validator RequestValidator) error
	RegisterRevalidator(voucherType Voucher, revalidator Revalidator) error
	RegisterVoucherResultType(resultType VoucherResult) error
	RegisterTransportConfigurer(voucherType Voucher, configurer TransportConfigurer) error
	OpenPushDataChannel(ctx context.Context, to peer.ID, voucher Voucher, baseCid cid.Cid, selector ipld.Node) (ChannelID, error)
	// OpenPullDataChannel asks for data; the end of ctx cancels the request.
	OpenPullDataChannel(ctx context.Context, to peer.ID, voucher Voucher, baseCid cid.Cid, selector ipld.Node) (ChannelID, error)
	// SendVoucher sends a further voucher on a channel that this node initiated.
	SendVoucher(ctx context.Context, chid ChannelID, voucher Voucher) error
	// CloseDataTransferChannel cancels a channel; on a final one it does nothing.
	CloseDataTransferChannel(ctx context.Context, chid ChannelID) error
	PauseDataTransferChannel(ctx context.Context, chid ChannelID) error
	ResumeDataTransferChannel(ctx context.Context, chid ChannelID) error
	TransferChannelStatus(ctx context.Context, x ChannelID) Status
	// ChannelState is the state after all events submitted so far.
	ChannelState(ctx context.Context, chid ChannelID) (ChannelState, error)
	SubscribeToEvents(subscriber Subscriber) Unsubscribe
	// InProgressChannels returns all stored channels, final ones included.
	InProgressChannels(ctx context.Context) (map[ChannelID]ChannelState, error)
	// RestartDataTransferChannel starts a broken channel again where it stopped.
	RestartDataTransferChannel(ctx context.Context, chid ChannelID) error
}

// RequestValidator decides on requests. It runs on a thread of the transport: it must not wait for the manager.
// ErrPause accepts and pauses, any other error rejects.
type RequestValidator interface {
	ValidatePush(
		isRestart bool,
		chid ChannelID,
		sender peer.ID,
		voucher Voucher,
		baseCid cid.Cid,
		selector ipld.Node) (VoucherResult, error)
	ValidatePull(
		isRestart bool,
		chid ChannelID,
		receiver peer.ID,
		voucher Voucher,
		baseCid cid.Cid,
		selector ipld.Node) (VoucherResult, error)
}

// Revalidator asks for further vouchers while data flows, on the responder's side. The first value of the On...
// methods tells whether the channel is known to it.
type Revalidator interface {
	Revalidate(channelID ChannelID, voucher Voucher) (VoucherResult, error)
	OnPullDataSent(chid ChannelID, additionalBytesSent uint64) (bool, VoucherResult, error)
	OnPushDataReceived(chid ChannelID, additionalBytesReceived uint64) (bool, VoucherResult, error)
	OnComplete(chid ChannelID) (bool, VoucherResult, error)
}

// Limiter is optional on a RequestValidator: how many bytes may be queued on a channel in all. With it the
// revalidator is asked only when the limit is reached, and nobody else computes credit. ok is false for a channel
// that is not metered.
type Limiter interface {
	Limit(chid ChannelID) (limit uint64, ok bool)
}

// TransportConfigurer prepares the transport for a channel, before data flows.
type TransportConfigurer func(chid ChannelID, voucher Voucher, transport Transport)
