package apicheck

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// embedders are programs of another module, how many lines they may have, and what those print that need nobody else.
var embedders = map[string]struct {
	lines  int
	prints string
}{
	"buy":      {20, ""},
	"sell":     {20, ""},
	"transfer": {60, "seat 7A\nCompleted hello\n"},
	"mount":    {40, "the block that was mounted\n"},
}

// TestEmbedders builds programs as a foreign module that has this one behind a replace line, runs those that can be run alone, and keeps them short.
func TestEmbedders(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds and links four programs")
	}
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Join(root, "testdata/embed"))))
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	require.NoError(t, err)
	text := regexp.MustCompile(`(?m)^module .*$`).ReplaceAllString(string(mod), "module example.com/embed")
	text += "\nrequire " + strings.TrimSuffix(module, "/") + " v0.0.0\n\nreplace " + strings.TrimSuffix(module, "/") + " => " + root + "\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte(text), 0o600))
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o600))
	build := exec.Command("go", "build", "-p", "2", "-mod=mod", "-o", "bin/", "./...")
	build.Dir = dir
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	for name, e := range embedders {
		src, err := os.ReadFile(filepath.Join(dir, name, "main.go"))
		require.NoError(t, err)
		require.LessOrEqual(t, codeLines(string(src)), e.lines, name)
		if e.prints == "" {
			continue
		}
		run := exec.Command(filepath.Join(dir, "bin", name))
		run.Dir = t.TempDir()
		out, err := run.CombinedOutput()
		require.NoError(t, err, "%s: %s", name, out)
		require.Equal(t, e.prints, string(out), name)
	}
}

// codeLines counts the lines of a program without its imports, comments and what is blank.
func codeLines(src string) (n int) {
	_, src, _ = strings.Cut(src, "\n)\n")
	for l := range strings.Lines(src) {
		if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "//") {
			n++
		}
	}
	return n
}
