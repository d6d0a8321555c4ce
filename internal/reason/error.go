package reason

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// Error is an error with a reason. errors.As finds it, errors.Is(err, reason.BudgetUsed) tests it, and its cause is kept.
type Error struct {
	Reason Reason
	Hint   string // what to do next, more exact than the reason's own; may be empty
	Remote bool   // the other side set the reason: the blame turns
	Detail string // words of the other side, untrusted: shown quoted, never read by a program
	err    error  // sentence and cause; nil: the reason's own sentence
}

// Error is the sentence for a person.
func (e *Error) Error() string {
	if e.err == nil {
		return e.Reason.Error()
	}
	return e.err.Error()
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.err }

// Is reports whether target is the reason.
func (e *Error) Is(target error) bool {
	r, ok := target.(Reason)
	return ok && r == e.Reason
}

// WithHint says what to do next, more exactly than the reason does.
func (e *Error) WithHint(hint string) *Error {
	e.Hint = hint
	return e
}

// FromPeer notes that the other side said so, with its words.
func (e *Error) FromPeer(detail string) *Error {
	e.Remote, e.Detail = true, detail
	return e
}

// Blame is the side at fault as seen from here.
func (e *Error) Blame() Blame {
	if e.Remote {
		return e.Reason.Blame().Turned()
	}
	return e.Reason.Blame()
}

// Reasoned is an error of another package that knows its reason.
type Reasoned interface {
	error
	FailureReason() Reason
}

var _ Reasoned = (*Error)(nil)

// FailureReason implements Reasoned.
func (e *Error) FailureReason() Reason { return e.Reason }

// From is the reason of an error: the outermost that was set, else what the errors of the system stand for, else Unknown. It
// reads types and values, never a text. None for nil.
func From(err error) Reason {
	var set Reasoned
	var bare Reason
	switch {
	case err == nil:
		return None
	case errors.As(err, &set) && set.FailureReason() != None:
		return set.FailureReason()
	case errors.As(err, &bare):
		return bare
	case errors.Is(err, context.Canceled):
		return Interrupted
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return TimedOut
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return DiskFull
	case errors.Is(err, fs.ErrPermission):
		return FilePermission
	case errors.Is(err, fs.ErrNotExist):
		return FileMissing
	case errors.Is(err, syscall.EADDRINUSE):
		return PortBusy
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return PeerUnreachable
	}
	return Unknown
}

// BlameOf is the side at fault for an error.
func BlameOf(err error) Blame {
	var e *Error
	if errors.As(err, &e) {
		return e.Blame()
	}
	return From(err).Blame()
}

// ForExit is the general reason of an exit code, for what ends with it and has no reason of its own.
func ForExit(code int) Reason {
	switch code {
	case ExitDone:
		return None
	case ExitUsage:
		return Usage
	case ExitUnreachable:
		return PeerUnreachable
	case ExitUnauthorised:
		return TokenPermission
	case ExitNotFound:
		return IDUnknown
	case ExitFunds:
		return WalletShort
	case ExitRejected:
		return PeerRefused
	case ExitVerification:
		return VerificationFailed
	case ExitTimeout:
		return TimedOut
	case ExitInterrupted:
		return Interrupted
	}
	return Unknown
}
