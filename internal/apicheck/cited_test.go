package apicheck

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// cited is the number of a requirement, a test or a decision.
var cited = regexp.MustCompile(`\b([RMTGOW]-[A-Z]?\d+|D\d{1,2})\b`)

// TestCitedNumbers: whoever meets the number of a requirement in the code finds it in docs/spec.
func TestCitedNumbers(t *testing.T) {
	known := map[string]bool{}
	texts, err := filepath.Glob("../../docs/spec/*.md")
	require.NoError(t, err)
	for _, name := range texts {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		for _, n := range cited.FindAllString(string(text), -1) {
			known[n] = true
		}
	}
	require.Greater(t, len(known), 300)
	found := 0
	require.NoError(t, filepath.WalkDir("../..", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") {
			return err
		}
		text, err := os.ReadFile(name)
		for i, line := range strings.Split(string(text), "\n") {
			_, comment, ok := strings.Cut(line, "//")
			if !ok {
				continue
			}
			for _, n := range cited.FindAllString(comment, -1) {
				if found++; !known[n] {
					t.Errorf("%s:%d cites %s, which is in no text of docs/spec", name, i+1, n)
				}
			}
		}
		return err
	}))
	require.Greater(t, found, 100)
}
