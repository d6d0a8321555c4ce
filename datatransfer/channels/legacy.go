package channels

import (
	"bytes"
	"context"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/peer"
	cbg "github.com/whyrusleeping/cbor-gen"

	dt "github.com/cartage-dev/cartage/datatransfer"
	records "github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/internal/wire"
)

// Layouts of go-data-transfer that are taken over once: 2 of v1.15 and 3 of v2 (R-27, D24). Both are one map a channel under
// /<version>/<channel>; version 3 has flags for the pauses and two statuses more.
var legacyVersions = map[string]bool{"2": true, "3": true}

// Statuses that only version 3 has.
const (
	legacyQueued             = dt.Status(17)
	legacyAwaitingAcceptance = dt.Status(18)
)

// legacyRecord is a record of version 2 or 3.
type legacyRecord struct {
	SelfPeer                          peer.ID
	TransferID                        dt.TransferID
	Initiator, Responder              peer.ID
	BaseCid                           cid.Cid
	Selector                          *cbg.Deferred
	Sender, Recipient                 peer.ID
	TotalSize                         uint64
	Status                            dt.Status
	Queued, Sent, Received            uint64
	Message                           string
	Vouchers                          []legacyItem
	Results                           []legacyItem
	ReceivedBlocks, QueuedBlocks      uint64
	SentBlocks                        uint64
	Stages                            *dt.ChannelStages
	InitiatorIsPaused, ResponderHolds bool
}

type legacyItem struct {
	Type dt.TypeIdentifier
	Node *cbg.Deferred
}

func legacyItems(name, member string, list *[]legacyItem) wire.Field {
	return wire.List(name, list, func(i *legacyItem) wire.Field {
		return wire.Map(member, []wire.Field{wire.Text("Type", &i.Type), wire.Deferred(member, &i.Node)})
	})
}

// fields are those of version 2, in the order in which it writes them.
func (r *legacyRecord) fields() []wire.Field {
	return []wire.Field{
		wire.Peer("SelfPeer", &r.SelfPeer), wire.Uint("TransferID", &r.TransferID), wire.Peer("Initiator", &r.Initiator),
		wire.Peer("Responder", &r.Responder), wire.Cid("BaseCid", &r.BaseCid), wire.Deferred("Selector", &r.Selector),
		wire.Peer("Sender", &r.Sender), wire.Peer("Recipient", &r.Recipient), wire.Uint("TotalSize", &r.TotalSize),
		wire.Uint("Status", &r.Status), wire.Uint("Queued", &r.Queued), wire.Uint("Sent", &r.Sent), wire.Uint("Received", &r.Received),
		wire.Text("Message", &r.Message), legacyItems("Vouchers", "Voucher", &r.Vouchers),
		legacyItems("VoucherResults", "VoucherResult", &r.Results), wire.Uint("ReceivedBlocksTotal", &r.ReceivedBlocks),
		wire.Uint("QueuedBlocksTotal", &r.QueuedBlocks), wire.Uint("SentBlocksTotal", &r.SentBlocks),
		wire.Nullable("Stages", &r.Stages, func(s *dt.ChannelStages) wire.Field { return wire.Object("Stages", s) }),
	}
}

// encodeLegacy writes a record as version 2 does.
func encodeLegacy(r *legacyRecord) ([]byte, error) {
	var out bytes.Buffer
	err := wire.WriteMap(&out, r.fields())
	return out.Bytes(), err
}

// decodeLegacy reads a record of version 2 or 3: keys in any order, unknown ones left out, missing ones zero.
func decodeLegacy(data []byte) (*legacyRecord, error) {
	r := &legacyRecord{}
	fields := append(r.fields(), wire.Bool("InitiatorPaused", &r.InitiatorIsPaused), wire.Bool("ResponderPaused", &r.ResponderHolds))
	for i := range fields {
		fields[i].Optional = true
	}
	in := bytes.NewReader(data)
	if err := wire.ReadMap(in, "channel", fields); err != nil {
		return nil, err
	}
	if in.Len() > 0 {
		return nil, fmt.Errorf("channel: %d bytes behind the record", in.Len())
	}
	if r.Initiator == "" || r.Responder == "" || !r.BaseCid.Defined() || r.Selector == nil {
		return nil, fmt.Errorf("channel: the record has no initiator, responder, base CID or selector")
	}
	return r, nil
}

