// Package port declares what the data-transfer manager, its transports, the market and the node call in each other beyond the published
// interfaces. Every caller goes through it and every implementation is asserted against it at compile time, so that a method that is
// renamed on one side does not build. What implements a published interface alone is adapted in adapt.go.
package port

import (
	"context"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
)

// BlockRef is a block of a channel: its size in bytes and its place in the traversal, which begins at 1.
type BlockRef struct {
	Cid   cid.Cid
	Size  uint64
	Index int64
}

// Handler is what a transport tells its manager and asks it.
type Handler interface {
	dt.EventsHandler
	RequestJudge
	Resender
	BatchCounter
	ClaimCounter
	MessageKeeper
	PauseDecider
}

// RequestJudge decides on what the other side asks a sender for.
type RequestJudge interface {
	// CheckRequest compares root and selector with those of the channel.
	CheckRequest(chid dt.ChannelID, root ipld.Link, selector ipld.Node) error
	// OnDataRequest is OnRequestReceived of a request that asks for data, of a recipient that says it has the first blocks.
	OnDataRequest(chid dt.ChannelID, req dt.Request, has int64) (dt.Response, error)
	// OnDataAsked notes that the recipient asks for the data of a channel.
	OnDataAsked(chid dt.ChannelID)
}

// Resender decides on a recipient that goes on after a pause or a loss of its own.
type Resender interface {
	// MayAskAgain bounds what such a recipient gets once more.
	MayAskAgain(chid dt.ChannelID, has int64) error
	// AdoptForSending prepares the transport for a channel that it does not know, after a start over its store.
	AdoptForSending(chid dt.ChannelID) error
}

// BatchCounter counts blocks that left or came together.
type BatchCounter interface {
	OnBlocksSent(chid dt.ChannelID, blocks []BlockRef) error
	// TakesBatches reports whether blocks of a channel that came together may be told of so: nobody pauses between them.
	TakesBatches(chid dt.ChannelID) bool
	OnBlocksReceived(chid dt.ChannelID, blocks []BlockRef) error
}

// ClaimCounter counts blocks that are left out because the recipient says that it has them. A transport tells of each unique one, in the order of the
// traversal and before what it sends.
type ClaimCounter interface {
	// ClaimCounts reports whether such a block counts as sent, so that its size has to be told.
	ClaimCounts(chid dt.ChannelID, index int64) bool
	OnBlockClaimed(chid dt.ChannelID, size uint64, index int64)
}

// MessageKeeper takes care of messages that have no stream to go with, or whose channel has ended.
type MessageKeeper interface {
	// Undelivered takes a message that a transport could not carry, and reports whether it will be delivered another way.
	Undelivered(chid dt.ChannelID, msg dt.Message) bool
	// OnLateAcceptance: a responder accepts a channel that has no request any more.
	OnLateAcceptance(chid dt.ChannelID)
	// OnAllSent is OnChannelCompleted for a transport that carries the answer with the data; it is stored already. nil is no answer.
	OnAllSent(chid dt.ChannelID) (dt.Message, error)
}

// PauseDecider decides on the pauses of a sender.
type PauseDecider interface {
	// Silent reports whether the sender sends nothing at present to a recipient that asks with a message that does not open or restart the
	// channel.
	Silent(chid dt.ChannelID) bool
	// MaySend decides on the block that is next on a channel, and returns what the other side has to hear first. It is asked before each
	// block that is not let out by the answer to the one before, and after each change. The size of the block is in bytes, 0 if it is not
	// known.
	MaySend(chid dt.ChannelID, next int64, size uint64) (may Release, say []dt.Message)
	// HoldForPayment pauses a channel that waits for a payment, unless that has come.
	HoldForPayment(ctx context.Context, chid dt.ChannelID)
}

// Release is whether a sender sends its next block.
type Release int

const (
	// ReleaseAsTold: it pauses and resumes as it is told, by ErrPause, PauseChannel and ResumeChannel.
	ReleaseAsTold Release = iota
	// ReleaseNow: it sends.
	ReleaseNow
	// ReleaseLater: it waits until ResumeChannel and asks again.
	ReleaseLater
	// ReleaseBySize: the block goes if it fits: the sender reads it and asks again with its size.
	ReleaseBySize
)

// Transport is what a manager asks of a transport, and what the market and the node do on it for a channel.
type Transport interface {
	dt.PauseableTransport
	ChannelStores
	// Traits are what the transport can do.
	Traits() Traits
	// PeerAway ends what runs with a peer whose connection is gone.
	PeerAway(p peer.ID)
	// Halt ends what is sent on a channel without a word to the other side.
	Halt(ctx context.Context, chid dt.ChannelID) error
	// SendControl sends a message with the data of a channel, if it can; false means that the message has to go another way.
	SendControl(chid dt.ChannelID, msg dt.Message) bool
}

// Traits say what a transport can do.
type Traits struct {
	// Pauses: PauseChannel and ResumeChannel work.
	Pauses bool
	// OpensPaused: a channel that is opened with an answer that says paused pauses by itself.
	OpensPaused bool
}

// ChannelStores sets what a channel is read from or written to, and how far it may go.
type ChannelStores interface {
	// UseStore sets the link system of a channel. Called again it keeps the first one while the channel runs.
	UseStore(chid dt.ChannelID, lsys ipld.LinkSystem) error
	// StoreOf is the link system of a channel, if UseStore has set one.
	StoreOf(chid dt.ChannelID) (ipld.LinkSystem, bool)
	// MaxLinks bounds how many links a channel may follow; 0 is no bound of the channel's own.
	MaxLinks(chid dt.ChannelID, n uint64)
}

// ExactLimiter is optional beside dt.Limiter.
type ExactLimiter interface {
	dt.Limiter
	// LimitIsExact reports whether no block of a channel may go beyond its limit.
	LimitIsExact(chid dt.ChannelID) bool
}

// Manager is what the market and the node ask of a data-transfer manager.
type Manager interface {
	dt.Manager
	Registrar
	SenderControl
	RecipientControl
}

// Registrar says who is registered, and tells listeners who do not need each block.
type Registrar interface {
	// Validator returns who validates a type of voucher, or nil.
	Validator(v dt.Voucher) dt.RequestValidator
	// SubscribeToProgress tells of many blocks together.
	SubscribeToProgress(s dt.Subscriber) dt.Unsubscribe
}

// SenderControl is for the application of a sender.
type SenderControl interface {
	// Waiting is the size in bytes of the block that waits on a channel to be let out, 0 if it is not known.
	Waiting(chid dt.ChannelID) uint64
	// Suspend sends and answers nothing on a channel until Unsuspend: the application stops before its manager does.
	Suspend(ctx context.Context, chid dt.ChannelID) error
	Unsuspend(chid dt.ChannelID)
}

// RecipientControl is for the application of a recipient.
type RecipientControl interface {
	// Reposition sets what the recipient really has, in bytes and blocks, before a restart.
	Reposition(ctx context.Context, chid dt.ChannelID, received uint64, position int64) error
	// HasAll says that everything is here.
	HasAll(ctx context.Context, chid dt.ChannelID) error
	// KeepBeforeFinish sets what is called before a channel of this side, whose data is all here, is stored as one that is: what was received has to
	// be on stable storage first. An error fails the channel. It is called before the manager starts.
	KeepBeforeFinish(keep func(chid dt.ChannelID) error)
	ConnectTo(ctx context.Context, p peer.ID) error
}
