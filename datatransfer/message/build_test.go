package message_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	"github.com/ipfs/go-graphsync/donotsendfirstblocks"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/codec/dagjson"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/encoding"
	"github.com/cartage-dev/cartage/datatransfer/message"
	"github.com/cartage-dev/cartage/datatransfer/transport/graphsync/extension"
)

// inputs are what a vector of a message is made of.
type inputs struct {
	BaseCid       string
	IsPull        bool
	IsRestart     bool
	IsPaused      bool
	Accepted      bool
	Selector      string
	TransferID    uint64
	Voucher       json.RawMessage
	VoucherType   datatransfer.TypeIdentifier
	VoucherResult *typed
	ChannelID     struct {
		ID                   uint64
		Initiator, Responder string
	}
}

type typed struct {
	Cbor string
	Type datatransfer.TypeIdentifier
}

func (v *typed) node(t testing.TB) encoding.Encodable {
	if v == nil {
		return nil
	}
	raw, err := hex.DecodeString(v.Cbor)
	require.NoError(t, err)
	n, err := ipld.DecodeUsingPrototype(raw, dagcbor.Decode, basicnode.Prototype.Any)
	require.NoError(t, err)
	return n
}

func fromJSON(t testing.TB, s string) datamodel.Node {
	n, err := ipld.DecodeUsingPrototype([]byte(s), dagjson.Decode, basicnode.Prototype.Any)
	require.NoError(t, err)
	return n
}

// voucherOf reads a voucher, which stands as CBOR with its type or as dag-json beside its type.
func voucherOf(t testing.TB, in inputs) (datatransfer.TypeIdentifier, encoding.Encodable) {
	if in.VoucherType != "" {
		var text string
		require.NoError(t, json.Unmarshal(in.Voucher, &text))
		return in.VoucherType, fromJSON(t, text)
	}
	var v typed
	require.NoError(t, json.Unmarshal(in.Voucher, &v))
	return v.Type, v.node(t)
}

// build makes the message of a vector with the published constructors.
func build(t testing.TB, v vector) datatransfer.Message {
	var in inputs
	require.NoError(t, json.Unmarshal(v.Inputs, &in))
	id := datatransfer.TransferID(in.TransferID)
	part := strings.Split(v.Name, "/")
	if part[0] == "request" {
		return buildRequest(t, part[1], id, in)
	}
	var rtype datatransfer.TypeIdentifier
	if in.VoucherResult != nil {
		rtype = in.VoucherResult.Type
	}
	var m datatransfer.Response
	var err error
	switch part[1] {
	case "new":
		m, err = message.NewResponse(id, in.Accepted, in.IsPaused, rtype, in.VoucherResult.node(t))
	case "restart":
		m, err = message.RestartResponse(id, in.Accepted, in.IsPaused, rtype, in.VoucherResult.node(t))
	case "voucher-result":
		m, err = message.VoucherResultResponse(id, in.Accepted, in.IsPaused, rtype, in.VoucherResult.node(t))
	case "complete":
		m, err = message.CompleteResponse(id, in.Accepted, in.IsPaused, rtype, in.VoucherResult.node(t))
	case "update":
		m = message.UpdateResponse(id, in.IsPaused)
	case "cancel":
		m = message.CancelResponse(id)
	}
	require.NoError(t, err)
	return m
}

func buildRequest(t testing.TB, kind string, id datatransfer.TransferID, in inputs) datatransfer.Message {
	var m datatransfer.Request
	var err error
	switch kind {
	case "new", "restart":
		vtype, v := voucherOf(t, in)
		base, cerr := cid.Decode(in.BaseCid)
		require.NoError(t, cerr)
		m, err = message.NewRequest(id, kind == "restart", in.IsPull, vtype, v, base, fromJSON(t, in.Selector))
	case "voucher":
		vtype, v := voucherOf(t, in)
		m, err = message.VoucherRequest(id, vtype, v)
	case "update":
		m = message.UpdateRequest(id, in.IsPaused)
	case "cancel":
		m = message.CancelRequest(id)
	case "restart-existing-channel":
		i, ierr := peer.Decode(in.ChannelID.Initiator)
		require.NoError(t, ierr)
		r, rerr := peer.Decode(in.ChannelID.Responder)
		require.NoError(t, rerr)
		m = message.RestartExistingChannelRequest(datatransfer.ChannelID{Initiator: i, Responder: r, ID: datatransfer.TransferID(in.ChannelID.ID)})
	}
	require.NoError(t, err)
	return m
}

// extended is a graphsync message with the extensions of a vector.
type extended map[graphsync.ExtensionName]datamodel.Node

func (e extended) Extension(name graphsync.ExtensionName) (datamodel.Node, bool) {
	n, ok := e[name]
	return n, ok
}

func byName(t testing.TB, name string) vector {
	for _, v := range vectors(t) {
		if v.Name == name {
			return v
		}
	}
	require.FailNow(t, "no vector "+name)
	return vector{}
}

// extensions reads a map of extensions, and makes each entry from the message that the vector names.
func extensions(t *testing.T, v vector, raw []byte) {
	var in map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(v.Inputs, &in))
	if v.Name == "ext/do-not-send-first-blocks" {
		data, err := ipld.Encode(donotsendfirstblocks.EncodeDoNotSendFirstBlocks(150), dagcbor.Encode)
		require.NoError(t, err)
		require.Equal(t, v.Hex, hex.EncodeToString(data))
		return
	}
	n, err := ipld.DecodeUsingPrototype(raw, dagcbor.Decode, basicnode.Prototype.Any)
	require.NoError(t, err)
	got := extended{}
	for it := n.MapIterator(); !it.Done(); {
		k, val, err := it.Next()
		require.NoError(t, err)
		name, err := k.AsString()
		require.NoError(t, err)
		got[graphsync.ExtensionName(name)] = val
	}
	for name, val := range got {
		if name == graphsync.ExtensionsDoNotSendFirstBlocks {
			count, err := donotsendfirstblocks.DecodeDoNotSendFirstBlocks(val)
			require.NoError(t, err)
			require.JSONEq(t, string(in["doNotSendFirstBlocks"]), string(must(json.Marshal(count))))
			continue
		}
		m, err := extension.GetTransferData(got, []graphsync.ExtensionName{name})
		require.NoError(t, err)
		var want string
		key := map[graphsync.ExtensionName]string{extension.ExtensionIncomingRequest1_1: "incoming-request", extension.ExtensionOutgoingBlock1_1: "outgoing-block", extension.ExtensionDataTransfer1_1: "plain"}[name]
		if in[key] == nil {
			key = "message"
		}
		require.NoError(t, json.Unmarshal(in[key], &want))
		exts, err := extension.ToExtensionData(build(t, byName(t, want)), []graphsync.ExtensionName{name})
		require.NoError(t, err)
		require.Equal(t, string(must(ipld.Encode(val, dagcbor.Encode))), string(must(ipld.Encode(exts[0].Data, dagcbor.Encode))))
		var out bytes.Buffer
		require.NoError(t, m.ToNet(&out))
		require.Equal(t, byName(t, want).Hex, hex.EncodeToString(out.Bytes()))
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}
