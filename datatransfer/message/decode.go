package message

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/message/types"
	"github.com/cartage-dev/cartage/internal/wire"
)

// Bounds of a message from a peer.
const (
	// MaxMessage is the most bytes of one message.
	MaxMessage   = 1 << 20
	maxPart      = 64 << 10
	maxTypeName  = 256
	maxPeerID    = 128
	maxNodeDepth = wire.MaxDepth + 64
)

// FromNet reads one message and nothing behind it.
func FromNet(r io.Reader) (datatransfer.Message, error) {
	raw, err := wire.ReadRaw(r, MaxMessage, maxNodeDepth+8)
	if err != nil {
		return nil, err
	}
	b := basicnode.Prototype.Any.NewBuilder()
	if err := dagcbor.Decode(b, bytes.NewReader(raw)); err != nil {
		return nil, fmt.Errorf("invalid message: %w", err)
	}
	return FromIPLD(b.Build())
}

// FromIPLD reads a message from the value of a graphsync extension.
func FromIPLD(n datamodel.Node) (datatransfer.Message, error) {
	m, err := members(n, "message", "IsRq", "Request", "Response")
	if err != nil {
		return nil, err
	}
	isRequest, err := m["IsRq"].AsBool()
	if err != nil {
		return nil, fmt.Errorf("invalid message: IsRq: %w", err)
	}
	body := m["Response"]
	if isRequest {
		body = m["Request"]
	}
	if body.IsNull() {
		return nil, errors.New("invalid/malformed message: the member chosen by IsRq is null")
	}
	if isRequest {
		return decodeRequest(body)
	}
	return decodeResponse(body)
}

// members returns the values of a map that must have exactly the given keys.
func members(n datamodel.Node, what string, keys ...string) (map[string]datamodel.Node, error) {
	if n == nil || n.Kind() != datamodel.Kind_Map || n.Length() != int64(len(keys)) {
		return nil, fmt.Errorf("invalid %s: not a map of %d keys", what, len(keys))
	}
	out := make(map[string]datamodel.Node, len(keys))
	for _, k := range keys {
		v, err := n.LookupByString(k)
		if err != nil {
			return nil, fmt.Errorf("invalid %s: key %s is missing", what, k)
		}
		out[k] = v
	}
	return out, nil
}

// fieldReader reads typed members and keeps the first error.
type fieldReader struct {
	m   map[string]datamodel.Node
	err error
}

func read[T any](r *fieldReader, key string, as func(datamodel.Node) (T, error)) T {
	v, err := as(r.m[key])
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("invalid message: %s: %w", key, err)
	}
	return v
}

func (r *fieldReader) boolean(key string) bool { return read(r, key, datamodel.Node.AsBool) }
func (r *fieldReader) number(key string) uint64 {
	return read(r, key, func(n datamodel.Node) (uint64, error) {
		i, err := n.AsInt()
		if err == nil && i < 0 {
			err = fmt.Errorf("%d is negative", i)
		}
		return uint64(i), err
	})
}
func (r *fieldReader) typeName(key string) datatransfer.TypeIdentifier {
	return read(r, key, func(n datamodel.Node) (datatransfer.TypeIdentifier, error) {
		s, err := n.AsString()
		if err == nil && len(s) > maxTypeName {
			err = fmt.Errorf("type name of %d bytes is above the limit of %d", len(s), maxTypeName)
		}
		return datatransfer.TypeIdentifier(s), err
	})
}
func (r *fieldReader) node(key string) datamodel.Node {
	return read(r, key, func(n datamodel.Node) (datamodel.Node, error) {
		if n.IsNull() {
			return nil, nil
		}
		return n, checkSize(n)
	})
}

// checkSize bounds an embedded voucher, result or selector.
func checkSize(n datamodel.Node) error {
	if err := checkDepth(n, maxNodeDepth); err != nil {
		return err
	}
	w := &countingWriter{limit: maxPart}
	return dagcbor.Encode(n, w)
}

func checkDepth(n datamodel.Node, left int) error {
	if left == 0 {
		return fmt.Errorf("nested deeper than %d", maxNodeDepth)
	}
	switch n.Kind() {
	case datamodel.Kind_Map:
		for it := n.MapIterator(); !it.Done(); {
			_, v, err := it.Next()
			if err != nil {
				return err
			}
			if err := checkDepth(v, left-1); err != nil {
				return err
			}
		}
	case datamodel.Kind_List:
		for it := n.ListIterator(); !it.Done(); {
			_, v, err := it.Next()
			if err != nil {
				return err
			}
			if err := checkDepth(v, left-1); err != nil {
				return err
			}
		}
	}
	return nil
}

