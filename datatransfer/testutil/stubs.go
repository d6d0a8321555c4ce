package testutil

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
)

// answer is what a stub gives; expected says that it has to be asked, used that it was.
type answer struct {
	result         dt.VoucherResult
	err            error
	expected, used bool
}

func (a *answer) give() (dt.VoucherResult, error) {
	a.used = true
	return a.result, a.err
}

// StubbedValidator is a RequestValidator with fixed answers.
type StubbedValidator struct {
	mu         sync.Mutex
	push, pull answer
	// Vouchers are those that it was asked about.
	vouchers []dt.Voucher
}

var _ dt.RequestValidator = (*StubbedValidator)(nil)

// NewStubbedValidator returns one that accepts everything.
func NewStubbedValidator() *StubbedValidator { return &StubbedValidator{} }

// StubPush sets the answer to pushes.
func (s *StubbedValidator) StubPush(r dt.VoucherResult, err error) { s.set(&s.push, r, err, false) }

// StubPull sets the answer to pulls.
func (s *StubbedValidator) StubPull(r dt.VoucherResult, err error) { s.set(&s.pull, r, err, false) }

// ExpectPush sets the answer to pushes; one has to come.
func (s *StubbedValidator) ExpectPush(r dt.VoucherResult, err error) { s.set(&s.push, r, err, true) }

// ExpectPull sets the answer to pulls; one has to come.
func (s *StubbedValidator) ExpectPull(r dt.VoucherResult, err error) { s.set(&s.pull, r, err, true) }

func (s *StubbedValidator) set(a *answer, r dt.VoucherResult, err error, expected bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*a = answer{r, err, expected, false}
}

// VerifyExpectations fails a test if something expected was not asked.
func (s *StubbedValidator) VerifyExpectations(t testing.TB) {
	s.mu.Lock()
	defer s.mu.Unlock()
	verify(t, map[string]answer{"ValidatePush": s.push, "ValidatePull": s.pull})
}

func verify(t testing.TB, all map[string]answer) {
	t.Helper()
	for name, a := range all {
		if a.expected && !a.used {
			t.Errorf("%s was expected to be called", name)
		}
	}
}

// Vouchers are those that the validator was asked about, in order.
func (s *StubbedValidator) Vouchers() []dt.Voucher {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]dt.Voucher(nil), s.vouchers...)
}

func (s *StubbedValidator) ask(a *answer, v dt.Voucher) (dt.VoucherResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.vouchers = append(s.vouchers, v)
	return a.give()
}

// ValidatePush implements RequestValidator.
func (s *StubbedValidator) ValidatePush(_ bool, _ dt.ChannelID, _ peer.ID, v dt.Voucher, _ cid.Cid, _ ipld.Node) (dt.VoucherResult, error) {
	return s.ask(&s.push, v)
}

// ValidatePull implements RequestValidator.
func (s *StubbedValidator) ValidatePull(_ bool, _ dt.ChannelID, _ peer.ID, v dt.Voucher, _ cid.Cid, _ ipld.Node) (dt.VoucherResult, error) {
	return s.ask(&s.pull, v)
}

// StubbedRevalidator is a Revalidator with fixed answers; what has none is not handled.
type StubbedRevalidator struct {
	mu                                         sync.Mutex
	pushCheck, pullCheck, complete, revalidate *answer
}

var _ dt.Revalidator = (*StubbedRevalidator)(nil)

// NewStubbedRevalidator returns one that handles nothing.
func NewStubbedRevalidator() *StubbedRevalidator { return &StubbedRevalidator{} }

func (s *StubbedRevalidator) set(a **answer, r dt.VoucherResult, err error, expected bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*a = &answer{r, err, expected, false}
}

// StubCheckPush sets the answer to received blocks of a push.
func (s *StubbedRevalidator) StubCheckPush(r dt.VoucherResult, err error) {
	s.set(&s.pushCheck, r, err, false)
}

// StubCheckPull sets the answer to queued blocks of a pull.
func (s *StubbedRevalidator) StubCheckPull(r dt.VoucherResult, err error) {
	s.set(&s.pullCheck, r, err, false)
}

// StubComplete sets the answer at the end.
func (s *StubbedRevalidator) StubComplete(r dt.VoucherResult, err error) {
	s.set(&s.complete, r, err, false)
}

// StubRevalidate sets the answer to vouchers.
func (s *StubbedRevalidator) StubRevalidate(r dt.VoucherResult, err error) {
	s.set(&s.revalidate, r, err, false)
}

// ExpectComplete sets the answer at the end, which has to come.
func (s *StubbedRevalidator) ExpectComplete(r dt.VoucherResult, err error) {
	s.set(&s.complete, r, err, true)
}

// ExpectRevalidate sets the answer to vouchers; one has to come.
func (s *StubbedRevalidator) ExpectRevalidate(r dt.VoucherResult, err error) {
	s.set(&s.revalidate, r, err, true)
}

// VerifyExpectations fails a test if something expected was not asked.
func (s *StubbedRevalidator) VerifyExpectations(t testing.TB) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string]answer{}
	for name, a := range map[string]*answer{
		"OnPushDataReceived": s.pushCheck, "OnPullDataSent": s.pullCheck, "OnComplete": s.complete, "Revalidate": s.revalidate,
	} {
		if a != nil {
			all[name] = *a
		}
	}
	verify(t, all)
}

func (s *StubbedRevalidator) ask(a **answer) (bool, dt.VoucherResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if *a == nil {
		return false, nil, nil
	}
	r, err := (*a).give()
	return true, r, err
}

// Revalidate implements Revalidator.
func (s *StubbedRevalidator) Revalidate(chid dt.ChannelID, _ dt.Voucher) (dt.VoucherResult, error) {
	handled, r, err := s.ask(&s.revalidate)
	if !handled {
		return nil, fmt.Errorf("channel %s: %w", chid, errNoStub)
	}
	return r, err
}

var errNoStub = errors.New("no answer to vouchers was set")

// OnPullDataSent implements Revalidator.
func (s *StubbedRevalidator) OnPullDataSent(dt.ChannelID, uint64) (bool, dt.VoucherResult, error) {
	return s.ask(&s.pullCheck)
}

// OnPushDataReceived implements Revalidator.
func (s *StubbedRevalidator) OnPushDataReceived(dt.ChannelID, uint64) (bool, dt.VoucherResult, error) {
	return s.ask(&s.pushCheck)
}

// OnComplete implements Revalidator.
func (s *StubbedRevalidator) OnComplete(dt.ChannelID) (bool, dt.VoucherResult, error) {
	return s.ask(&s.complete)
}
