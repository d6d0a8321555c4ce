package config

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/reason"
)

// TestCheckPrivate: each secret, each folder of them and the home itself, with each mode that lets others in.
func TestCheckPrivate(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes")
	}
	h := Home{filepath.Join(t.TempDir(), "home")}
	paths := []string{h.Dir}
	require.NoError(t, os.MkdirAll(h.Path("wallet"), 0o700))
	require.NoError(t, os.MkdirAll(h.Path("operator"), 0o700))
	for _, name := range []string{"token", "libp2p.key", "tls.key", "wallet/f1key", "operator/f1key"} {
		require.NoError(t, os.WriteFile(h.Path(name), nil, 0o600))
		paths = append(paths, h.Path(name))
	}
	require.NoError(t, os.WriteFile(h.Path("tls.crt"), nil, 0o644))
	require.NoError(t, h.CheckPrivate())
	for _, p := range append(paths, h.Path("wallet"), h.Path("operator")) {
		st, err := os.Stat(p)
		require.NoError(t, err)
		own := st.Mode().Perm()
		for _, open := range []fs.FileMode{0o066, 0o044, 0o022, 0o004, 0o040} {
			require.NoError(t, os.Chmod(p, own|open))
			err := h.CheckPrivate()
			require.ErrorIs(t, err, reason.FilePermission, "%s %o", p, own|open)
			require.ErrorContains(t, err, p)
			require.NoError(t, os.Chmod(p, own))
		}
	}
	require.NoError(t, h.CheckPrivate())
}
