package ledger

import (
	"context"
	"net"
	"testing"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	pay "github.com/cartage-dev/cartage/paych"
)

// TestServed: the typed client over the socket, with and without the token.
func TestServed(t *testing.T) {
	b := newBench(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- b.Serve(ctx, ln, "token") }()
	defer func() {
		cancel()
		require.NoError(t, <-served)
	}()
	w := wallet{b.payer.Address: b.payer}
	bad, hangup, err := Dial(ctx, "http://"+ln.Addr().String(), "wrong", w)
	require.NoError(t, err)
	_, err = bad.Balance(ctx, b.payer.Address)
	require.ErrorIs(t, err, ErrUnauthorised)
	hangup()

	c, hangup, err := Dial(ctx, "http://"+ln.Addr().String(), "token", w)
	require.NoError(t, err)
	defer hangup()
	op := pay.Op{Kind: pay.OpAddFunds, From: b.payer.Address, Channel: b.ch, Value: big.NewInt(5), Intent: uuid.New()}
	msg, err := c.Submit(ctx, op)
	require.NoError(t, err)
	again, err := c.Submit(ctx, op)
	require.NoError(t, err)
	require.Equal(t, msg, again, "one intent is one transaction")
	info, err := c.Channel(ctx, b.ch)
	require.NoError(t, err)
	require.Equal(t, abi.NewTokenAmount(1005), info.Balance)
	_, err = c.Channel(ctx, b.payer.Address)
	require.ErrorIs(t, err, pay.ErrUnknownChannel)
	found, err := c.Lookup(ctx, b.payer.Address, op.Intent)
	require.NoError(t, err)
	require.Equal(t, msg, found)
}

// wallet is keys in memory.
type wallet map[address.Address]*pay.Key

func (w wallet) Has(a address.Address) bool { return w[a] != nil }

func (w wallet) Key(a address.Address) (*pay.Key, error) {
	if k := w[a]; k != nil {
		return k, nil
	}
	return nil, pay.ErrNoKey
}
