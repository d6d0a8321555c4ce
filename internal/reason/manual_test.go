package reason

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	manual      = "../../docs/manual/troubleshooting.md"
	manualBegin = "<!-- the list of reasons: UPDATE_MANUAL=1 go test ./internal/reason -run TestManual -->\n"
	manualEnd   = "<!-- end of the list -->\n"
)

// TestManual: the manual has the list of reasons as the code has it. With UPDATE_MANUAL set it is written.
func TestManual(t *testing.T) {
	var list strings.Builder
	list.WriteString("| code | exit | side | what it says | what to do |\n|---|---|---|---|---|\n")
	for r := range All() {
		fmt.Fprintf(&list, "| `%s` | %d | %s | %s | %s |\n", r.String(), r.Exit(), r.Blame(), r.Error(), r.Next())
	}
	data, err := os.ReadFile(filepath.FromSlash(manual))
	require.NoError(t, err)
	before, rest, ok := strings.Cut(string(data), manualBegin)
	require.True(t, ok)
	_, after, ok := strings.Cut(rest, manualEnd)
	require.True(t, ok)
	want := before + manualBegin + list.String() + manualEnd + after
	if os.Getenv("UPDATE_MANUAL") != "" {
		require.NoError(t, os.WriteFile(filepath.FromSlash(manual), []byte(want), 0o600))
		return
	}
	require.Equal(t, want, string(data), "run UPDATE_MANUAL=1 go test ./internal/reason -run TestManual")
}
