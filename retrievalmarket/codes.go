package retrievalmarket

import "fmt"

// ClientEvent is an event of a deal on the client's side. The table of transitions is impl/clientstates.
type ClientEvent uint64

// The client's events. Values are positional.
const (
	ClientEventOpen ClientEvent = iota
	ClientEventWriteDealProposalErrored
	ClientEventDealProposed
	ClientEventDealRejected
	ClientEventDealNotFound
	ClientEventDealAccepted
	ClientEventProviderCancelled
	ClientEventUnknownResponseReceived
	ClientEventPaymentChannelErrored
	ClientEventAllocateLaneErrored
	ClientEventPaymentChannelCreateInitiated
	ClientEventPaymentChannelReady
	ClientEventPaymentChannelAddingFunds
	ClientEventPaymentChannelAddFundsErrored
	ClientEventLastPaymentRequested
	ClientEventAllBlocksReceived
	ClientEventPaymentRequested
	ClientEventUnsealPaymentRequested
	ClientEventBlocksReceived
	ClientEventSendFunds
	ClientEventFundsExpended
	ClientEventBadPaymentRequested
	ClientEventCreateVoucherFailed
	ClientEventWriteDealPaymentErrored
	ClientEventPaymentSent
	ClientEventComplete
	ClientEventDataTransferError
	ClientEventCancelComplete
	ClientEventEarlyTermination
	ClientEventCompleteVerified
	ClientEventLaneAllocated
	ClientEventVoucherShortfall
	ClientEventRecheckFunds
	ClientEventCancel
	ClientEventWaitForLastBlocks
	ClientEventPaymentChannelSkip
)

// ClientEvents names the events of the client.
var ClientEvents = map[ClientEvent]string{
	ClientEventOpen:                          "ClientEventOpen",
	ClientEventWriteDealProposalErrored:      "ClientEventWriteDealProposalErrored",
	ClientEventDealProposed:                  "ClientEventDealProposed",
	ClientEventDealRejected:                  "ClientEventDealRejected",
	ClientEventDealNotFound:                  "ClientEventDealNotFound",
	ClientEventDealAccepted:                  "ClientEventDealAccepted",
	ClientEventProviderCancelled:             "ClientEventProviderCancelled",
	ClientEventUnknownResponseReceived:       "ClientEventUnknownResponseReceived",
	ClientEventPaymentChannelErrored:         "ClientEventPaymentChannelErrored",
	ClientEventAllocateLaneErrored:           "ClientEventAllocateLaneErrored",
	ClientEventPaymentChannelCreateInitiated: "ClientEventPaymentChannelCreateInitiated",
	ClientEventPaymentChannelReady:           "ClientEventPaymentChannelReady",
	ClientEventPaymentChannelAddingFunds:     "ClientEventPaymentChannelAddingFunds",
	ClientEventPaymentChannelAddFundsErrored: "ClientEventPaymentChannelAddFundsErrored",
	ClientEventLastPaymentRequested:          "ClientEventLastPaymentRequested",
	ClientEventAllBlocksReceived:             "ClientEventAllBlocksReceived",
	ClientEventPaymentRequested:              "ClientEventPaymentRequested",
	ClientEventUnsealPaymentRequested:        "ClientEventUnsealPaymentRequested",
	ClientEventBlocksReceived:                "ClientEventBlocksReceived",
	ClientEventSendFunds:                     "ClientEventSendFunds",
	ClientEventFundsExpended:                 "ClientEventFundsExpended",
	ClientEventBadPaymentRequested:           "ClientEventBadPaymentRequested",
	ClientEventCreateVoucherFailed:           "ClientEventCreateVoucherFailed",
	ClientEventWriteDealPaymentErrored:       "ClientEventWriteDealPaymentErrored",
	ClientEventPaymentSent:                   "ClientEventPaymentSent",
	ClientEventComplete:                      "ClientEventComplete",
	ClientEventDataTransferError:             "ClientEventDataTransferError",
	ClientEventCancelComplete:                "ClientEventCancelComplete",
	ClientEventEarlyTermination:              "ClientEventEarlyTermination",
	ClientEventCompleteVerified:              "ClientEventCompleteVerified",
	ClientEventLaneAllocated:                 "ClientEventLaneAllocated",
	ClientEventVoucherShortfall:              "ClientEventVoucherShortfall",
	ClientEventRecheckFunds:                  "ClientEventRecheckFunds",
	ClientEventCancel:                        "ClientEventCancel",
	ClientEventWaitForLastBlocks:             "ClientEventWaitForLastBlocks",
	ClientEventPaymentChannelSkip:            "ClientEventPaymentChannelSkip",
}

