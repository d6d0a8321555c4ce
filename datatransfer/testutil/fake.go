// Package testutil has what tests of embedders need: a voucher type, stubbed validators, and pairs of managers over
// real graphsync.
package testutil

import (
	"fmt"
	"io"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/wire"
)

// FakeDTType is a voucher and a voucher result.
type FakeDTType struct{ Data string }

// NewFakeDTType returns one.
func NewFakeDTType(data string) *FakeDTType { return &FakeDTType{data} }

// Type implements datatransfer.Registerable.
func (f *FakeDTType) Type() dt.TypeIdentifier { return "FakeDTType" }

func (f *FakeDTType) fields() []wire.Field { return []wire.Field{wire.Text("Data", &f.Data)} }

// MarshalCBOR writes a tuple of one.
func (f *FakeDTType) MarshalCBOR(w io.Writer) error { return wire.WriteTuple(w, f.fields()) }

// UnmarshalCBOR reads a tuple of one.
func (f *FakeDTType) UnmarshalCBOR(r io.Reader) error {
	return wire.ReadTuple(r, "FakeDTType", f.fields())
}

// Validator answers as its functions say; nil functions accept without a result.
type Validator struct {
	Push func(restart bool, chid dt.ChannelID, v dt.Voucher) (dt.VoucherResult, error)
	Pull func(restart bool, chid dt.ChannelID, v dt.Voucher) (dt.VoucherResult, error)
}

// ValidatePush implements datatransfer.RequestValidator.
func (s *Validator) ValidatePush(restart bool, chid dt.ChannelID, _ peer.ID, v dt.Voucher, _ cid.Cid, _ ipld.Node) (dt.VoucherResult, error) {
	if s.Push == nil {
		return nil, nil
	}
	return s.Push(restart, chid, v)
}

// ValidatePull implements datatransfer.RequestValidator.
func (s *Validator) ValidatePull(restart bool, chid dt.ChannelID, _ peer.ID, v dt.Voucher, _ cid.Cid, _ ipld.Node) (dt.VoucherResult, error) {
	if s.Pull == nil {
		return nil, nil
	}
	return s.Pull(restart, chid, v)
}

// Meter is a revalidator that asks for a voucher every Every bytes, and for a last one when Last is set. A voucher of
// "bad" is refused.
type Meter struct {
	Every uint64
	Last  bool

	mu     sync.Mutex
	unpaid uint64
}

// Fresh is a meter with the same settings that has counted nothing.
func (m *Meter) Fresh() *Meter { return &Meter{Every: m.Every, Last: m.Last} }

// Revalidate implements datatransfer.Revalidator.
func (m *Meter) Revalidate(_ dt.ChannelID, v dt.Voucher) (dt.VoucherResult, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v.(*FakeDTType).Data == "bad" {
		return NewFakeDTType("refused"), fmt.Errorf("bad voucher")
	}
	m.unpaid = 0
	return NewFakeDTType("paid"), dt.ErrResume
}

// OnPullDataSent implements datatransfer.Revalidator.
func (m *Meter) OnPullDataSent(_ dt.ChannelID, n uint64) (bool, dt.VoucherResult, error) {
	return m.count(n)
}

// OnPushDataReceived implements datatransfer.Revalidator.
func (m *Meter) OnPushDataReceived(_ dt.ChannelID, n uint64) (bool, dt.VoucherResult, error) {
	return m.count(n)
}

func (m *Meter) count(n uint64) (bool, dt.VoucherResult, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.unpaid += n; m.Every > 0 && m.unpaid >= m.Every {
		return true, NewFakeDTType("pay"), dt.ErrPause
	}
	return true, nil, nil
}

// OnComplete implements datatransfer.Revalidator.
func (m *Meter) OnComplete(dt.ChannelID) (bool, dt.VoucherResult, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.Last && m.unpaid > 0 {
		return true, NewFakeDTType("last"), dt.ErrPause
	}
	return true, NewFakeDTType("done"), nil
}
