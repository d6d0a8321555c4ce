// Package extension puts data-transfer messages into graphsync extensions and takes them out.
package extension

import (
	"errors"

	"github.com/ipfs/go-graphsync"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/message"
)

const (
	// ExtensionDataTransfer1_1 carries every message; the number in the name is historic.
	ExtensionDataTransfer1_1 = graphsync.ExtensionName("fil/data-transfer/1.1")
	// ExtensionIncomingRequest1_1 also carries what answers a graphsync request.
	ExtensionIncomingRequest1_1 = graphsync.ExtensionName("fil/data-transfer/incoming-request/1.1")
	// ExtensionOutgoingBlock1_1 also carries what was caused by a block.
	ExtensionOutgoingBlock1_1 = graphsync.ExtensionName("fil/data-transfer/outgoing-block/1.1")
)

// ProtocolMap says which protocol an extension carries.
var ProtocolMap = map[graphsync.ExtensionName]protocol.ID{
	ExtensionIncomingRequest1_1: datatransfer.ProtocolDataTransfer1_2,
	ExtensionOutgoingBlock1_1:   datatransfer.ProtocolDataTransfer1_2,
	ExtensionDataTransfer1_1:    datatransfer.ProtocolDataTransfer1_2,
}

// GsExtended is a graphsync message with extensions.
type GsExtended interface {
	Extension(name graphsync.ExtensionName) (datamodel.Node, bool)
}

// ToExtensionData makes one entry for each name.
func ToExtensionData(msg datatransfer.Message, supportedExtensions []graphsync.ExtensionName) ([]graphsync.ExtensionData, error) {
	var out []graphsync.ExtensionData
	for _, name := range supportedExtensions {
		p, ok := ProtocolMap[name]
		if !ok {
			return nil, errors.New("unsupported protocol")
		}
		m, err := msg.MessageForProtocol(p)
		if err != nil {
			continue
		}
		n, err := m.ToIPLD()
		if err != nil {
			return nil, err
		}
		out = append(out, graphsync.ExtensionData{Name: name, Data: n})
	}
	if len(out) == 0 {
		return nil, errors.New("message not encodable in any supported extensions")
	}
	return out, nil
}

// GetTransferData returns the message under the first name that is present, or nil when there is none.
func GetTransferData(extendedData GsExtended, extNames []graphsync.ExtensionName) (datatransfer.Message, error) {
	for _, name := range extNames {
		if n, ok := extendedData.Extension(name); ok {
			return message.FromIPLD(n)
		}
	}
	return nil, nil
}