// ProviderEvent is an event of a deal on the provider's side. The table of transitions is impl/providerstates.
type ProviderEvent uint64

// The provider's events. Values are positional.
const (
	ProviderEventOpen ProviderEvent = iota
	ProviderEventDealNotFound
	ProviderEventDealRejected
	ProviderEventDealAccepted
	ProviderEventBlockSent
	ProviderEventBlocksCompleted
	ProviderEventPaymentRequested
	ProviderEventSaveVoucherFailed
	ProviderEventPartialPaymentReceived
	ProviderEventPaymentReceived
	ProviderEventComplete
	ProviderEventUnsealError
	ProviderEventUnsealComplete
	ProviderEventDataTransferError
	ProviderEventCancelComplete
	ProviderEventCleanupComplete
	ProviderEventMultiStoreError
	ProviderEventClientCancelled
)

// ProviderEvents names the events of the provider.
var ProviderEvents = map[ProviderEvent]string{
	ProviderEventOpen:                   "ProviderEventOpen",
	ProviderEventDealNotFound:           "ProviderEventDealNotFound",
	ProviderEventDealRejected:           "ProviderEventDealRejected",
	ProviderEventDealAccepted:           "ProviderEventDealAccepted",
	ProviderEventBlockSent:              "ProviderEventBlockSent",
	ProviderEventBlocksCompleted:        "ProviderEventBlocksCompleted",
	ProviderEventPaymentRequested:       "ProviderEventPaymentRequested",
	ProviderEventSaveVoucherFailed:      "ProviderEventSaveVoucherFailed",
	ProviderEventPartialPaymentReceived: "ProviderEventPartialPaymentReceived",
	ProviderEventPaymentReceived:        "ProviderEventPaymentReceived",
	ProviderEventComplete:               "ProviderEventComplete",
	ProviderEventUnsealError:            "ProviderEventUnsealError",
	ProviderEventUnsealComplete:         "ProviderEventUnsealComplete",
	ProviderEventDataTransferError:      "ProviderEventDataTransferError",
	ProviderEventCancelComplete:         "ProviderEventCancelComplete",
	ProviderEventCleanupComplete:        "ProviderEventCleanupComplete",
	ProviderEventMultiStoreError:        "ProviderEventMultiStoreError",
	ProviderEventClientCancelled:        "ProviderEventClientCancelled",
}

// DealStatus is the state of a deal; the values are stored and travel in a DealResponse.
type DealStatus uint64

// The states of a deal, on both sides and on the wire. 31 to 34 are reserved.
const (
	DealStatusNew DealStatus = iota
	DealStatusUnsealing
	DealStatusUnsealed
	DealStatusWaitForAcceptance
	DealStatusPaymentChannelCreating
	DealStatusPaymentChannelAddingFunds
	DealStatusAccepted
	DealStatusFundsNeededUnseal
	DealStatusFailing
	DealStatusRejected
	DealStatusFundsNeeded
	DealStatusSendFunds
	DealStatusSendFundsLastPayment
	DealStatusOngoing
	DealStatusFundsNeededLastPayment
	DealStatusCompleted
	DealStatusDealNotFound
	DealStatusErrored
	DealStatusBlocksComplete
	DealStatusFinalizing
	DealStatusCompleting
	DealStatusCheckComplete
	DealStatusCheckFunds
	DealStatusInsufficientFunds
	DealStatusPaymentChannelAllocatingLane
	DealStatusCancelling
	DealStatusCancelled
	DealStatusRetryLegacy
	DealStatusWaitForAcceptanceLegacy
	DealStatusClientWaitingForLastBlocks
)

