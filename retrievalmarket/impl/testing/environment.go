// Package testing has what tests of the provider's entry functions need: an environment whose methods answer errors that a test sets, and
// a decider that takes everything.
package testing

import (
	"context"
	"sync"

	dt "github.com/cartage-dev/cartage/datatransfer"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/providerstates"
)

// TestProviderDealEnvironment is a providerstates.ProviderDealEnvironment. The errors are set before it is used; it is safe for
// concurrent use then.
type TestProviderDealEnvironment struct {
	UnsealError             error
	ReleaseError            error
	ResumeDataTransferError error
	CloseDataTransferError  error

	node rm.RetrievalProviderNode

	mu       sync.Mutex
	resumed  []dt.ChannelID
	closed   []dt.ChannelID
	unsealed []rm.DealID
	released []rm.DealID
}

var _ providerstates.ProviderDealEnvironment = (*TestProviderDealEnvironment)(nil)

// NewTestProviderDealEnvironment returns an environment in which everything works.
func NewTestProviderDealEnvironment(node rm.RetrievalProviderNode) *TestProviderDealEnvironment {
	return &TestProviderDealEnvironment{node: node}
}

// Node is the node that the environment was made with.
func (e *TestProviderDealEnvironment) Node() rm.RetrievalProviderNode { return e.node }

// Unseal implements providerstates.ProviderDealEnvironment.
func (e *TestProviderDealEnvironment) Unseal(_ context.Context, d rm.ProviderDealState) error {
	note(e, &e.unsealed, d.ID)
	return e.UnsealError
}

// Release implements providerstates.ProviderDealEnvironment.
func (e *TestProviderDealEnvironment) Release(d rm.ProviderDealState) error {
	note(e, &e.released, d.ID)
	return e.ReleaseError
}

// ResumeDataTransfer implements providerstates.ProviderDealEnvironment.
func (e *TestProviderDealEnvironment) ResumeDataTransfer(_ context.Context, chid dt.ChannelID) error {
	note(e, &e.resumed, chid)
	return e.ResumeDataTransferError
}

// CloseDataTransfer implements providerstates.ProviderDealEnvironment.
func (e *TestProviderDealEnvironment) CloseDataTransfer(_ context.Context, chid dt.ChannelID) error {
	note(e, &e.closed, chid)
	return e.CloseDataTransferError
}

func note[T any](e *TestProviderDealEnvironment, list *[]T, v T) {
	e.mu.Lock()
	defer e.mu.Unlock()
	*list = append(*list, v)
}

func noted[T any](e *TestProviderDealEnvironment, list *[]T) []T {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]T(nil), *list...)
}

// Unsealed lists the deals whose pieces were asked for.
func (e *TestProviderDealEnvironment) Unsealed() []rm.DealID { return noted(e, &e.unsealed) }

// Released lists the deals whose pieces were given back.
func (e *TestProviderDealEnvironment) Released() []rm.DealID { return noted(e, &e.released) }

// Resumed lists the channels that were resumed.
func (e *TestProviderDealEnvironment) Resumed() []dt.ChannelID { return noted(e, &e.resumed) }

// Closed lists the channels that were closed.
func (e *TestProviderDealEnvironment) Closed() []dt.ChannelID { return noted(e, &e.closed) }

// TrivialTestDecider accepts every deal.
func TrivialTestDecider(context.Context, rm.ProviderDealState) (accept bool, reason string, err error) {
	return true, "", nil
}
