// Package types has the type codes of the data-transfer messages.
package types

// MessageType is the `Type` member of a message.
type MessageType uint64

const (
	// NewMessage opens a channel, and answers that.
	NewMessage MessageType = iota
	// UpdateMessage pauses or resumes.
	UpdateMessage
	// CancelMessage cancels.
	CancelMessage
	// CompleteMessage says that the responder is done.
	CompleteMessage
	// VoucherMessage carries a further voucher.
	VoucherMessage
	// VoucherResultMessage carries the result of a voucher, or a demand.
	VoucherResultMessage
	// RestartMessage restarts, and answers that.
	RestartMessage
	// RestartExistingChannelRequestMessage asks the initiator to restart.
	RestartExistingChannelRequestMessage
)
