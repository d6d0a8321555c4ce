package ledger

import (
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"
)

// TestRefusedHasNoValue: a refused call answers no value beside its error. The RPC library logs a call whole that answers both, here with the
// signed transaction.
func TestRefusedHasNoValue(t *testing.T) {
	b := newBench(t)
	tx := b.tx(b.payer, KindTransfer, b.payee.Address, 1, nil)
	tx.Seq += 7
	require.NoError(t, tx.Sign(b.payer))
	data, err := tx.Encode()
	require.NoError(t, err)
	c, err := service{l: b.Ledger, paces: newPaces()}.Submit(t.Context(), data)
	require.ErrorIs(t, err, ErrWrongSeq)
	require.Equal(t, cid.Undef, c)
}
