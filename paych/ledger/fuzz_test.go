package ledger

import (
	"runtime"
	"testing"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/blob"
	pay "github.com/cartage-dev/cartage/paych"
)

// FuzzDecodeTx: whatever comes as a transaction is refused or read in the one form it has, takes no memory beyond its size, and neither
// it nor its parameters make the ledger panic or lose money.
func FuzzDecodeTx(f *testing.F) {
	home := f.TempDir()
	require.NoError(f, Init(home, Options{Epoch: 1e9, SettleDelay: 10}))
	w, err := pay.OpenWallet(blob.OS{}, home+"/accounts")
	require.NoError(f, err)
	from, err := w.New()
	require.NoError(f, err)
	key, err := w.Key(from)
	require.NoError(f, err)
	l, err := Open(f.Context(), home)
	require.NoError(f, err)
	f.Cleanup(func() { require.NoError(f, l.Close()) })
	_, err = l.Mint(f.Context(), from, big.NewInt(1_000_000))
	require.NoError(f, err)
	redeem := redeemParams{paych.UpdateChannelStateParams{Sv: paych.SignedVoucher{ChannelAddr: from, Lane: 1, Nonce: 2, Amount: abi.NewTokenAmount(3)}}}
	params, err := redeem.encode()
	require.NoError(f, err)
	for kind := KindTransfer; kind <= KindProvider+1; kind++ {
		t := &Tx{Network: l.net.ID, From: from, ValidUntil: 1 << 40, Kind: kind, To: from, Value: big.NewInt(7), Params: params, Intent: make([]byte, 16)}
		require.NoError(f, t.Sign(key))
		data, err := t.Encode()
		require.NoError(f, err)
		f.Add(data)
	}
	f.Add([]byte{0x8b, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		taken := allocated(data)
		for range 2 { // the store of the ledger works beside
			taken = min(taken, allocated(data))
		}
		require.LessOrEqual(t, taken, uint64(2*len(data)+64<<10))
		tx, err := DecodeTx(data)
		if err == nil {
			again, err := tx.Encode()
			require.NoError(t, err)
			require.Equal(t, data, again)
			_, _ = decodeRedeem(tx.Params)
			acc, err := (service{l: l}).Account(t.Context(), from)
			require.NoError(t, err)
			tx.From, tx.Network, tx.Seq = from, l.net.ID, acc.Seq // what is wrong in its signature only is tried as well
			if tx.Sign(key) == nil {
				if signed, err := tx.Encode(); err == nil {
					_, _ = l.Submit(t.Context(), signed)
				}
			}
		}
		_, _ = l.Submit(t.Context(), data)
		a, err := l.Audit()
		require.NoError(t, err)
		require.True(t, a.Conserved)
	})
}

func allocated(data []byte) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _ = DecodeTx(data)
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
