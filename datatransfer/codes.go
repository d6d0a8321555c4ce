package datatransfer

// EventCode names an event. The values are positional and never stored.
type EventCode int

const (
	// Open: a channel was opened.
	Open EventCode = iota
	// Accept: the responder accepted.
	Accept
	// Restart: the channel was restarted.
	Restart
	// DataReceived: a block arrived, new or repeated.
	DataReceived
	// DataSent: a block was sent.
	DataSent
	// Cancel: one side cancelled.
	Cancel
	// Error: the transfer failed.
	Error
	// CleanupComplete: everything of the channel was freed; always the last event.
	CleanupComplete
	// NewVoucher: a further voucher was sent or received.
	NewVoucher
	// NewVoucherResult: a result was sent or received.
	NewVoucherResult
	// PauseInitiator: the initiator paused.
	PauseInitiator
	// ResumeInitiator: the initiator resumed.
	ResumeInitiator
	// PauseResponder: the responder paused.
	PauseResponder
	// ResumeResponder: the responder resumed.
	ResumeResponder
	// FinishTransfer: the initiator has all data through.
	FinishTransfer
	// ResponderCompletes: the responder said that it is done.
	ResponderCompletes
	// ResponderBeginsFinalization: the responder is done and wants a last voucher.
	ResponderBeginsFinalization
	// BeginFinalizing: this responder waits for a last voucher.
	BeginFinalizing
	// Disconnected: a message could not be delivered, or the peer went away.
	Disconnected
	// Complete: this responder is done.
	Complete
	// CompleteCleanupOnRestart: a restart found the channel in cleanup.
	CompleteCleanupOnRestart
	// DataQueued: a block was queued for sending.
	DataQueued
	// DataQueuedProgress: a block was queued for the first time.
	DataQueuedProgress
	// DataSentProgress: a block was sent for the first time.
	DataSentProgress
	// DataReceivedProgress: a block arrived for the first time.
	DataReceivedProgress
	// RequestTimedOut: is deprecated and never fired.
	RequestTimedOut
	// SendDataError: the transport could not send.
	SendDataError
	// ReceiveDataError: the transport could not receive.
	ReceiveDataError
	// TransferRequestQueued: the transport queued a request.
	TransferRequestQueued
	// RequestCancelled: a request was cancelled by its opener.
	RequestCancelled
	// Opened: a request for data was sent.
	Opened
)

// Events names the event codes.
var Events = map[EventCode]string{
	Open:                        "Open",
	Accept:                      "Accept",
	Restart:                     "Restart",
	DataReceived:                "DataReceived",
	DataSent:                    "DataSent",
	Cancel:                      "Cancel",
	Error:                       "Error",
	CleanupComplete:             "CleanupComplete",
	NewVoucher:                  "NewVoucher",
	NewVoucherResult:            "NewVoucherResult",
	PauseInitiator:              "PauseInitiator",
	ResumeInitiator:             "ResumeInitiator",
	PauseResponder:              "PauseResponder",
	ResumeResponder:             "ResumeResponder",
	FinishTransfer:              "FinishTransfer",
	ResponderCompletes:          "ResponderCompletes",
	ResponderBeginsFinalization: "ResponderBeginsFinalization",
	BeginFinalizing:             "BeginFinalizing",
	Disconnected:                "Disconnected",
	Complete:                    "Complete",
	CompleteCleanupOnRestart:    "CompleteCleanupOnRestart",
	DataQueued:                  "DataQueued",
	DataQueuedProgress:          "DataQueuedProgress",
	DataSentProgress:            "DataSentProgress",
	DataReceivedProgress:        "DataReceivedProgress",
	RequestTimedOut:             "RequestTimedOut",
	SendDataError:               "SendDataError",
	ReceiveDataError:            "ReceiveDataError",
	TransferRequestQueued:       "TransferRequestQueued",
	RequestCancelled:            "RequestCancelled",
	Opened:                      "Opened",
}

// Status is the state of a channel. The values are stored.
type Status uint64

const (
	// Requested: not accepted yet.
	Requested Status = iota
	// Ongoing: data moves.
	Ongoing
	// TransferFinished: the initiator has all data through and waits for the responder.
	TransferFinished
	// ResponderCompleted: the responder is done, our data is not through yet.
	ResponderCompleted
	// Finalizing: the responder waits for the last voucher.
	Finalizing
	// Completing: cleanup after success.
	Completing
	// Completed: success.
	Completed
	// Failing: cleanup after an error.
	Failing
	// Failed: ended with an error.
	Failed
	// Cancelling: cleanup after a cancel.
	Cancelling
	// Cancelled: ended by a cancel.
	Cancelled
	// InitiatorPaused: only the initiator can resume.
	InitiatorPaused
	// ResponderPaused: only the responder can resume.
	ResponderPaused
	// BothPaused: both have to resume.
	BothPaused
	// ResponderFinalizing: the responder wants a last voucher.
	ResponderFinalizing
	// ResponderFinalizingTransferFinished: the responder wants a last voucher and our data is through.
	ResponderFinalizingTransferFinished
	// ChannelNotFoundError: is only an answer of TransferChannelStatus.
	ChannelNotFoundError
)

// Statuses names the statuses.
var Statuses = map[Status]string{
	Requested:                           "Requested",
	Ongoing:                             "Ongoing",
	TransferFinished:                    "TransferFinished",
	ResponderCompleted:                  "ResponderCompleted",
	Finalizing:                          "Finalizing",
	Completing:                          "Completing",
	Completed:                           "Completed",
	Failing:                             "Failing",
	Failed:                              "Failed",
	Cancelling:                          "Cancelling",
	Cancelled:                           "Cancelled",
	InitiatorPaused:                     "InitiatorPaused",
	ResponderPaused:                     "ResponderPaused",
	BothPaused:                          "BothPaused",
	ResponderFinalizing:                 "ResponderFinalizing",
	ResponderFinalizingTransferFinished: "ResponderFinalizingTransferFinished",
	ChannelNotFoundError:                "ChannelNotFoundError",
}
