package storagedeal

import (
	"context"
	"errors"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/port"
	"github.com/cartage-dev/cartage/internal/wire"
	"github.com/cartage-dev/cartage/shared"
)

// DataTransferVoucher justifies the push of the data of an online deal: it names the signed proposal. Deployed peers write it as a
// tuple, in every version.
type DataTransferVoucher struct{ Proposal cid.Cid }

// Type implements datatransfer.Voucher.
func (*DataTransferVoucher) Type() dt.TypeIdentifier { return "StorageDataTransferVoucher" }

func (v *DataTransferVoucher) fields() []wire.Field {
	return []wire.Field{wire.Cid("Proposal", &v.Proposal)}
}

// MarshalCBOR writes the tuple.
func (v *DataTransferVoucher) MarshalCBOR(w io.Writer) error { return wire.WriteTuple(w, v.fields()) }

// UnmarshalCBOR reads the tuple.
func (v *DataTransferVoucher) UnmarshalCBOR(r io.Reader) error {
	return wire.ReadTuple(r, string(v.Type()), v.fields())
}

// proposalOf is the proposal that a voucher names, if it is one of ours.
func proposalOf(v dt.Voucher) (cid.Cid, bool) {
	s, ok := v.(*DataTransferVoucher)
	if !ok || !s.Proposal.Defined() {
		return cid.Undef, false
	}
	return s.Proposal, true
}

// Transfers moves the data of online deals between the sides of one node and those of others. A node has one, made before its
// data-transfer manager starts; a client, a provider or both join it before that too.
type Transfers struct {
	dt       dt.Manager
	self     peer.ID
	provider *Provider
	pusher   *Pusher
	unsub    dt.Unsubscribe
}

// NewTransfers registers the voucher of storage deals with a manager.
func NewTransfers(manager dt.Manager, self peer.ID) (*Transfers, error) {
	t := &Transfers{dt: manager, self: self}
	v := &DataTransferVoucher{}
	if err := errors.Join(manager.RegisterVoucherType(v, t), manager.RegisterTransportConfigurer(v, t.configure)); err != nil {
		return nil, err
	}
	t.unsub = manager.SubscribeToEvents(t.onTransferEvent)
	return t, nil
}

// Close ends the subscription to the manager's events and closes what data was read from and written to. It comes after the manager's
// Stop, and after the Stop of both sides.
func (t *Transfers) Close() error {
	t.unsub()
	var errs []error
	if t.pusher != nil {
		errs = append(errs, t.pusher.closeSources())
	}
	if t.provider != nil {
		errs = append(errs, t.provider.staging.closeStores())
	}
	return errors.Join(errs...)
}

func (t *Transfers) configure(chid dt.ChannelID, v dt.Voucher, transport dt.Transport) {
	name, ok := proposalOf(v)
	if !ok {
		return
	}
	var ls *ipld.LinkSystem
	switch {
	case chid.Initiator == t.self && t.pusher != nil:
		ls = t.pusher.linkSystem(name)
	case chid.Responder == t.self && t.provider != nil:
		ls = t.provider.linkSystem(name)
	}
	if ls != nil {
		_ = port.TransportOf(transport).UseStore(chid, *ls) // without one the channel uses the store of the transport
	}
}

// onTransferEvent passes on the end of a channel.
func (t *Transfers) onTransferEvent(e dt.Event, s dt.ChannelState) {
	if e.Code != dt.CleanupComplete {
		return
	}
	name, ok := proposalOf(s.Voucher())
	if !ok {
		return
	}
	switch chid := s.ChannelID(); {
	case chid.Initiator == t.self && t.pusher != nil:
		t.pusher.transferEnded(name, chid, s.Status(), s.Message())
	case chid.Responder == t.self && t.provider != nil:
		t.provider.transferEnded(name, chid, s.Status(), s.Message())
	}
}

// ValidatePush implements datatransfer.RequestValidator.
func (t *Transfers) ValidatePush(_ bool, chid dt.ChannelID, sender peer.ID, v dt.Voucher, base cid.Cid, sel ipld.Node) (dt.VoucherResult, error) {
	name, ok := proposalOf(v)
	switch {
	case !ok:
		return nil, errors.New("the voucher names no proposal")
	case t.provider == nil:
		return nil, errors.New("this node takes no storage deals")
	}
	return nil, t.provider.admitPush(chid, sender, name, base, sel)
}

// ValidatePull implements datatransfer.RequestValidator.
func (t *Transfers) ValidatePull(bool, dt.ChannelID, peer.ID, dt.Voucher, cid.Cid, ipld.Node) (dt.VoucherResult, error) {
	return nil, errors.New("the data of storage deals is pushed, not pulled")
}

// newestChannel finds the channel of a proposal that began last, among those that are wanted; nil if there is none.
func newestChannel(ctx context.Context, manager dt.Manager, name cid.Cid, want func(dt.ChannelID) bool) (dt.ChannelState, error) {
	all, err := manager.InProgressChannels(ctx)
	if err != nil {
		return nil, err
	}
	var last dt.ChannelState
	for chid, s := range all {
		if of, ok := proposalOf(s.Voucher()); !ok || !of.Equals(name) || !want(chid) {
			continue
		}
		if last == nil || chid.ID > last.ChannelID().ID {
			last = s
		}
	}
	return last, nil
}

// isOverStatus tells whether a channel has ended.
func isOverStatus(s dt.Status) bool { return s == dt.Completed || s == dt.Failed || s == dt.Cancelled }

// checkWhole refuses a transfer of less than everything: the piece would be another.
func checkWhole(sel ipld.Node) error {
	if !shared.SameNode(sel, shared.AllSelector()) {
		return errors.New("the selector of a storage deal has to be that of the whole payload")
	}
	return nil
}
