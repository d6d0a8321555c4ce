// Package channels keeps the records of data-transfer channels: their transition table, their store, and the owner
// object of each channel that applies events in order.
//
// Layout of the store, version 4: a static part written once (/4/s), a hot part of fixed size (/4/h), and one key for
// each voucher (/4/v), result (/4/r) and log line (/4/l), so that the cost of an event does not depend on what came
// before it.
package channels

import (
	"fmt"
	"unicode/utf8"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/libp2p/go-libp2p/core/peer"
	cbg "github.com/whyrusleeping/cbor-gen"

	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/encoding"
	"github.com/cartage-dev/cartage/internal/wire"
)

// maxMessage bounds the stored error text.
const maxMessage = 4096

// Record is the state of a channel without its lists.
type Record struct {
	Static *Static // shared by all snapshots
	Hot
}

// Static is what never changes.
type Static struct {
	SelfPeer  peer.ID
	ChannelID datatransfer.ChannelID
	BaseCid   cid.Cid
	Selector  *cbg.Deferred
	Sender    peer.ID
	Recipient peer.ID
}

// Hot is what changes; its encoding has a bounded size.
type Hot struct {
	Status                                datatransfer.Status
	Queued, Sent, Received                uint64
	QueuedTotal, SentTotal, ReceivedTotal uint64 // highest index seen
	Message                               string
	Cause                                 error  // why the channel failed; not stored
	Vouchers, Results, Logs               uint64 // counts of the lists
	// WasPaused keeps the pause of the responder over FinishTransfer.
	WasPaused bool
	// Skipped is what a sender left out on the word of the recipient: at first the base of a pull, what its recipient had when it was accepted.
	Skipped Spans
	// Claimed is what the recipient says it got of this channel, which counts, and which nobody remembers to have handed out.
	Claimed Spans
}

// Encoded is a voucher or a result as it is stored.
type Encoded struct {
	Type datatransfer.TypeIdentifier
	Data []byte
}

func (s *Static) fields() []wire.Field {
	return []wire.Field{
		wire.Peer("SelfPeer", &s.SelfPeer), wire.Object("ChannelID", &s.ChannelID), wire.Cid("BaseCid", &s.BaseCid),
		wire.Deferred("Selector", &s.Selector), wire.Peer("Sender", &s.Sender), wire.Peer("Recipient", &s.Recipient),
	}
}

func (h *Hot) fields() []wire.Field {
	return []wire.Field{
		wire.Uint("Status", &h.Status), wire.Uint("Queued", &h.Queued), wire.Uint("Sent", &h.Sent), wire.Uint("Received", &h.Received),
		wire.Uint("QueuedTotal", &h.QueuedTotal), wire.Uint("SentTotal", &h.SentTotal), wire.Uint("ReceivedTotal", &h.ReceivedTotal),
		wire.Text("Message", &h.Message), wire.Uint("Vouchers", &h.Vouchers), wire.Uint("Results", &h.Results), wire.Uint("Logs", &h.Logs),
		wire.Bool("WasPaused", &h.WasPaused), spansField("Skipped", &h.Skipped), spansField("Claimed", &h.Claimed),
	}
}

// fieldsBefore are those of records that were written before claims were counted.
func (h *Hot) fieldsBefore() []wire.Field {
	all := h.fields()
	return all[:len(all)-1]
}

// NewStatic makes the static part of a channel.
func NewStatic(self peer.ID, chid datatransfer.ChannelID, base cid.Cid, sel ipld.Node, pull bool) (Static, error) {
	if !base.Defined() {
		return Static{}, fmt.Errorf("base CID must be defined")
	}
	raw, err := ipld.Encode(sel, dagcbor.Encode)
	if err != nil {
		return Static{}, fmt.Errorf("encode selector: %w", err)
	}
	s := Static{SelfPeer: self, ChannelID: chid, BaseCid: base, Selector: &cbg.Deferred{Raw: raw}, Sender: chid.Initiator, Recipient: chid.Responder}
	if pull {
		s.Sender, s.Recipient = s.Recipient, s.Sender
	}
	return s, nil
}

// Encode makes the stored form of a voucher or result.
func Encode(v datatransfer.Registerable) (Encoded, error) {
	data, err := encoding.Encode(v)
	return Encoded{v.Type(), data}, err
}

func cut(s string) string { return cutAt(s, maxMessage) }

// cutAt shortens a text to at most n bytes of valid UTF-8.
func cutAt(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}
