package carstore_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/internal/reason"
)

func saying(text string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	}
}

func names(t *testing.T, dir string) (out []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}

// TestOneOutput: while one writes to a path, a second is refused by name, before and after the first is done, with force and without; the
// file is that of the one who was told that it is done.
func TestOneOutput(t *testing.T) {
	for _, force := range []bool{false, true} {
		dest := filepath.Join(t.TempDir(), "out")
		var second error
		err := carstore.WriteAside(blob.OS{}, dest, force, func(w io.Writer) error {
			second = carstore.WriteAside(blob.OS{}, dest, force, saying("second"))
			return saying("first")(w)
		})
		require.NoError(t, err)
		require.ErrorIs(t, second, reason.OutputBusy)
		got, err := os.ReadFile(dest)
		require.NoError(t, err)
		require.Equal(t, "first", string(got))
		require.Equal(t, []string{"out"}, names(t, filepath.Dir(dest)))
	}
}

// TestManyToOneOutput: of many at once without force exactly one succeeds, and it is its file.
func TestManyToOneOutput(t *testing.T) {
	for range 25 {
		dest := filepath.Join(t.TempDir(), "out")
		var all sync.WaitGroup
		errs := make([]error, 8)
		for n := range errs {
			all.Go(func() { errs[n] = carstore.WriteAside(blob.OS{}, dest, false, saying(fmt.Sprint(n))) })
		}
		all.Wait()
		got, err := os.ReadFile(dest)
		require.NoError(t, err)
		for n, err := range errs {
			if string(got) == fmt.Sprint(n) {
				require.NoError(t, err)
				continue
			}
			require.True(t, errors.Is(err, reason.OutputBusy) || errors.Is(err, reason.OutputExists), err)
		}
	}
}

// TestTheSameOutput: a path is the same however it is written, and another path is another.
func TestTheSameOutput(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Symlink(dir, filepath.Join(dir, "self")))
	t.Chdir(dir)
	d, err := carstore.ClaimDest(blob.OS{}, "out", false)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "out"), d.Path())
	for _, same := range []string{"./out", filepath.Join("self", "self", "out"), filepath.Join(dir, "x", "..", "out")} {
		_, err := carstore.ClaimDest(blob.OS{}, same, true)
		require.ErrorIs(t, err, reason.OutputBusy, same)
	}
	long := strings.Repeat("n", 250) // a name that leaves no room for another beside it
	for _, other := range []string{"out2", long + "a", long + "b"} {
		o, err := carstore.ClaimDest(blob.OS{}, other, false)
		require.NoError(t, err)
		require.NoError(t, errors.Join(o.WriteFile(saying(other)), o.Release()))
	}
	require.NoError(t, d.Release())
	require.ElementsMatch(t, []string{"self", "out2", long + "a", long + "b"}, names(t, dir))
}

// TestLeftOfAKilledExport: what a killed holder left is no lock and is removed, and only what a holder can have left.
func TestLeftOfAKilledExport(t *testing.T) {
	dir := t.TempDir()
	dest := filepath.Join(dir, "out")
	for _, tc := range []struct{ note, there string }{
		{".out.cartage-partial-ABC", ""}, {"keep", "keep"}, {"../keep", ""}, {".out.cartage-partial-/../../keep", ""}, {"", ""}, {strings.Repeat("x", 9000), ""},
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, ".out.cartage-lock"), []byte(tc.note), 0o600))
		if tc.note != "" && !strings.ContainsAny(tc.note, "/x") {
			require.NoError(t, os.MkdirAll(filepath.Join(dir, tc.note, "half"), 0o700))
		}
		require.NoError(t, carstore.WriteAside(blob.OS{}, dest, true, saying("whole")))
		want := []string{"out"}
		if tc.there != "" {
			want = []string{"keep", "out"}
		}
		require.Equal(t, want, names(t, dir), tc.note)
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "keep")))
	}
}
