package paych_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/paych"
)

// TestDamagedDefault: a choice that cannot be read is healed where there is one key, and named where there are several.
func TestDamagedDefault(t *testing.T) {
	dir := t.TempDir()
	w, err := paych.OpenWallet(blob.OS{}, dir)
	require.NoError(t, err)
	a, err := w.New()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "default"), []byte(a.String()[:10]+"\n"), 0o600))
	got, err := w.Default()
	require.NoError(t, err)
	require.Equal(t, a, got)
	b, err := w.New()
	require.NoError(t, err)
	_, err = w.Default()
	require.ErrorIs(t, err, reason.StoreFailed)
	require.ErrorContains(t, err, filepath.Join(dir, "default"))
	require.NoError(t, w.SetDefault(b))
	got, err = w.Default()
	require.NoError(t, err)
	require.Equal(t, b, got)
}
