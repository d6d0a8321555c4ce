package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const manual = "../../docs/manual/configuration.md"

const manualHead = `# Configuration

<!-- written by: UPDATE_MANUAL=1 go test ./internal/config -run TestManual -->

` + "`cartage init` writes `config.toml` into the home, with every key and its comment. A flag wins over a variable of the environment, that over the file, and that" + `
over the default; ` + "`cartage config show --origin`" + ` says which it was. The file is read strictly: an unknown key, a value of the wrong kind or one out of its
bounds is refused with its line, and all faults are told at once (` + "`cartage config validate`" + `).

` + "`cartage config set KEY VALUE` changes one key and leaves the rest of the file, comments too, as it is; `cartage config edit` opens a copy in your editor and" + `
takes it if it is valid. Keys marked *live* are taken over by a running daemon at ` + "`cartage config reload`" + ` or SIGHUP, all together or none; others wait for its next
start, and the command names them. Sizes are numbers of bytes or have a unit (` + "`64KiB`, `1MiB`, `2GiB`, `1TiB`" + `), times have one (` + "`30s`, `1h30m`" + `).

`

// TestManual: the page of the manual is what the registry of keys says. With UPDATE_MANUAL set it is written.
func TestManual(t *testing.T) {
	var b strings.Builder
	b.WriteString(manualHead)
	for _, part := range tables() {
		fmt.Fprintf(&b, "## `[%s]`\n\n%s\n\n| key | default | variable | what it is |\n|---|---|---|---|\n", part.name, part.doc)
		for _, k := range Keys() {
			if k.Table() != part.name {
				continue
			}
			doc := k.Doc
			if k.index == nil {
				doc += fmt.Sprintf("; %s to %s", k.shown(k.Min), k.shown(k.Max))
			}
			if k.Hot {
				doc += " (*live*)"
			}
			fmt.Fprintf(&b, "| `%s` | `%s` | `%s` | %s |\n", k.Short(), strings.ReplaceAll(k.Default, "|", `\|`), k.Variable(), strings.ReplaceAll(doc, "|", `\|`))
		}
		b.WriteByte('\n')
	}
	want := strings.TrimSuffix(b.String(), "\n")
	if os.Getenv("UPDATE_MANUAL") != "" {
		require.NoError(t, os.WriteFile(filepath.FromSlash(manual), []byte(want), 0o600))
		return
	}
	data, err := os.ReadFile(filepath.FromSlash(manual))
	require.NoError(t, err)
	require.Equal(t, want, string(data), "run UPDATE_MANUAL=1 go test ./internal/config -run TestManual")
}