// DealStatusPaymentChannelAddingInitialFunds waits for the first funds of a deal on an existing payment channel.
const DealStatusPaymentChannelAddingInitialFunds DealStatus = 30

// DealStatuses names the states of a deal.
var DealStatuses = map[DealStatus]string{
	DealStatusNew:                              "DealStatusNew",
	DealStatusUnsealing:                        "DealStatusUnsealing",
	DealStatusUnsealed:                         "DealStatusUnsealed",
	DealStatusWaitForAcceptance:                "DealStatusWaitForAcceptance",
	DealStatusPaymentChannelCreating:           "DealStatusPaymentChannelCreating",
	DealStatusPaymentChannelAddingFunds:        "DealStatusPaymentChannelAddingFunds",
	DealStatusAccepted:                         "DealStatusAccepted",
	DealStatusFundsNeededUnseal:                "DealStatusFundsNeededUnseal",
	DealStatusFailing:                          "DealStatusFailing",
	DealStatusRejected:                         "DealStatusRejected",
	DealStatusFundsNeeded:                      "DealStatusFundsNeeded",
	DealStatusSendFunds:                        "DealStatusSendFunds",
	DealStatusSendFundsLastPayment:             "DealStatusSendFundsLastPayment",
	DealStatusOngoing:                          "DealStatusOngoing",
	DealStatusFundsNeededLastPayment:           "DealStatusFundsNeededLastPayment",
	DealStatusCompleted:                        "DealStatusCompleted",
	DealStatusDealNotFound:                     "DealStatusDealNotFound",
	DealStatusErrored:                          "DealStatusErrored",
	DealStatusBlocksComplete:                   "DealStatusBlocksComplete",
	DealStatusFinalizing:                       "DealStatusFinalizing",
	DealStatusCompleting:                       "DealStatusCompleting",
	DealStatusCheckComplete:                    "DealStatusCheckComplete",
	DealStatusCheckFunds:                       "DealStatusCheckFunds",
	DealStatusInsufficientFunds:                "DealStatusInsufficientFunds",
	DealStatusPaymentChannelAllocatingLane:     "DealStatusPaymentChannelAllocatingLane",
	DealStatusCancelling:                       "DealStatusCancelling",
	DealStatusCancelled:                        "DealStatusCancelled",
	DealStatusRetryLegacy:                      "DealStatusRetryLegacy",
	DealStatusWaitForAcceptanceLegacy:          "DealStatusWaitForAcceptanceLegacy",
	DealStatusClientWaitingForLastBlocks:       "DealStatusWaitingForLastBlocks",
	DealStatusPaymentChannelAddingInitialFunds: "DealStatusPaymentChannelAddingInitialFunds",
}

// String names the status, or says that it is unknown.
func (s DealStatus) String() string {
	if n, ok := DealStatuses[s]; ok {
		return n
	}
	return fmt.Sprintf("DealStatusUnknown - %d", uint64(s))
}

// String names the event.
func (e ClientEvent) String() string { return ClientEvents[e] }

// String names the event.
func (e ProviderEvent) String() string { return ProviderEvents[e] }

// IsTerminalError tells whether the deal has ended, or is about to end, without success (M-31).
func IsTerminalError(status DealStatus) bool {
	switch status {
	case DealStatusDealNotFound, DealStatusFailing, DealStatusRejected, DealStatusErrored, DealStatusCancelled:
		return true
	}
	return false
}

// IsTerminalSuccess tells whether the deal has ended well.
func IsTerminalSuccess(status DealStatus) bool { return status == DealStatusCompleted }

// IsTerminalStatus tells whether the deal has ended.
func IsTerminalStatus(status DealStatus) bool {
	return IsTerminalError(status) || IsTerminalSuccess(status)
}
