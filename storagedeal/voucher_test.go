package storagedeal_test

import (
	"bytes"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/storagedeal"
)

// TestDataTransferVoucher: the voucher is a tuple of the proposal, as deployed peers write it; anything else is an error.
func TestDataTransferVoucher(t *testing.T) {
	c := cid.MustParse("bafyreidhseycd26litgi3dbf23lyjatnliwdspkijr2h4mrjorb3hpf7ea")
	var b bytes.Buffer
	v := &storagedeal.DataTransferVoucher{Proposal: c}
	require.NoError(t, v.MarshalCBOR(&b))
	require.Equal(t, append([]byte{0x81, 0xd8, 0x2a, 0x58, 0x25, 0x00}, c.Bytes()...), b.Bytes())
	var got storagedeal.DataTransferVoucher
	require.NoError(t, got.UnmarshalCBOR(bytes.NewReader(b.Bytes())))
	require.Equal(t, *v, got)
	for n := range b.Len() {
		require.Error(t, new(storagedeal.DataTransferVoucher).UnmarshalCBOR(bytes.NewReader(b.Bytes()[:n])))
	}
	require.EqualValues(t, "StorageDataTransferVoucher", v.Type())
}
