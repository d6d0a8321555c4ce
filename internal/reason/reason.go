// Package reason is the closed list of why something ended or was refused. A reason is set where the fault is seen, stored and
// sent as a value, and mapped here, in one table, to the exit code of the command line, to the side at fault, to a sentence for a
// person and to what to do next. No program reads an error's text: it switches on a reason.
package reason

import (
	"fmt"
	"iter"
)

// Reason is why something ended or was refused. Its number is stored in records and its name is sent to others: neither ever
// changes, and new reasons are added at the end. As an error it is its own sentence, and errors.Is finds it in an Error.
type Reason uint16

// The reasons. None is the absence of one; Unknown is a failure that nobody has named yet, or one named by a newer version.
const (
	None Reason = iota
	Unknown

	// How the program was called and configured.
	Usage
	ConfigUnknownKey
	ConfigValue
	DaemonAway
	HomeBusy
	HomeNewer
	PortBusy
	TokenMissing
	TokenUnknown
	TokenExpired
	TokenPermission
	TokenBudget

	// What is wanted is not there.
	NoProvider
	NoOffer
	RootUnknown
	PathUnknown
	RangeOutside
	NotAFile

	// The other side cannot be reached, or does not speak what is needed.
	PeerUnreachable
	PeerSilent
	PeerNotProvider
	TransportMissing

	// Price and money.
	PriceAbove
	BudgetUsed
	WalletShort
	DayBudget
	ExposureAbove

	// What a seller refuses.
	PriceBelowAsk
	PeerLimit
	NodeLimit
	PeerDebt
	PieceUnavailable

	// What the other side sent is wrong.
	HashMismatch
	BlockUnexpected
	BadVoucher
	Overasked
	DAGTooDeep
	TooManyLinks

	// A fault of this machine.
	PieceDamaged
	PieceMissing
	DiskFull
	DiskReserve
	MemoryLimit
	StoreFailed

	// The chain.
	LedgerAway
	LedgerRefused
	ChannelLost
	ChannelSettling

	// Deadlines that the other side missed.
	AcceptLate
	VoucherLate
	ClientLeft
	Idle
	Lifetime

	// Orders.
	ParkedStall
	ParkedLease
	ParkedRestart
	Cancelled
	Interrupted
	OutputExists
	OutputBusy
	AlreadyComplete

	// Beyond the list of the operations text: each is something that happens and fits none of the above.
	PeerRefused
	PeerFailed
	PeerCancelled
	DataMissing
	ParkedAsked
	TimedOut
	IDUnknown
	WalletLocked
	FilePermission
	PeerClaims
	DealLost
	StateRolledBack
	SettleWindow

	// What is wrong with an archive that is to be sold or imported.
	BlockTooLarge
	ArchiveIncomplete
	ArchiveRoot
	ArchiveJoined

	// What a command ends with that has no cause of its own among the above.
	VerificationFailed
	PartlyFailed
	NoLedger
	WalletInUse
	FileMissing
	FileChanged
	NotAnArchive
	KeyMissing

	// What becomes of a piece.
	PieceInUse

	count // keep last
)

// Blame is the side at fault, as seen from where the reason was set.
type Blame uint8

// The sides.
const (
	Nobody Blame = iota
	Ours
	Theirs
	Network
)

var blames = [...]string{Nobody: "nobody", Ours: "ours", Theirs: "theirs", Network: "network"}

// String is the name of the side.
func (b Blame) String() string {
	if int(b) < len(blames) {
		return blames[b]
	}
	return "nobody"
}

// Turned is the blame as the other side sees it: ours is theirs.
func (b Blame) Turned() Blame {
	switch b {
	case Ours:
		return Theirs
	case Theirs:
		return Ours
	}
	return b
}

// Exit codes of the command line.
const (
	ExitDone         = 0
	ExitOther        = 1
	ExitUsage        = 2
	ExitUnreachable  = 3
	ExitUnauthorised = 4
	ExitNotFound     = 5
	ExitFunds        = 6
	ExitRejected     = 7
	ExitVerification = 8
	ExitTimeout      = 9
	ExitInterrupted  = 130
)

// row is the row of a reason; one of an unknown number has that of Unknown.
func (r Reason) row() *row {
	if r < count {
		return &table[r]
	}
	return &table[Unknown]
}

// String is the name, as it is stored and sent: lower case words with hyphens. None has none.
func (r Reason) String() string { return r.row().name }

// Error is the sentence for a person.
func (r Reason) Error() string { return r.row().text }

// Next is what a person can do about it; it may be empty.
func (r Reason) Next() string { return r.row().next }

// Exit is the exit code of a command that ends for the reason.
func (r Reason) Exit() int { return r.row().exit }

// Blame is the side at fault, seen from where the reason was set.
func (r Reason) Blame() Blame { return r.row().blame }

// CanPass reports whether the same attempt may succeed later without anybody changing anything: a connection comes back, a line
// gets shorter. Retrying for any other reason repeats the failure, and what it cost.
func (r Reason) CanPass() bool { return r.row().passes }

// Parked reports whether nobody holds what it is about any more: nothing is done for it, and nothing of it has failed.
func (r Reason) Parked() bool {
	switch r {
	case ParkedStall, ParkedLease, ParkedRestart, ParkedAsked, Cancelled, Interrupted:
		return true
	}
	return false
}

// Number is the reason as it is stored.
func (r Reason) Number() uint64 { return uint64(r) }

// FromNumber is the reason that was stored; a number of a newer version is Unknown.
func FromNumber(n uint64) Reason {
	if n < uint64(count) {
		return Reason(n)
	}
	return Unknown
}

// Parse is the reason with a name. A name that is not in the list is Unknown, and false.
func Parse(name string) (Reason, bool) {
	for r := range All() {
		if table[r].name == name {
			return r, true
		}
	}
	return Unknown, false
}

// All are the reasons of the list, without None, in the order of their numbers.
func All() iter.Seq[Reason] {
	return func(yield func(Reason) bool) {
		for r := Unknown; r < count; r++ {
			if !yield(r) {
				return
			}
		}
	}
}

// MarshalText writes the name.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a name. One that is not in the list is of a newer version: Unknown, and no error.
func (r *Reason) UnmarshalText(b []byte) error {
	*r = None
	if len(b) > 0 {
		*r, _ = Parse(string(b))
	}
	return nil
}

// Errorf is an error with the reason and a sentence of its own. %w keeps a cause.
func (r Reason) Errorf(format string, args ...any) *Error {
	return &Error{Reason: r, err: fmt.Errorf(format, args...)}
}

// Wrap is an error with the reason and a cause, whose text it has; nil for a nil cause.
func (r Reason) Wrap(cause error) error {
	if cause == nil {
		return nil
	}
	return &Error{Reason: r, err: cause}
}
