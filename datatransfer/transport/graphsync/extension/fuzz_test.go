package extension_test

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/ipfs/go-graphsync"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/datatransfer/transport/graphsync/extension"
)

type one struct{ n datamodel.Node }

func (o one) Extension(graphsync.ExtensionName) (datamodel.Node, bool) { return o.n, true }

// FuzzExtension reads whatever may stand in a graphsync extension, and writes what it could read.
func FuzzExtension(f *testing.F) {
	data, err := os.ReadFile("../../../../testdata/vectors/datatransfer.json")
	require.NoError(f, err)
	var all []struct{ Hex string }
	require.NoError(f, json.Unmarshal(data, &all))
	for _, v := range all {
		raw, err := hex.DecodeString(v.Hex)
		require.NoError(f, err)
		f.Add(raw)
	}
	names := []graphsync.ExtensionName{extension.ExtensionDataTransfer1_1}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > 64<<10 {
			return
		}
		n, err := ipld.DecodeUsingPrototype(raw, dagcbor.Decode, basicnode.Prototype.Any)
		if err != nil {
			return
		}
		m, err := extension.GetTransferData(one{n}, names)
		if err != nil || m == nil {
			return
		}
		exts, err := extension.ToExtensionData(m, names)
		require.NoError(t, err)
		again, err := extension.GetTransferData(one{exts[0].Data}, names)
		require.NoError(t, err)
		require.Equal(t, m.TransferID(), again.TransferID())
	})
}
