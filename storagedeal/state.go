package storagedeal

// State is the state of a storage deal as peers tell it to each other (node spec 4.3).
type State uint64

// The states.
const (
	StorageDealUnknown State = iota
	StorageDealProposalNotFound
	StorageDealProposalRejected
	StorageDealProposalAccepted
	StorageDealStaged
	StorageDealSealing
	StorageDealFinalizing
	StorageDealActive
	StorageDealExpired
	StorageDealSlashed
	StorageDealRejecting
	StorageDealFailing
	StorageDealFundsReserved
	StorageDealCheckForAcceptance
	StorageDealValidating
	StorageDealAcceptWait
	StorageDealStartDataTransfer
	StorageDealTransferring
	StorageDealWaitingForData
	StorageDealVerifyData
	StorageDealReserveProviderFunds
	StorageDealReserveClientFunds
	StorageDealProviderFunding
	StorageDealClientFunding
	StorageDealPublish
	StorageDealPublishing
	StorageDealError
	StorageDealProviderTransferAwaitRestart
	StorageDealClientTransferRestart
	StorageDealAwaitingPreCommit
	StorageDealTransferQueued
)

// InSealing tells whether the data of a deal was handed to the sealing side and has not left it: its piece should have a shard.
func (s State) InSealing() bool {
	return s == StorageDealAwaitingPreCommit || s == StorageDealSealing || s == StorageDealFinalizing || s == StorageDealActive
}

// String is the name of the state.
func (s State) String() string {
	names := [...]string{
		"Unknown", "ProposalNotFound", "ProposalRejected", "ProposalAccepted", "Staged", "Sealing", "Finalizing", "Active", "Expired", "Slashed",
		"Rejecting", "Failing", "FundsReserved", "CheckForAcceptance", "Validating", "AcceptWait", "StartDataTransfer", "Transferring",
		"WaitingForData", "VerifyData", "ReserveProviderFunds", "ReserveClientFunds", "ProviderFunding", "ClientFunding", "Publish", "Publishing",
		"Error", "ProviderTransferAwaitRestart", "ClientTransferRestart", "AwaitingPreCommit", "TransferQueued",
	}
	if s < State(len(names)) {
		return "StorageDeal" + names[s]
	}
	return "StorageDealUnknown"
}
