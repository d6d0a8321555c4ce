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

// namedFile is a Go file or a folder of the repository in a text.
var namedFile = regexp.MustCompile("`([a-z0-9_]+(?:/[a-zA-Z0-9_]+)*(?:\\.go)?)`")

// TestNamedFiles: the files that texts send a reader to are there. A name may leave out the folders that its context gives.
func TestNamedFiles(t *testing.T) {
	var names []string
	require.NoError(t, filepath.WalkDir("../..", func(name string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel("../..", name)
		names = append(names, "/"+filepath.ToSlash(rel))
		if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), ".") && rel != "." {
			return filepath.SkipDir
		}
		return err
	}))
	there := func(name string) bool {
		for _, n := range names {
			if strings.HasSuffix(n, "/"+name) {
				return true
			}
		}
		return false
	}
	checked := 0
	for _, text := range []string{"../../ARCHITECTURE.md", "../../docs/manual/extending.md", "../../docs/manual/embedding.md"} {
		b, err := os.ReadFile(text)
		require.NoError(t, err)
		for _, m := range namedFile.FindAllStringSubmatch(string(b), -1) {
			name := m[1]
			if !strings.HasSuffix(name, ".go") && strings.Count(name, "/") < 1 || strings.HasPrefix(name, "go/") {
				continue // a word, a package alone
			}
			if checked++; !there(name) {
				t.Errorf("%s names %s, which is not there", text, name)
			}
		}
	}
	require.Greater(t, checked, 30)
}
