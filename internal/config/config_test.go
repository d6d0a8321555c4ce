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
