package apicheck

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// room is the folder that a package belongs to: the first of its path, below internal/ the second. The contract that manager, transports
// and market declare for each other stands outside datatransfer because Go's rule for internal packages wants it there.
func room(pkg string) string {
	parts := strings.SplitN(pkg, "/", 3)
	switch {
	case pkg == "internal/port":
		return "datatransfer"
	case parts[0] == "internal" && len(parts) > 1:
		return parts[0] + "/" + parts[1]
	}
	return parts[0]
}

// TestNoFolderCycles: of two folders at most one imports the other.
func TestNoFolderCycles(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "../../...").Output()
	require.NoError(t, err)
	uses := map[[2]string]string{}
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p struct {
			ImportPath string
			Imports    []string
		}
		require.NoError(t, d.Decode(&p))
		from := strings.TrimPrefix(p.ImportPath, module)
		for _, imp := range p.Imports {
			if to, ours := strings.CutPrefix(imp, module); ours && room(to) != room(from) {
				uses[[2]string{room(from), room(to)}] = from + " imports " + to
			}
		}
	}
	require.NotEmpty(t, uses)
	for pair, why := range uses {
		if back, both := uses[[2]string{pair[1], pair[0]}]; both && pair[0] < pair[1] {
			t.Errorf("%s and %s import each other: %s, and %s", pair[0], pair[1], why, back)
		}
	}
}
