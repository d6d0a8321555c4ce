package message

import (
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"

	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/encoding"
	"github.com/cartage-dev/cartage/datatransfer/message/types"
)

// NewRequest opens a channel, or restarts it.
func NewRequest(id datatransfer.TransferID, isRestart bool, isPull bool, vtype datatransfer.TypeIdentifier, voucher encoding.Encodable, baseCid cid.Cid, selector datamodel.Node) (datatransfer.Request, error) {
	if !baseCid.Defined() {
		return nil, errors.New("base CID must be defined")
	}
	n, err := encoding.EncodeToNode(voucher)
	if err != nil {
		return nil, fmt.Errorf("encode voucher %s: %w", vtype, err)
	}
	if selector == nil {
		return nil, errors.New("selector must be given")
	}
	typ := types.NewMessage
	if isRestart {
		typ = types.RestartMessage
	}
	return &request{envelope: envelope{typ: typ, xfer: id}, pull: isPull, vtype: vtype, voucher: n, baseCid: baseCid, sel: selector}, nil
}

// RestartExistingChannelRequest asks the initiator of a channel to restart it.
func RestartExistingChannelRequest(channelID datatransfer.ChannelID) datatransfer.Request {
	return &request{envelope: envelope{typ: types.RestartExistingChannelRequestMessage}, restart: channelID}
}

// UpdateRequest pauses or resumes on behalf of the initiator.
func UpdateRequest(id datatransfer.TransferID, isPaused bool) datatransfer.Request {
	return &request{envelope: envelope{typ: types.UpdateMessage, xfer: id, paus: isPaused}}
}

// CancelRequest cancels on behalf of the initiator.
func CancelRequest(id datatransfer.TransferID) datatransfer.Request {
	return &request{envelope: envelope{typ: types.CancelMessage, xfer: id}}
}

// VoucherRequest carries a further voucher.
func VoucherRequest(id datatransfer.TransferID, vtype datatransfer.TypeIdentifier, voucher encoding.Encodable) (datatransfer.Request, error) {
	n, err := encoding.EncodeToNode(voucher)
	if err != nil {
		return nil, fmt.Errorf("encode voucher %s: %w", vtype, err)
	}
	return &request{envelope: envelope{typ: types.VoucherMessage, xfer: id}, vtype: vtype, voucher: n}, nil
}

func newResponse(typ types.MessageType, id datatransfer.TransferID, accepted, isPaused bool, rtype datatransfer.TypeIdentifier, result encoding.Encodable) (datatransfer.Response, error) {
	r := &response{envelope: envelope{typ: typ, xfer: id, paus: isPaused}, accepted: accepted, vtype: rtype}
	if rtype == datatransfer.EmptyTypeIdentifier {
		return r, nil
	}
	n, err := encoding.EncodeToNode(result)
	if err != nil {
		return nil, fmt.Errorf("encode voucher result %s: %w", rtype, err)
	}
	r.result = n
	return r, nil
}

// NewResponse answers a request to open.
func NewResponse(id datatransfer.TransferID, accepted bool, isPaused bool, rtype datatransfer.TypeIdentifier, result encoding.Encodable) (datatransfer.Response, error) {
	return newResponse(types.NewMessage, id, accepted, isPaused, rtype, result)
}

// RestartResponse answers a restart.
func RestartResponse(id datatransfer.TransferID, accepted bool, isPaused bool, rtype datatransfer.TypeIdentifier, result encoding.Encodable) (datatransfer.Response, error) {
	return newResponse(types.RestartMessage, id, accepted, isPaused, rtype, result)
}

// VoucherResultResponse answers a voucher, or demands one.
func VoucherResultResponse(id datatransfer.TransferID, accepted bool, isPaused bool, rtype datatransfer.TypeIdentifier, result encoding.Encodable) (datatransfer.Response, error) {
	return newResponse(types.VoucherResultMessage, id, accepted, isPaused, rtype, result)
}

// CompleteResponse says that the responder is done; paused means that it wants a last voucher.
func CompleteResponse(id datatransfer.TransferID, isAccepted bool, isPaused bool, rtype datatransfer.TypeIdentifier, result encoding.Encodable) (datatransfer.Response, error) {
	return newResponse(types.CompleteMessage, id, isAccepted, isPaused, rtype, result)
}

// UpdateResponse pauses or resumes on behalf of the responder.
func UpdateResponse(id datatransfer.TransferID, isPaused bool) datatransfer.Response {
	return &response{envelope: envelope{typ: types.UpdateMessage, xfer: id, paus: isPaused}}
}

// CancelResponse cancels on behalf of the responder.
func CancelResponse(id datatransfer.TransferID) datatransfer.Response {
	return &response{envelope: envelope{typ: types.CancelMessage, xfer: id}}
}
