// Package message builds, writes and reads the messages of data-transfer protocol 1.2.
//
// On the wire a message is a dag-cbor map with the keys IsRq, Request and Response, sorted length first. Readers take
// any order, refuse unknown, missing and duplicate keys, and bound every part.
package message

import (
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/encoding"
	"github.com/cartage-dev/cartage/datatransfer/message/types"
)

// maxTransferID keeps ids inside the positive integers of every IPLD codec.
const maxTransferID = 1<<63 - 1

// envelope holds the parts that both directions share.
type envelope struct {
	typ  types.MessageType
	xfer datatransfer.TransferID
	paus bool
}

func (e *envelope) IsNew() bool                         { return e.typ == types.NewMessage }
func (e *envelope) IsRestart() bool                     { return e.typ == types.RestartMessage }
func (e *envelope) IsUpdate() bool                      { return e.typ == types.UpdateMessage }
func (e *envelope) IsCancel() bool                      { return e.typ == types.CancelMessage }
func (e *envelope) IsPaused() bool                      { return e.paus }
func (e *envelope) TransferID() datatransfer.TransferID { return e.xfer }

type request struct {
	envelope
	baseCid cid.Cid
	part    bool
	pull    bool
	sel     datamodel.Node
	vtype   datatransfer.TypeIdentifier
	voucher datamodel.Node
	restart datatransfer.ChannelID
}

type response struct {
	envelope
	accepted bool
	vtype    datatransfer.TypeIdentifier
	result   datamodel.Node
}

var (
	_ datatransfer.Request  = (*request)(nil)
	_ datatransfer.Response = (*response)(nil)
)

func (r *request) IsRequest() bool  { return true }
func (r *response) IsRequest() bool { return false }

func (r *request) IsPull() bool                             { return r.pull }
func (r *request) VoucherType() datatransfer.TypeIdentifier { return r.vtype }
func (r *request) BaseCid() cid.Cid                         { return r.baseCid }
func (r *request) IsVoucher() bool {
	return r.typ == types.VoucherMessage || r.typ == types.NewMessage
}
func (r *request) IsRestartExistingChannelRequest() bool {
	return r.typ == types.RestartExistingChannelRequestMessage
}

func (r *request) RestartChannelId() (datatransfer.ChannelID, error) {
	if !r.IsRestartExistingChannelRequest() {
		return datatransfer.ChannelID{}, errors.New("not a request to restart an existing channel")
	}
	return r.restart, nil
}

func (r *request) Selector() (ipld.Node, error) {
	if r.sel == nil || r.sel.IsNull() {
		return nil, errors.New("no selector in message")
	}
	return r.sel, nil
}

func (r *request) Voucher(d encoding.Decoder) (encoding.Encodable, error) {
	if r.voucher == nil || r.voucher.IsNull() {
		return nil, errors.New("no voucher in message")
	}
	return d.DecodeFromNode(r.voucher)
}

func (r *response) Accepted() bool                                 { return r.accepted }
func (r *response) IsComplete() bool                               { return r.typ == types.CompleteMessage }
func (r *response) VoucherResultType() datatransfer.TypeIdentifier { return r.vtype }
func (r *response) EmptyVoucherResult() bool {
	return r.vtype == datatransfer.EmptyTypeIdentifier
}
func (r *response) IsVoucherResult() bool {
	switch r.typ {
	case types.NewMessage, types.CompleteMessage, types.VoucherResultMessage, types.RestartMessage:
		return true
	}
	return false
}

func (r *response) VoucherResult(d encoding.Decoder) (encoding.Encodable, error) {
	if r.result == nil || r.result.IsNull() {
		return nil, errors.New("no voucher result in message")
	}
	return d.DecodeFromNode(r.result)
}

func forProtocol(m datatransfer.Message, p protocol.ID) (datatransfer.Message, error) {
	if p != datatransfer.ProtocolDataTransfer1_2 {
		return nil, fmt.Errorf("protocol %s not supported", p)
	}
	return m, nil
}

func (r *request) MessageForProtocol(p protocol.ID) (datatransfer.Message, error) {
	return forProtocol(r, p)
}

func (r *response) MessageForProtocol(p protocol.ID) (datatransfer.Message, error) {
	return forProtocol(r, p)
}

func toNet(m datatransfer.Message, w io.Writer) error {
	n, err := m.ToIPLD()
	if err != nil {
		return err
	}
	return dagcbor.Encode(n, w)
}

func (r *request) ToNet(w io.Writer) error  { return toNet(r, w) }
func (r *response) ToNet(w io.Writer) error { return toNet(r, w) }

func nodeOrNull(n datamodel.Node) qp.Assemble {
	if n == nil {
		return qp.Null()
	}
	return qp.Node(n)
}

func (r *request) ToIPLD() (datamodel.Node, error) {
	if r.xfer > maxTransferID || r.restart.ID > maxTransferID {
		return nil, fmt.Errorf("transfer id %d is above 2^63-1", max(r.xfer, r.restart.ID))
	}
	return qp.BuildMap(basicnode.Prototype.Any, 3, func(ma datamodel.MapAssembler) {
		qp.MapEntry(ma, "IsRq", qp.Bool(true))
		qp.MapEntry(ma, "Request", qp.Map(10, func(ma datamodel.MapAssembler) {
			if r.baseCid.Defined() {
				qp.MapEntry(ma, "BCid", qp.Link(cidlink.Link{Cid: r.baseCid}))
			} else {
				qp.MapEntry(ma, "BCid", qp.Null())
			}
			qp.MapEntry(ma, "Part", qp.Bool(r.part))
			qp.MapEntry(ma, "Paus", qp.Bool(r.paus))
			qp.MapEntry(ma, "Pull", qp.Bool(r.pull))
			qp.MapEntry(ma, "Stor", nodeOrNull(r.sel))
			qp.MapEntry(ma, "Type", qp.Int(int64(r.typ)))
			qp.MapEntry(ma, "VTyp", qp.String(string(r.vtype)))
			qp.MapEntry(ma, "Vouch", nodeOrNull(r.voucher))
			qp.MapEntry(ma, "XferID", qp.Int(int64(r.xfer)))
			qp.MapEntry(ma, "RestartChannel", qp.List(3, func(la datamodel.ListAssembler) {
				qp.ListEntry(la, qp.String(string(r.restart.Initiator)))
				qp.ListEntry(la, qp.String(string(r.restart.Responder)))
				qp.ListEntry(la, qp.Int(int64(r.restart.ID)))
			}))
		}))
		qp.MapEntry(ma, "Response", qp.Null())
	})
}

func (r *response) ToIPLD() (datamodel.Node, error) {
	if r.xfer > maxTransferID {
		return nil, fmt.Errorf("transfer id %d is above 2^63-1", r.xfer)
	}
	return qp.BuildMap(basicnode.Prototype.Any, 3, func(ma datamodel.MapAssembler) {
		qp.MapEntry(ma, "IsRq", qp.Bool(false))
		qp.MapEntry(ma, "Request", qp.Null())
		qp.MapEntry(ma, "Response", qp.Map(6, func(ma datamodel.MapAssembler) {
			qp.MapEntry(ma, "Acpt", qp.Bool(r.accepted))
			qp.MapEntry(ma, "Paus", qp.Bool(r.paus))
			qp.MapEntry(ma, "Type", qp.Int(int64(r.typ)))
			qp.MapEntry(ma, "VRes", nodeOrNull(r.result))
			qp.MapEntry(ma, "VTyp", qp.String(string(r.vtype)))
			qp.MapEntry(ma, "XferID", qp.Int(int64(r.xfer)))
		}))
	})
}