// status is how the record stands in the table of this package.
func (r *legacyRecord) status() dt.Status {
	s := r.Status
	switch s {
	case legacyQueued:
		s = dt.Ongoing
	case legacyAwaitingAcceptance:
		s = dt.Requested
	}
	if s != dt.Ongoing {
		return s
	}
	switch {
	case r.InitiatorIsPaused && r.ResponderHolds:
		return dt.BothPaused
	case r.InitiatorIsPaused:
		return dt.InitiatorPaused
	case r.ResponderHolds:
		return dt.ResponderPaused
	}
	return s
}

func (r *legacyRecord) record() (Record, error) {
	s := r.status()
	if _, known := dt.Statuses[s]; !known || s == dt.ChannelNotFoundError {
		return Record{}, fmt.Errorf("channel: status %d is not known", r.Status)
	}
	return Record{
		Static: &Static{
			SelfPeer: r.SelfPeer, ChannelID: dt.ChannelID{Initiator: r.Initiator, Responder: r.Responder, ID: r.TransferID},
			BaseCid: r.BaseCid, Selector: r.Selector, Sender: r.Sender, Recipient: r.Recipient,
		},
		Hot: Hot{
			Status: s, Queued: r.Queued, Sent: r.Sent, Received: r.Received, QueuedTotal: r.QueuedBlocks, SentTotal: r.SentBlocks,
			ReceivedTotal: r.ReceivedBlocks, Message: cut(r.Message), Vouchers: uint64(len(r.Vouchers)), Results: uint64(len(r.Results)),
		},
	}, nil
}

// migrate writes every record of an older layout anew, then switches the version: a crash in between leaves the old store in
// force, and the next start does it all again. The old records are kept until the start after.
func (s *store) migrate(ctx context.Context, version string) error {
	err := records.Each(ctx, s.ds, "/"+version, func(key string, value []byte) error {
		old, err := decodeLegacy(value)
		if err == nil {
			err = s.writeMigrated(ctx, old)
		}
		if err != nil {
			return fmt.Errorf("record %s of the channel store of version %s: %w", key, version, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := s.ds.Sync(ctx, datastore.NewKey("/")); err != nil {
		return err
	}
	if err := s.ds.Put(ctx, versionKey, []byte(Version)); err != nil {
		return err
	}
	return s.ds.Sync(ctx, versionKey)
}

func (s *store) writeMigrated(ctx context.Context, old *legacyRecord) error {
	r, err := old.record()
	if err != nil {
		return err
	}
	b, err := s.ds.Batch(ctx)
	if err != nil {
		return err
	}
	chid := r.Static.ChannelID
	for part, list := range map[string][]legacyItem{"v": old.Vouchers, "r": old.Results} {
		for i, item := range list {
			if err := s.putItem(b, part, chid, uint64(i), Encoded{item.Type, item.Node.Raw}); err != nil {
				return err
			}
		}
	}
	if old.Stages != nil {
		for _, st := range old.Stages.Stages {
			for _, l := range st.Logs {
				if err := s.putLog(b, chid, r.Logs, logLine{st.Name, cutAt(l.Log, maxLogText), l.UpdatedTime}); err != nil {
					return err
				}
				r.Logs++
			}
		}
	}
	if err := s.putStatic(b, r.Static); err != nil {
		return err
	}
	if err := s.putHot(b, &r); err != nil {
		return err
	}
	return b.Commit(ctx)
}

// dropLegacy deletes what an earlier start has taken over.
func (s *store) dropLegacy(ctx context.Context) error {
	for version := range legacyVersions {
		if err := s.deleteAll(ctx, s.ds, "/"+version); err != nil {
			return err
		}
	}
	return nil
}
