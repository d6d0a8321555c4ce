package testnet_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/api"
)

// TestTinyFree: a payload of one small block is over before the deal knows that it began; nothing may wait for it then.
func TestTinyFree(t *testing.T) {
	for range 8 {
		w := newWorld(t, 100, api.Ask{PricePerByte: "0", UnsealPrice: "0"})
		require.NoError(t, w.client.Start(w.ctx, nil))
		r, err := w.client.Retrieve(w.ctx, w.request())
		require.NoError(t, err)
		w.check(t, r, 0, 0)
	}
}
