package ledger

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/filecoin-project/go-jsonrpc"
)

// Refusal is why a ledger did not take a transaction, as it travels over RPC: errors.Is tells which of the errors of this package it is.
type Refusal struct {
	Kind    string `json:"kind"`
	Message string `json:"message"`
}

// kind is a refusal that a client tells apart by its name.
type kind struct {
	name string
	err  error
}

// kinds are all of them, the more special ones first.
func kinds() []kind {
	return []kind{{"wrong-seq", ErrWrongSeq}, {"intent-reused", ErrIntentReused}, {"queue-full", ErrQueueFull}, {"refused", ErrRefused}}
}

// refusalOf makes a refusal of an error that is one; others stay as they are.
func refusalOf(err error) error {
	for _, k := range kinds() {
		if errors.Is(err, k.err) {
			return &Refusal{k.name, err.Error()}
		}
	}
	return err
}

// Error implements error.
func (r *Refusal) Error() string { return r.Message }

// Is reports whether the refusal is of the kind of target.
func (r *Refusal) Is(target error) bool {
	for _, k := range kinds() {
		if k.name == r.Kind {
			return errors.Is(k.err, target)
		}
	}
	return false
}

type plainRefusal Refusal

// MarshalJSON carries the refusal over RPC.
func (r *Refusal) MarshalJSON() ([]byte, error) { return json.Marshal((*plainRefusal)(r)) }

// UnmarshalJSON reads it back.
func (r *Refusal) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, (*plainRefusal)(r)) }

// rpcErrors registers the refusal with both ends.
func rpcErrors() jsonrpc.Errors {
	e := jsonrpc.NewErrors()
	e.Register(2000, new(*Refusal))
	return e
}

// tokenChecked is a transport that names the refusal of a token, which the RPC library knows as a text only.
type tokenChecked struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t tokenChecked) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(r)
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		_ = resp.Body.Close()
		return nil, ErrUnauthorised
	}
	return resp, err
}
