package reason

// row is what the table knows of a reason.
type row struct {
	name   string
	exit   int
	blame  Blame
	passes bool // CanPass
	text   string
	next   string
}

// table has a row for each reason: the only place where a reason becomes an exit code, a side at fault or a sentence.
var table = [count]row{
	None:    {},
	Unknown: {"unknown", ExitOther, Nobody, false, "it failed for a reason that has no name", "cartage doctor; the log has the cause"},

	Usage:            {"usage", ExitUsage, Nobody, false, "the command was called wrongly", "see its --help"},
	ConfigUnknownKey: {"config-unknown-key", ExitUsage, Nobody, false, "the configuration has a key that does not exist", "correct or remove the key in config.toml"},
	ConfigValue:      {"config-value", ExitUsage, Nobody, false, "the configuration has a value that is not allowed", "correct the value in config.toml"},
	DaemonAway:       {"daemon-away", ExitUnreachable, Nobody, true, "no daemon runs on this home", "start it: cartage daemon"},
	HomeBusy:         {"home-busy", ExitOther, Nobody, true, "another process has the home open", "stop it, or use another --home"},
	HomeNewer:        {"home-newer", ExitOther, Nobody, false, "the home was made by a newer version", "use that version"},
	PortBusy:         {"port-busy", ExitOther, Nobody, true, "another process listens on the port", "choose another address in network.listen"},
	TokenMissing:     {"token-missing", ExitUnauthorised, Nobody, false, "the call has no token", "name it with --token-file"},
	TokenUnknown:     {"token-unknown", ExitUnauthorised, Nobody, false, "the token is not known", "cartage token create"},
	TokenExpired:     {"token-expired", ExitUnauthorised, Nobody, false, "the token has expired", "cartage token create"},
	TokenPermission:  {"token-permission", ExitUnauthorised, Nobody, false, "the token does not permit this", "cartage token create --perm"},
	TokenBudget:      {"token-budget", ExitFunds, Nobody, false, "the budget of the token is used up", "cartage token list says what is left"},

	NoProvider:   {"no-provider", ExitNotFound, Nobody, true, "no provider is known", "name one with --provider"},
	NoOffer:      {"no-offer", ExitNotFound, Nobody, true, "no provider offers it", "ask others with --provider"},
	RootUnknown:  {"root-unknown", ExitNotFound, Nobody, false, "the provider does not have the root", "ask another provider"},
	PathUnknown:  {"path-unknown", ExitNotFound, Nobody, false, "nothing is at that path", "cartage ls CID lists what is there"},
	RangeOutside: {"range-outside", ExitNotFound, Nobody, false, "the range lies outside the file", "cartage ls CID says the size"},
	NotAFile:     {"not-a-file", ExitNotFound, Nobody, false, "it is not a file", "write it to a folder with -o"},

	PeerUnreachable:  {"peer-unreachable", ExitUnreachable, Network, true, "the other side cannot be reached", "check its address, then cartage deals resume ID"},
	PeerSilent:       {"peer-silent", ExitTimeout, Network, true, "the other side does not answer", "cartage deals resume ID goes on"},
	PeerNotProvider:  {"peer-not-provider", ExitUnreachable, Theirs, false, "the peer is not a provider", "it starts with cartage daemon --provide"},
	TransportMissing: {"transport-missing", ExitRejected, Theirs, false, "the other side does not speak the transport", "use --transport auto"},

	PriceAbove:    {"price-above", ExitFunds, Nobody, false, "the price is above what was allowed", "allow it with --budget"},
	BudgetUsed:    {"budget-used", ExitFunds, Nobody, false, "the budget of the order is used up", "cartage deals resume ID --budget AMOUNT"},
	WalletShort:   {"wallet-short", ExitFunds, Nobody, false, "the wallet has too little money", "put money into it; on a development ledger: cartage faucet"},
	DayBudget:     {"day-budget", ExitFunds, Nobody, true, "the budget of the day is used up", "go on tomorrow, or raise limits.day_budget"},
	ExposureAbove: {"exposure-above", ExitRejected, Nobody, false, "the payment interval is larger than what may be at risk", "allow it with --max-exposure"},

	PriceBelowAsk:    {"price-below-ask", ExitRejected, Theirs, false, "the proposal is below the asked price", "ask for a new offer"},
	PeerLimit:        {"peer-limit", ExitRejected, Theirs, true, "the peer has as much in progress as one peer may", "go on later"},
	NodeLimit:        {"node-limit", ExitRejected, Theirs, true, "the node has as much in progress as it takes", "go on later"},
	PeerDebt:         {"peer-debt", ExitRejected, Theirs, false, "the peer owes for earlier deals", "pay them; the provider forgives with cartage peers forgive"},
	PieceUnavailable: {"piece-unavailable", ExitRejected, Theirs, false, "the piece is not available now", "ask another provider"},

	HashMismatch:    {"hash-mismatch", ExitVerification, Theirs, false, "a block does not have the hash of its CID", "ask another provider"},
	BlockUnexpected: {"block-unexpected", ExitVerification, Theirs, false, "a block came that was not asked for", "ask another provider"},
	BadVoucher:      {"bad-voucher", ExitRejected, Theirs, false, "a voucher is not valid", "the deal's message says which rule it broke"},
	Overasked:       {"overasked", ExitRejected, Theirs, false, "the provider asked for more than was due", "ask another provider"},
	DAGTooDeep:      {"dag-too-deep", ExitRejected, Theirs, false, "the DAG is deeper than the limit", "ask for a part of it with --path, or another provider"},
	TooManyLinks:    {"too-many-links", ExitRejected, Theirs, false, "the links of the DAG lead through its blocks in too many ways", "ask for a part of it with --path, or another provider"},

	PieceDamaged: {"piece-damaged", ExitOther, Ours, false, "a piece is damaged", "cartage dagstore doctor"},
	PieceMissing: {"piece-missing", ExitOther, Ours, false, "the file of a piece is not there", "cartage dagstore doctor"},
	DiskFull:     {"disk-full", ExitOther, Ours, false, "the disk is full", "free some room"},
	DiskReserve:  {"disk-reserve", ExitOther, Ours, false, "too little of the disk is free", "free some room"},
	MemoryLimit:  {"memory-limit", ExitOther, Ours, true, "too much memory is in use", "go on later, or raise limits.memory_node"},
	StoreFailed:  {"store-failed", ExitOther, Ours, false, "a store of this home failed", "restore a backup"},

	LedgerAway:      {"ledger-away", ExitUnreachable, Network, true, "the ledger does not answer", "check that it runs: cartage ledger serve"},
	LedgerRefused:   {"ledger-refused", ExitOther, Ours, false, "the ledger refused", "the message says why"},
	ChannelLost:     {"channel-lost", ExitOther, Ours, false, "the payment channel is gone", "the next deal opens another"},
	ChannelSettling: {"channel-settling", ExitRejected, Ours, true, "the payment channel is settling", "the next deal opens another"},

	AcceptLate:  {"accept-late", ExitTimeout, Theirs, true, "the proposal was not answered in time", "cartage deals resume ID"},
	VoucherLate: {"voucher-late", ExitTimeout, Theirs, false, "a payment was not made in time", "the client resumes its order"},
	ClientLeft:  {"client-left", ExitTimeout, Theirs, false, "the client left before it had paid", "the client resumes its order"},
	Idle:        {"idle", ExitTimeout, Theirs, true, "nothing happened for too long", "cartage deals resume ID"},
	Lifetime:    {"lifetime", ExitTimeout, Theirs, false, "the deal took longer than a deal may", "cartage deals resume ID"},

	ParkedStall:     {"parked-stall", ExitTimeout, Nobody, true, "there was no progress for too long: the order is parked", "cartage deals resume ID"},
	ParkedLease:     {"parked-lease", ExitDone, Nobody, false, "nobody waits for the order any more: it is parked", "cartage deals resume ID"},
	ParkedRestart:   {"parked-restart", ExitDone, Nobody, false, "the node was stopped: the order is parked", "cartage deals resume ID"},
	Cancelled:       {"cancelled", ExitDone, Nobody, false, "it was cancelled", "the same command again pays only for what is missing"},
	Interrupted:     {"interrupted", ExitInterrupted, Nobody, false, "it was interrupted", "cartage deals resume ID, or the same command again"},
	OutputExists:    {"output-exists", ExitOther, Nobody, false, "something is at the output already", "replace it with --force"},
	OutputBusy:      {"output-busy", ExitOther, Nobody, true, "another order writes to the output", "wait for it, or name another -o"},
	AlreadyComplete: {"already-complete", ExitDone, Nobody, false, "it is complete already", ""},

	PeerRefused:     {"peer-refused", ExitRejected, Theirs, false, "the other side refused", "its own words are beside this; ask another provider"},
	PeerFailed:      {"peer-failed", ExitRejected, Theirs, false, "the other side failed", "its own words are beside this; ask another provider"},
	PeerCancelled:   {"peer-cancelled", ExitRejected, Theirs, false, "the other side cancelled", "ask it, or another provider"},
	DataMissing:     {"data-missing", ExitRejected, Theirs, false, "the provider does not have all of it", "ask another provider"},
	ParkedAsked:     {"parked-asked", ExitDone, Nobody, false, "the order was parked", "cartage deals resume ID"},
	TimedOut:        {"timed-out", ExitTimeout, Nobody, true, "it took too long", "try again"},
	IDUnknown:       {"id-unknown", ExitNotFound, Nobody, false, "there is nothing with that name here", "the list of the same verb has the names"},
	WalletLocked:    {"wallet-locked", ExitUnauthorised, Nobody, false, "the wallet needs its pass phrase", "name the file that holds it with --wallet-passphrase-file"},
	FilePermission:  {"file-permission", ExitUnauthorised, Nobody, false, "a file may not be read or written by this user", "change its owner or mode"},
	DealLost:        {"deal-lost", ExitRejected, Theirs, true, "the other side does not know the deal any more", "cartage deals resume ID makes another"},
	StateRolledBack: {"state-rolled-back", ExitOther, Ours, false, "what was acknowledged is not in a store of this home any more", "restore a backup, then cartage paych restored; a ledger: cartage ledger repair --from-log"},
	PeerClaims:      {"peer-claims", ExitRejected, Theirs, false, "what the other side says contradicts itself", "ask another provider"},

	SettleWindow:       {"settle-window", ExitRejected, Ours, false, "the settle window of the chain is too short for a payee to be safe", "use a ledger with a longer one: cartage ledger init --settle-delay; the provider sets ledger.min_settle_window"},
	BlockTooLarge:      {"block-too-large", ExitOther, Ours, false, "a block is larger than can be sent", "make the data anew in smaller blocks: cartage provide FILE, or cartage generate-car"},
	ArchiveIncomplete:  {"archive-incomplete", ExitOther, Ours, false, "the archive does not hold the whole DAG of its root", "complete it, or sell what there is with --partial"},
	ArchiveRoot:        {"archive-root", ExitOther, Ours, false, "the archive does not say which of its blocks is the root", "name it with --root CID"},
	VerificationFailed: {"verification-failed", ExitVerification, Nobody, false, "what was checked is not what it should be", "the message says what differs"},
	PartlyFailed:       {"partly-failed", ExitOther, Nobody, false, "some of it failed", "each failure is told above; the same command again does what is missing"},
	NoLedger:           {"no-ledger", ExitFunds, Nobody, false, "the node has no ledger, and can neither pay nor be paid", "cartage init --ledger URL"},
	KeyMissing:         {"key-missing", ExitOther, Ours, false, "the wallet does not have the key", "cartage wallet list shows those it has; cartage wallet import takes another"},
	FileMissing:        {"file-missing", ExitOther, Nobody, false, "a file is not there", "name one that is"},
	FileChanged:        {"file-changed", ExitOther, Nobody, false, "a file is not what it was", "put it back as it was, or import it again"},
	NotAnArchive:       {"not-an-archive", ExitOther, Nobody, false, "the file is no CAR archive", "other files go under any name that does not end in .car: cartage provide FILE"},
	WalletInUse:        {"wallet-in-use", ExitRejected, Nobody, false, "a payment channel needs the key", "cartage paych list says which; settle and collect it first"},

	ArchiveJoined: {"archive-joined", ExitOther, Ours, false, "the file holds another archive behind the first", "split it: each archive is a piece of its own"},

	PieceInUse: {"piece-in-use", ExitRejected, Nobody, true, "somebody reads the piece", "try again when its deals have ended: cartage deals"},
}
