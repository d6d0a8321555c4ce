package apicheck

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// suppressions is how many findings of linters are suppressed in the code. It only goes down (R-L6).
const suppressions = 0

// TestSuppressions: no finding of vet or a linter is suppressed in the code without being counted here, and the ones that the linter looks for
// are those of R-L6.
func TestSuppressions(t *testing.T) {
	n, mark := 0, "//"+"nolint"
	require.NoError(t, filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		data, err := os.ReadFile(path)
		n += strings.Count(string(data), mark)
		return err
	}))
	require.LessOrEqual(t, n, suppressions)
	config, err := os.ReadFile("../../.golangci.yml")
	require.NoError(t, err)
	for _, linter := range []string{"govet", "staticcheck", "errcheck", "ineffassign", "unused"} {
		require.Contains(t, string(config), linter)
	}
}
