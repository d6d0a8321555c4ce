package config_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/reason"
)

// TestX402: what is not complete is refused by the key that is missing.
func TestX402(t *testing.T) {
	good := config.Default().X402
	good.Asset, good.Price, good.PayTo, good.Facilitator = "usdc@base", "7USDC/TiB", "0x5050A4F4b3f9338C3472dcC01A87C76A144b3c9c", "https://example.org"
	require.NoError(t, good.Check())
	token, err := good.Selected()
	require.NoError(t, err)
	require.Equal(t, "eip155:8453", token.Network)
	a, err := token.Amount("claim_at", good.ClaimAt)
	require.NoError(t, err)
	require.EqualValues(t, 1_000_000, a.Units.Int64())
	fee, err := good.Fee()
	require.NoError(t, err)
	require.EqualValues(t, 5_000_000_000, fee.Int64())
	for key, change := range map[string]func(*config.X402){
		"price":       func(x *config.X402) { x.Price = "" },
		"pay_to":      func(x *config.X402) { x.PayTo = "" },
		"relay":       func(x *config.X402) { x.Relay = "mail" },
		"facilitator": func(x *config.X402) { x.Facilitator = "" },
		"rpc":         func(x *config.X402) { x.Relay = "direct" },
	} {
		x := good
		change(&x)
		require.ErrorContains(t, x.Check(), "x402."+key)
		require.ErrorIs(t, x.Check(), reason.ConfigValue)
	}
	good.Asset = "tusd@local"
	_, err = good.Selected()
	require.ErrorContains(t, err, "tusd@local")
	good.TokenName = "tusd@local"
	_, err = good.Selected()
	require.ErrorContains(t, err, "not complete")
	_, err = token.Amount("claim_at", "1.2345678")
	require.ErrorContains(t, err, "claim_at")
	good.MaxFee = "much"
	_, err = good.Fee()
	require.ErrorContains(t, err, "max_fee")
}
