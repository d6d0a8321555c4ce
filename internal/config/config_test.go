package config_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/reason"
)

// TestAuto: what the node decides by itself is a word in the file, and comes back as it was.
func TestAuto(t *testing.T) {
	h := config.Home{Dir: t.TempDir()}
	c := config.Default()
	c.Ledger.MinSettleWindow = config.Auto(90 * time.Second)
	require.NoError(t, h.Save(c))
	back, err := h.Load()
	require.NoError(t, err)
	require.Zero(t, back.Ledger.Watch)
	require.Equal(t, config.Auto(90*time.Second), back.Ledger.MinSettleWindow)
	var d config.Auto
	require.NoError(t, d.UnmarshalText([]byte("auto")))
	require.Zero(t, d)
	require.Error(t, d.UnmarshalText([]byte("often")))
}

// TestCredit: what a provider risks is what its file says; nothing is a figure like another, and a wrong one is named.
func TestCredit(t *testing.T) {
	h := config.Home{Dir: t.TempDir()}
	c := config.Default()
	l, err := c.Credit.Limits()
	require.NoError(t, err)
	require.Equal(t, accounting.DefaultCredit(), l)
	c.Credit = config.Credit{RecordShare: 8}
	require.NoError(t, h.Save(c))
	back, err := h.Load()
	require.NoError(t, err)
	l, err = back.Credit.Limits()
	require.NoError(t, err)
	require.Equal(t, accounting.CreditLimits{RecordShare: 8, Block: 1 << 20}, l)
	c.Credit.StrangersPerHour = -1
	_, err = c.Credit.Limits()
	require.ErrorIs(t, err, reason.ConfigValue)
	require.ErrorContains(t, err, "credit.strangers_per_hour is -1")
}

// TestGateway: the sizes and names of the gateway are what the file says, and a wrong one is named.
func TestGateway(t *testing.T) {
	h := config.Home{Dir: t.TempDir()}
	c := config.Default()
	c.Gateway.Listen, c.Gateway.Hosts = []string{":443"}, []string{"gw.example.org"}
	require.NoError(t, h.Save(c))
	back, err := h.Load()
	require.NoError(t, err)
	require.Equal(t, c.Gateway.Listen, back.Gateway.Listen)
	require.Equal(t, "acme", back.Gateway.Encryption())
	window, largest, err := back.Gateway.Windows()
	require.NoError(t, err)
	require.Equal(t, [2]uint64{4 << 20, 8 << 20}, [2]uint64{window, largest})
	for _, g := range []config.Gateway{{Window: "much"}, {Window: "9MiB"}, {MaxWindow: "65MiB"}, {Window: "0"}} {
		_, _, err := g.Windows()
		require.ErrorIs(t, err, reason.ConfigValue)
	}
	_, err = config.Gateway{Free: []string{"x"}}.FreeCIDs()
	require.ErrorContains(t, err, `"x"`)
	_, err = config.Gateway{PublicURL: "gw.example.org"}.Public()
	require.ErrorIs(t, err, reason.ConfigValue)
	require.Equal(t, "off", config.Gateway{}.Encryption())
}
