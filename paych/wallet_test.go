package paych_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/internal/faults"
	cpaych "github.com/cartage-dev/cartage/paych"
)

// TestWallet: both kinds of keys, in the clear and sealed, sign the same after they were stored and read.
func TestWallet(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "wallet")
	w, err := cpaych.OpenWallet(blob.OS{}, dir)
	require.NoError(t, err)
	for _, kind := range []string{cpaych.KeySecp256k1, cpaych.KeyBLS} {
		a, err := w.NewOf(kind)
		require.NoError(t, err)
		sig, err := w.Sign(a, []byte("m"))
		require.NoError(t, err)
		require.NoError(t, cpaych.Verify(sig, a, []byte("m")))
	}
	_, err = w.NewOf("delegated")
	require.ErrorContains(t, err, `"delegated" is not supported`)
	before := w.List()
	require.Len(t, before, 2)
	require.NoError(t, w.SetDefault(before[1]))

	require.NoError(t, w.Seal("open sesame"))
	for _, a := range before {
		st, err := os.Stat(filepath.Join(dir, a.String()+".key"))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), st.Mode().Perm())
		data, err := os.ReadFile(filepath.Join(dir, a.String()+".key"))
		require.NoError(t, err)
		k, err := w.Key(a)
		require.NoError(t, err)
		require.NotContains(t, string(data), k.Export()[:40])
		require.True(t, bytes.HasPrefix(data, []byte("-----BEGIN AGE ENCRYPTED FILE-----")))
	}
	_, err = cpaych.OpenWallet(blob.OS{}, dir)
	require.ErrorIs(t, err, cpaych.ErrSealed)
	_, err = cpaych.OpenWallet(blob.OS{}, dir, cpaych.WithPassphrase("sesame"))
	require.ErrorIs(t, err, cpaych.ErrPassphrase)
	sealed, err := cpaych.OpenWallet(blob.OS{}, dir, cpaych.WithPassphrase("open sesame"))
	require.NoError(t, err)
	require.Equal(t, before, sealed.List())
	d, err := sealed.Default()
	require.NoError(t, err)
	require.Equal(t, before[1], d)

	require.NoError(t, sealed.Remove(before[1]))
	require.ErrorIs(t, sealed.Remove(before[1]), cpaych.ErrNoKey)
	d, err = sealed.Default()
	require.NoError(t, err)
	require.Equal(t, before[0], d, "a default that is gone is none")
	_, err = os.Stat(filepath.Join(dir, before[1].String()+".key.removed"))
	require.NoError(t, err, "its owner may still want it")
	require.NoError(t, sealed.Seal(""))
	clear, err := cpaych.OpenWallet(blob.OS{}, dir)
	require.NoError(t, err)
	require.Equal(t, before[:1], clear.List())
}

// TestWalletSealCrash: a wallet that is sealed is never without one of its keys, whichever write is the last.
func TestWalletSealCrash(t *testing.T) {
	if testing.Short() {
		t.Skip("many times the work of a pass phrase")
	}
	for n := 1; ; n++ {
		dir := t.TempDir()
		sw := &faults.Switch{At: n}
		w, err := cpaych.OpenWallet(faults.FS{FS: blob.OS{}, Switch: &faults.Switch{}}, dir)
		require.NoError(t, err)
		a, err := w.New()
		require.NoError(t, err)
		w, err = cpaych.OpenWallet(faults.FS{FS: blob.OS{}, Switch: sw}, dir)
		if err == nil {
			err = w.Seal("p")
		}
		again, oerr := cpaych.OpenWallet(blob.OS{}, dir, cpaych.WithPassphrase("p"))
		require.NoError(t, oerr, "crash at write %d", n)
		require.True(t, again.Has(a))
		if !sw.Crashed() {
			require.NoError(t, err)
			require.Greater(t, n, 2)
			return
		}
	}
}

// TestWalletBadFiles: what is no key is an error that names the file.
func TestWalletBadFiles(t *testing.T) {
	for name, data := range map[string]string{
		"nothing": "", "no key": "hello", "zero": `{"Type":"secp256k1","PrivateKey":"` + strings.Repeat("A", 43) + `="}`, "broken age": "-----BEGIN AGE ENCRYPTED FILE-----\nAAAA\n",
		"delegated": `{"Type":"delegated","PrivateKey":""}`,
	} {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "x.key"), []byte(data), 0o600))
		_, err := cpaych.OpenWallet(blob.OS{}, dir, cpaych.WithPassphrase("p"))
		require.ErrorContains(t, err, "x.key", name)
	}
}
