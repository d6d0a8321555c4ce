package encoding_test

import (
	"testing"

	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/datatransfer/encoding"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
)

// TestForms: what is encoded is decoded to a value of its own, by its own marshaler or as a node; what is no pointer has no decoder.
func TestForms(t *testing.T) {
	for name, v := range map[string]any{"marshaler": testutil.NewFakeDTType("a voucher"), "node": basicnode.NewString("a node")} {
		d, err := encoding.NewDecoder(v)
		require.NoError(t, err, name)
		data, err := encoding.Encode(v)
		require.NoError(t, err, name)
		got, err := d.DecodeFromCbor(data)
		require.NoError(t, err, name)
		require.Equal(t, v, got, name)
		node, err := encoding.EncodeToNode(v)
		require.NoError(t, err, name)
		again, err := d.DecodeFromNode(node)
		require.NoError(t, err, name)
		require.Equal(t, v, again, name)
		_, err = d.DecodeFromCbor(append(data, 0))
		require.Error(t, err, "trailing bytes (R-7)")
	}
	_, err := encoding.NewDecoder(testutil.FakeDTType{})
	require.Error(t, err)
	null, err := encoding.Encode(nil)
	require.NoError(t, err)
	require.Equal(t, []byte{0xf6}, null)
}

// FuzzDecode: what decodes encodes, to what decodes to the same.
func FuzzDecode(f *testing.F) {
	d, err := encoding.NewDecoder(testutil.NewFakeDTType(""))
	require.NoError(f, err)
	for _, s := range []string{"", "a", "a voucher that is longer than others"} {
		data, err := encoding.Encode(testutil.NewFakeDTType(s))
		require.NoError(f, err)
		f.Add(data)
	}
	f.Add([]byte{0x81, 0x7f})
	f.Add([]byte{0x9f, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := d.DecodeFromCbor(data)
		if err != nil {
			return
		}
		again, err := encoding.Encode(v)
		require.NoError(t, err)
		w, err := d.DecodeFromCbor(again)
		require.NoError(t, err)
		require.Equal(t, v, w)
	})
}
