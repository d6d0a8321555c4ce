package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/filecoin-project/go-jsonrpc"

	"github.com/cartage-dev/cartage/internal/reason"
)

// Codes of errors; they are the exit codes of the command line.
const (
	CodeOther        = reason.ExitOther
	CodeUsage        = reason.ExitUsage
	CodeUnreachable  = reason.ExitUnreachable
	CodeUnauthorised = reason.ExitUnauthorised
	CodeNotFound     = reason.ExitNotFound
	CodeFunds        = reason.ExitFunds
	CodeRejected     = reason.ExitRejected
	CodeVerification = reason.ExitVerification
	CodeTimeout      = reason.ExitTimeout
	CodeInterrupted  = reason.ExitInterrupted
)

// Error is an error with a code, a sentence, and what to do about it. Reason is one of Reasons, or empty where the code says all.
type Error struct {
	Code    int    `json:"code"`
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	Blame   string `json:"blame,omitempty"`  // ours, theirs, network or nobody
	Detail  string `json:"detail,omitempty"` // words of the other side: untrusted, print them quoted
	Spent   string `json:"spent,omitempty"`  // attoFIL that were spent before it failed
	Bytes   uint64 `json:"bytes,omitempty"`  // that had arrived before it failed
}

func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + "\n" + e.Hint
}

// FailureReason is the reason as the value that programs of this module switch on.
func (e *Error) FailureReason() reason.Reason {
	if e.Reason == "" {
		return reason.None
	}
	r, _ := reason.Parse(e.Reason)
	return r
}

var _ reason.Reasoned = (*Error)(nil)

// Class is what kind of failure an error is: errors.Is tells whether an Error is of it.
type Class int

// The classes that programs switch on.
const (
	ErrUnreachable  Class = CodeUnreachable
	ErrNotFound     Class = CodeNotFound
	ErrFunds        Class = CodeFunds
	ErrRejected     Class = CodeRejected
	ErrVerification Class = CodeVerification
	ErrTimeout      Class = CodeTimeout
	ErrInterrupted  Class = CodeInterrupted
)

// Error implements error.
func (c Class) Error() string {
	switch c {
	case ErrUnreachable:
		return "unreachable"
	case ErrNotFound:
		return "not found"
	case ErrFunds:
		return "too little money"
	case ErrRejected:
		return "rejected"
	case ErrVerification:
		return "verification failed"
	case ErrTimeout:
		return "timed out"
	case ErrInterrupted:
		return "interrupted"
	default:
		return fmt.Sprintf("exit code %d", int(c))
	}
}

// Is reports whether target is the reason of the error, or its class.
func (e *Error) Is(target error) bool {
	switch t := target.(type) {
	case Class:
		return e.Code == int(t)
	case reason.Reason:
		return t != reason.None && t == e.FailureReason()
	default:
		return false
	}
}

type plainError Error

// MarshalJSON carries the error over RPC.
func (e *Error) MarshalJSON() ([]byte, error) { return json.Marshal((*plainError)(e)) }

// UnmarshalJSON reads it back.
func (e *Error) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, (*plainError)(e)) }

// Errorf makes an Error. Its reason is that of the cause which it wraps, where both have one exit code, else the general one of the code.
func Errorf(code int, hint, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	r := reason.From(err)
	switch {
	case code == CodeOther:
		code = r.Exit() // it says nothing that the cause does not say better
	case r.Exit() != code:
		r = reason.ForExit(code)
	}
	return &Error{Code: code, Reason: r.String(), Message: err.Error(), Hint: hint, Blame: r.Blame().String()}
}

// ErrorOf is any error as an Error, nil for nil: with the reason that was set where the fault was seen, its exit code and its side
// at fault, and the next step.
func ErrorOf(err error) *Error {
	var e *Error
	if err == nil || errors.As(err, &e) {
		return e
	}
	r := reason.From(err)
	e = &Error{Code: r.Exit(), Reason: r.String(), Message: err.Error(), Blame: reason.BlameOf(err).String()}
	var told *reason.Error
	if r == reason.Interrupted && errors.Is(err, context.Canceled) {
		e.Message, e.Hint = r.Error(), r.Next() // what was cancelled in our code says nothing to a person
	}
	if errors.As(err, &told) {
		e.Hint, e.Detail = told.Hint, told.Detail
		if e.Hint == "" {
			e.Hint = r.Next()
		}
	}
	return e
}

// TotalSpent is what all deals of the retrieval's order have cost, in attoFIL.
func (r *Retrieval) TotalSpent() string {
	if r.OrderSpent != "" {
		return r.OrderSpent
	}
	return r.Spent
}

// Failure is why a retrieval that is over has not brought what was wanted, with what it cost; nil for one that has.
func (r *Retrieval) Failure() *Error {
	if r.OK {
		return nil
	}
	return &Error{Code: r.Code, Reason: r.Reason, Blame: r.Blame, Message: r.Message, Hint: r.Hint, Spent: r.TotalSpent(), Bytes: r.Received}
}

// CodeOf is the exit code of an error, 0 for nil.
func CodeOf(err error) int {
	if err == nil {
		return reason.ExitDone
	}
	return ErrorOf(err).Code
}

// ReasonInfo is what the list of reasons says of one.
type ReasonInfo struct {
	Name  string `json:"name"`
	Exit  int    `json:"exit"`
	Blame string `json:"blame"`
	Text  string `json:"text"`
	Next  string `json:"next"`
}

// Reasons is the closed list of reasons, in the order of their numbers.
func Reasons() []ReasonInfo {
	var out []ReasonInfo
	for r := range reason.All() {
		out = append(out, ReasonInfo{r.String(), r.Exit(), r.Blame().String(), r.Error(), r.Next()})
	}
	return out
}

// ErrorCode is the code of an Error over JSON-RPC.
const ErrorCode = 1000

// Errors registers the error type with both ends.
func Errors() jsonrpc.Errors {
	e := jsonrpc.NewErrors()
	e.Register(ErrorCode, new(*Error))
	return e
}
