package datatransfer

import (
	"context"

	"github.com/ipld/go-ipld-prime"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Transport moves the blocks of channels.
type Transport interface {
	// OpenChannel asks dataSender for data; it is called by the side that receives. channel is nil for a first
	// open and the present state for a restart.
	OpenChannel(
		ctx context.Context,
		dataSender peer.ID,
		channelID ChannelID,
		root ipld.Link,
		stor ipld.Node,
		channel ChannelState,
		msg Message,
	) error
	// CloseChannel ends the channel's requests.
	CloseChannel(ctx context.Context, chid ChannelID) error
	SetEventHandler(events EventsHandler) error
	// CleanupChannel frees everything that belongs to the channel.
	CleanupChannel(chid ChannelID)
	Shutdown(ctx context.Context) error
}

// PauseableTransport can also pause and resume.
type PauseableTransport interface {
	Transport
	PauseChannel(ctx context.Context,
		chid ChannelID,
	) error
	// ResumeChannel resumes; msg travels with it.
	ResumeChannel(ctx context.Context,
		msg Message,
		chid ChannelID,
	) error
}

// EventsHandler is told by a transport what happens; the manager implements it.
type EventsHandler interface {
	// OnChannelOpened: an error abandons the request.
	OnChannelOpened(chid ChannelID) error
	// OnResponseReceived: an error cancels the request.
	OnResponseReceived(chid ChannelID, msg Response) error
	// OnDataReceived: ErrPause pauses the request, another error cancels it.
	OnDataReceived(chid ChannelID, link ipld.Link, size uint64, index int64, unique bool) error
	// OnDataQueued: the message goes out with the block; ErrPause pauses, another error cancels.
	OnDataQueued(chid ChannelID, link ipld.Link, size uint64, index int64, unique bool) (Message, error)
	OnDataSent(chid ChannelID, link ipld.Link, size uint64, index int64, unique bool) error
	// OnTransferQueued: a request was queued in the transport.
	OnTransferQueued(chid ChannelID)
	// OnRequestReceived: the response is sent in any case; ErrPause pauses, ErrResume resumes, another error ends.
	OnRequestReceived(chid ChannelID, msg Request) (Response, error)
	// OnChannelCompleted: all data was moved, or err says why not.
	OnChannelCompleted(chid ChannelID, err error) error
	// OnRequestCancelled: a request that we opened was cancelled by us.
	OnRequestCancelled(chid ChannelID, err error) error
	OnRequestDisconnected(chid ChannelID, err error) error
	OnSendDataError(chid ChannelID, err error) error
	OnReceiveDataError(chid ChannelID, err error) error
	// OnContextAugment puts the channel's trace into a context.
	OnContextAugment(chid ChannelID) func(context.Context) context.Context
}