type countingWriter struct{ n, limit int }

func (w *countingWriter) Write(p []byte) (int, error) {
	if w.n += len(p); w.n > w.limit {
		return 0, fmt.Errorf("larger than %d bytes", w.limit)
	}
	return len(p), nil
}

func decodeRequest(n datamodel.Node) (datatransfer.Message, error) {
	m, err := members(n, "request", "BCid", "Part", "Paus", "Pull", "Stor", "Type", "VTyp", "Vouch", "XferID", "RestartChannel")
	if err != nil {
		return nil, err
	}
	f := fieldReader{m: m}
	r := &request{
		envelope: envelope{types.MessageType(f.number("Type")), datatransfer.TransferID(f.number("XferID")), f.boolean("Paus")},
		part:     f.boolean("Part"), pull: f.boolean("Pull"),
		sel: f.node("Stor"), vtype: f.typeName("VTyp"), voucher: f.node("Vouch"),
		baseCid: read(&f, "BCid", asCid),
		restart: read(&f, "RestartChannel", asChannelID),
	}
	if f.err != nil {
		return nil, f.err
	}
	return r, r.check()
}

// check refuses what no peer may send.
func (r *request) check() error {
	switch r.typ {
	case types.NewMessage, types.RestartMessage:
		if !r.baseCid.Defined() || r.sel == nil || r.vtype == "" || r.voucher == nil {
			return errors.New("invalid request: base CID, selector, voucher and its type are required")
		}
	case types.VoucherMessage:
		if r.vtype == "" || r.voucher == nil {
			return errors.New("invalid request: voucher and its type are required")
		}
	case types.UpdateMessage, types.CancelMessage:
	case types.RestartExistingChannelRequestMessage:
		for _, p := range []peer.ID{r.restart.Initiator, r.restart.Responder} {
			if _, err := peer.IDFromBytes([]byte(p)); err != nil {
				return fmt.Errorf("invalid request: channel to restart: %w", err)
			}
		}
	default:
		return fmt.Errorf("invalid request: type %d is not one of a request", r.typ)
	}
	return nil
}

func decodeResponse(n datamodel.Node) (datatransfer.Message, error) {
	m, err := members(n, "response", "Acpt", "Paus", "Type", "VRes", "VTyp", "XferID")
	if err != nil {
		return nil, err
	}
	f := fieldReader{m: m}
	r := &response{
		envelope: envelope{types.MessageType(f.number("Type")), datatransfer.TransferID(f.number("XferID")), f.boolean("Paus")},
		accepted: f.boolean("Acpt"), vtype: f.typeName("VTyp"), result: f.node("VRes"),
	}
	if f.err != nil {
		return nil, f.err
	}
	switch r.typ {
	case types.NewMessage, types.UpdateMessage, types.CancelMessage, types.CompleteMessage, types.VoucherResultMessage, types.RestartMessage:
	default:
		return nil, fmt.Errorf("invalid response: type %d is not one of a response", r.typ)
	}
	if r.vtype != "" && r.result == nil {
		return nil, fmt.Errorf("invalid response: result of type %s is null", r.vtype)
	}
	return r, nil
}

func asCid(n datamodel.Node) (cid.Cid, error) {
	if n.IsNull() {
		return cid.Undef, nil
	}
	l, err := n.AsLink()
	if err != nil {
		return cid.Undef, err
	}
	cl, ok := l.(cidlink.Link)
	if !ok {
		return cid.Undef, fmt.Errorf("link of type %T", l)
	}
	return cl.Cid, nil
}

func asChannelID(n datamodel.Node) (datatransfer.ChannelID, error) {
	var c datatransfer.ChannelID
	if n.Kind() != datamodel.Kind_List || n.Length() != 3 {
		return c, errors.New("not a tuple of 3")
	}
	for i, p := range []*peer.ID{&c.Initiator, &c.Responder} {
		v, err := n.LookupByIndex(int64(i))
		if err != nil {
			return c, err
		}
		s, err := v.AsString()
		if err != nil {
			return c, err
		}
		if len(s) > maxPeerID {
			return c, fmt.Errorf("peer id of %d bytes is above the limit of %d", len(s), maxPeerID)
		}
		*p = peer.ID(s)
	}
	v, err := n.LookupByIndex(2)
	if err != nil {
		return c, err
	}
	id, err := v.AsInt()
	if err == nil && id < 0 {
		err = fmt.Errorf("id %d is negative", id)
	}
	c.ID = datatransfer.TransferID(id)
	return c, err
}
