package node_test

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/node"
)

// kindOf groups the files of a home: by folder, and in a store by what they are for.
func kindOf(name string) string {
	dir, base := filepath.Split(name)
	for _, kind := range []string{"MANIFEST", "OPTIONS", "marker", "LOCK", "acknowledged"} {
		if strings.HasPrefix(base, kind) {
			return dir + kind
		}
	}
	if ext := filepath.Ext(base); dir != "" && ext != "" {
		return dir + "*" + ext
	}
	if dir != "" {
		return dir + "*"
	}
	return base
}

// homeToFlip is a closed home with a piece for sale, and what it tells.
func homeToFlip(t *testing.T) (dir, want string) {
	dir = filepath.Join(t.TempDir(), "home")
	h := config.Home{Dir: dir}
	_, err := node.Init(h, node.InitOptions{})
	require.NoError(t, err)
	o, err := node.Open(t.Context(), h, node.Options{Provide: true, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "data.bin")
	data := make([]byte, 100_000)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(data)
	require.NoError(t, os.WriteFile(file, data, 0o600))
	_, err = o.API().ProvideAs(t.Context(), api.ProvideRequest{Path: file})
	require.NoError(t, err)
	require.NoError(t, o.Close(t.Context()))
	want, err = tellHome(t, h)
	require.NoError(t, err)
	return dir, want
}

// tellHome opens a home and says what it holds.
func tellHome(t *testing.T, h config.Home) (string, error) {
	o, err := node.Open(t.Context(), h, node.Options{Provide: true, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		return "", err
	}
	defer func() { _ = o.Close(t.Context()) }()
	n := o.API()
	info, err := n.Info(t.Context())
	if err != nil {
		return "", err
	}
	pieces, err := n.Pieces(t.Context())
	if err != nil {
		return "", err
	}
	deals, err := n.Deals(t.Context())
	if err != nil {
		return "", err
	}
	ask, err := n.Ask(t.Context())
	if err != nil {
		return "", err
	}
	out := fmt.Sprintln(info.PeerID, info.Wallet, len(deals), ask.PricePerByte, ask.PaymentInterval)
	for _, p := range pieces {
		out += fmt.Sprintln(p.Root, p.PieceCID, p.Bytes, p.State)
	}
	return out, nil
}

// TestFlips changes one bit of a file of a home at a time, of each kind of file in turn, and opens it: it tells the same as before, or says
// what is wrong. It prints how each kind did. CARTAGE_FLIPS is how many bits.
func TestFlips(t *testing.T) {
	trials := 100
	if n, err := strconv.Atoi(os.Getenv("CARTAGE_FLIPS")); err == nil {
		trials = n
	}
	clean, want := homeToFlip(t)
	kinds := map[string][]string{}
	require.NoError(t, filepath.WalkDir(clean, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if st, err := e.Info(); err != nil || st.Size() == 0 {
			return err
		}
		name, err := filepath.Rel(clean, path)
		kinds[kindOf(name)] = append(kinds[kindOf(name)], name)
		return err
	}))
	names := make([]string, 0, len(kinds))
	for k := range kinds {
		names = append(names, k)
	}
	sort.Strings(names)
	table := map[string][3]int{} // the same, named, silent
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range trials {
		kind := names[i%len(names)]
		name := kinds[kind][rng.IntN(len(kinds[kind]))]
		dir := filepath.Join(t.TempDir(), "home")
		require.NoError(t, os.MkdirAll(dir, 0o700))
		require.NoError(t, os.CopyFS(dir, os.DirFS(clean)))
		restrict(t, dir)
		data, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		at, bit := rng.IntN(len(data)), rng.IntN(8)
		data[at] ^= 1 << bit
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
		got, err := tellHome(t, config.Home{Dir: dir})
		row := table[kind]
		switch {
		case err != nil:
			require.NotContains(t, err.Error(), "goroutine ", name)
			row[1]++
		case got == want:
			row[0]++
		default:
			row[2]++
			t.Logf("%s: bit %d of byte %d changed in silence\n%s\nwas\n%s", name, bit, at, got, want)
		}
		table[kind] = row
	}
	silent := 0
	for _, k := range names {
		r := table[k]
		silent += r[2]
		t.Logf("%-40s well or healed %3d  named %3d  silent %3d", k, r[0], r[1], r[2])
	}
	require.Zero(t, silent)
}

// restrict gives a copied home the modes of a home.
func restrict(t *testing.T, dir string) {
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return os.Chmod(path, 0o600)
	}))
}
