package config_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/config"
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
