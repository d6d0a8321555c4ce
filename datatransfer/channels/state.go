package channels

import (
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/libp2p/go-libp2p/core/peer"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/encoding"
)

// DecoderByType finds the decoder of a type of voucher or result.
type DecoderByType func(dt.TypeIdentifier) (encoding.Decoder, bool)

// state is an immutable snapshot. It shares the resident vouchers and reads the others from the store on demand, up
// to the counts that it was taken with.
type state struct {
	rec   Record
	store *store
	items *items
}

var _ dt.ChannelState = state{}

func (s state) TransferID() dt.TransferID { return s.rec.Static.ChannelID.ID }
func (s state) BaseCID() cid.Cid          { return s.rec.Static.BaseCid }
func (s state) Sender() peer.ID           { return s.rec.Static.Sender }
func (s state) Recipient() peer.ID        { return s.rec.Static.Recipient }
func (s state) TotalSize() uint64         { return 0 }
func (s state) IsPull() bool              { return s.rec.Static.ChannelID.Initiator == s.rec.Static.Recipient }
func (s state) ChannelID() dt.ChannelID   { return s.rec.Static.ChannelID }
func (s state) SelfPeer() peer.ID         { return s.rec.Static.SelfPeer }
func (s state) OtherPeer() peer.ID        { return s.rec.Static.ChannelID.OtherParty(s.rec.Static.SelfPeer) }
func (s state) Status() dt.Status         { return s.rec.Status }
func (s state) Sent() uint64              { return s.rec.Sent }
func (s state) Received() uint64          { return s.rec.Received }
func (s state) Queued() uint64            { return s.rec.Queued }
func (s state) Message() string           { return s.rec.Message }
func (s state) ReceivedCidsTotal() int64  { return int64(s.rec.ReceivedTotal) }
func (s state) QueuedCidsTotal() int64    { return int64(s.rec.QueuedTotal) }
func (s state) SentCidsTotal() int64      { return int64(s.rec.SentTotal) }

func (s state) Selector() ipld.Node {
	n, err := ipld.DecodeUsingPrototype(s.rec.Static.Selector.Raw, dagcbor.Decode, basicnode.Prototype.Any)
	if err != nil {
		return nil
	}
	return n
}

func decode[T any](e Encoded, by DecoderByType) (out T) {
	d, ok := by(e.Type)
	if !ok || e.Type == "" {
		return out
	}
	v, err := d.DecodeFromCbor(e.Data)
	if err != nil {
		return out
	}
	out, _ = v.(T)
	return out
}

func (s state) Voucher() dt.Voucher     { return decode[dt.Voucher](s.items.first, s.store.vouchers) }
func (s state) LastVoucher() dt.Voucher { return decode[dt.Voucher](s.items.last, s.store.vouchers) }
func (s state) LastVoucherResult() dt.VoucherResult {
	return decode[dt.VoucherResult](s.items.lastResult, s.store.results)
}

func (s state) Vouchers() []dt.Voucher {
	return list[dt.Voucher](s.store.readList(s.rec.Static.ChannelID, "v", s.rec.Vouchers, s.items.vouchers), s.store.vouchers)
}

func (s state) VoucherResults() []dt.VoucherResult {
	return list[dt.VoucherResult](s.store.readList(s.rec.Static.ChannelID, "r", s.rec.Results, s.items.results), s.store.results)
}

func list[T comparable](in []Encoded, by DecoderByType) []T {
	out := make([]T, 0, len(in))
	var zero T
	for _, e := range in {
		if v := decode[T](e, by); v != zero {
			out = append(out, v)
		}
	}
	return out
}

func (s state) Stages() *dt.ChannelStages {
	return s.store.readStages(s.rec.Static.ChannelID, s.rec.Logs)
}
