package apicheck

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/cartage-dev/cartage/"

// floors is the picture of ARCHITECTURE.md: imports go strictly down, or stay within a package's own subtree. The longest
// prefix decides.
var floors = map[string]float64{
	"cmd/cartage": 5, "node": 5,
	"internal/node": 4, "internal/dashboard": 3.5, "internal/ui": 0.1, "internal/testnet": 4.1, "internal/testmarket": 4.1, "internal/sim": 4.1,
	"gateway": 3.1, "gateway/x402": 0, "internal/denylist": 0,
	"api": 3, "retrievalmarket/impl": 3, "imports": 3, "retrievalmarket/marketnode": 3, "storagedeal": 3,
	"datatransfer/impl": 2, "datatransfer/transport": 2, "datatransfer/network": 2, "datatransfer/channels": 2, "datatransfer/channelmonitor": 2,
	"datatransfer/tracing": 2, "datatransfer/testutil": 2, "retrievalmarket/network": 2, "dagstore": 2, "ipfsstore": 2, "paych/ledger": 2, "internal/cartargets": 2,
	"discovery":       1.3,
	"discovery/impl":  2,
	"piecestore/impl": 2,
	"storedcounter":   0,
	"retrievalmarket": 1.2,
	"internal/port":   1.2,
	"datatransfer":    1.1, "piecestore": 1.1, "paych": 1.1, "carstore": 1.1, "commp": 1.1, "dataselector": 1.2,
	"money": 0, "fsm": 0, "shared": 0, "multistore": 0.1, "internal/accounting": 0, "blob": 0, "internal/rpc": 0, "internal/limits": 0, "internal/store": 0.1, "internal/config": 0.1, "internal/faults": 0.1, "internal/wire": 0,
	"internal/apicheck": 0, "internal/oddcars": 0,
	"internal/reason": -1, "internal/lifecycle": -1, "internal/serial": -0.9, // what everybody may use
}

// only says who alone may import a library.
var only = map[string][]string{
	"github.com/ipfs/go-graphsync":  {"datatransfer/transport/graphsync", "datatransfer/testutil", "internal/node", "internal/sim"},
	"github.com/cockroachdb/pebble": {"internal/store"},
}

func floor(pkg string) (string, float64, bool) {
	best, level, ok := "", 0.0, false
	for prefix, f := range floors {
		if (pkg == prefix || strings.HasPrefix(pkg, prefix+"/")) && len(prefix) > len(best) {
			best, level, ok = prefix, f, true
		}
	}
	return best, level, ok
}

// sameHouse tells whether two packages are in one subtree, or are the leaves of a contract root.
func sameHouse(from, to string) bool {
	root := func(s string) string { return strings.SplitN(s, "/", 2)[0] }
	return root(from) == root(to) && root(from) != "internal"
}

func TestFloors(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "../../...").Output()
	require.NoError(t, err)
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p struct {
			ImportPath string
			Imports    []string
		}
		require.NoError(t, d.Decode(&p))
		from := strings.TrimPrefix(p.ImportPath, module)
		home, level, known := floor(from)
		if !known {
			t.Errorf("package %s has no floor", from)
			continue
		}
		for _, imp := range p.Imports {
			for lib, who := range only {
				if strings.HasPrefix(imp, lib) && !allowed(from, who) {
					t.Errorf("%s imports %s, which only %v may", from, imp, who)
				}
			}
			to, ours := strings.CutPrefix(imp, module)
			if !ours {
				continue
			}
			target, below, ok := floor(to)
			if !ok || below >= level && target != home && !sameHouse(from, to) {
				t.Errorf("%s (floor %v) imports %s (floor %v)", from, level, to, below)
			}
		}
	}
}

func allowed(from string, who []string) bool {
	for _, w := range who {
		if from == w || strings.HasPrefix(from, w+"/") {
			return true
		}
	}
	return false
}

// TestRootContexts: below main and tests every context descends from a caller's, with one exception.
func TestRootContexts(t *testing.T) {
	require.NoError(t, filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && d.Name() == "testdata" { // programs of others
			return filepath.SkipDir
		}
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		src, err := os.ReadFile(path)
		switch rel, _ := filepath.Rel("../..", path); rel {
		case "shared/lifetime.go", "cmd/cartage/main.go", "bench/main.go", "bench/storage/main.go", "internal/sim/planted/main.go", "tools/release/main.go":
		default:
			if strings.Contains(string(src), "context.Background()") || strings.Contains(string(src), "context.TODO()") {
				t.Errorf("%s makes a context of its own", rel)
			}
		}
		return err
	}))
}

// TestNoCgo: the product builds without a C compiler.
func TestNoCgo(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{if .CgoFiles}}{{.ImportPath}}{{end}}", "../../...").Output()
	require.NoError(t, err)
	require.Empty(t, strings.TrimSpace(string(out)))
}
