package apicheck

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// nodeRows are the requirements and tests of the node's specification (sections 1 to 7) that no test carries in its name: the test that
// holds them, or, after one of the words below, why there is none.
var nodeRows = map[string]string{
	"R-D7": "dagstore.TestCrash", "R-D8": "dagstore.TestCrash", "R-D9": "dagstore/index.TestEmbedded", "R-D16": measured + "the row of a thousand readers",
	"R-M1": "dagstore.TestHTTPMount", "R-M2": "dagstore.TestR_M3", "R-M5": "commp.TestT_P1",
	"R-M4": notBuilt + "a source that can only stream is copied as a whole, within the quota of copies",
	"R-W3": "cmd/cartage.TestScripts", // dagstore.txtar: a folder and a list; the store of the reference is not read
	"R-J1": "cmd/cartage.TestScripts", "R-J2": "internal/node.TestAPIErrors",
	"R-B2": "dagstore.TestR_N12", "R-B3": "dagstore.TestR_N12", "R-B4": "dagstore.TestChangedPiece",
	"R-I2": "imports.TestVectors", "R-I10": notBuilt + "the reference-CARs of other nodes are not read: import the file again",
	"R-E1": "carstore.TestExportAside", "R-E2": "cmd/cartage.TestScripts", "R-E3": "internal/testnet.TestCountUp", "R-E4": "cmd/cartage.TestScripts", // parts.txtar
	"R-S1": "cmd/cartage.TestScripts", "T-S2": "retrievalmarket/impl.TestSharedStore", // into.txtar; equal retrievals into files share one file and one deal (D9)
	"R-P2": "commp.TestT_P1", "R-P3": "commp.TestT_P5", "R-P4": "commp.BenchmarkCompute", "R-P5": "cmd/cartage.TestScripts", "R-P6": "dagstore.TestWrongPiece",
	"R-F1": "internal/node.TestFilecoinNamespace", "R-X1": "imports.TestR_I9",
	"R-C1": "carstore.TestTornTail", "R-C2": "carstore.TestGrowAndFinalize", "R-C3": "carstore.FuzzInspect", "R-C4": "dagstore/index.TestEmbedded", "R-C5": "dagstore/index.TestEmbedded",
	"R-T2": "storagedeal.TestR_T1", "R-T3": "storagedeal.TestHostileQuestions", "R-T8": "storagedeal.TestRules",
	"T-W2": "storagedeal.TestT_T1",
	"R-L1": "internal/node.TestClientAPI", "R-L2": "dagstore.TestR_D13", "R-L3": "internal/node.TestClientAPI", "R-L4": "datatransfer/impl.TestChecklist14",
	"R-L5": "internal/node.TestR_J3", "R-L6": "internal/apicheck.TestSuppressions", "R-L8": "carstore.TestExportAside",
	"T-L1": "internal/node.TestClientAPI", "T-L2": "internal/node.TestClientAPI", "T-L3": "internal/testmarket.TestThousandDeals",
	"T-L4": "datatransfer/impl.TestChecklist14", "T-L5": "dagstore.TestR_D13",
	"R-N2": "dagstore/index.TestEmbedded", "R-N3": "dagstore/index.TestEmbedded",
	"R-N5": "dagstore.TestR_D6", "R-N6": measured + "look-ups", "R-N7": "dagstore/index.TestEmbedded", "R-N8": measured + "idle shards",
	"R-N9": "dagstore.TestLies", "R-N10": "dagstore.TestR_N12", "R-N13": notBuilt + "pieces of several CARs (data segments)",
	"R-N15": notBuilt + "the PostgreSQL back-end is next; its conformance suite is dagstore/index/indextest",
	"R-N16": notBuilt + "as R-N15", "R-N17": notBuilt + "the index has no process of its own",
	"R-N20": "internal/node.TestMetrics",
}

// Words of the table. What is measured is in docs/benchmarks/storage.md.
const (
	notBuilt = "not built: "
	measured = "measured: "
)

// TestNodeRows: each row of the node's specification has a test, by its name or by the table above, or a reason why not. What the table
// names is there.
func TestNodeRows(t *testing.T) {
	named, tests := map[string]bool{}, map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	row := regexp.MustCompile(`([RT])_([A-Z]\d+)`)
	require.NoError(t, filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		src, err := os.ReadFile(path)
		pkg, _ := filepath.Rel("../..", filepath.Dir(path))
		for _, m := range declared.FindAllSubmatch(src, -1) {
			tests[pkg+"."+string(m[1])] = true
			for _, r := range row.FindAllSubmatch(m[1], -1) {
				named[string(r[1])+"-"+string(r[2])] = true
			}
		}
		return err
	}))
	for r, test := range nodeRows {
		reason, missing := strings.CutPrefix(test, notBuilt)
		if missing {
			t.Logf("%s is not built, or not so: %s", r, reason)
			continue
		}
		if strings.HasPrefix(test, measured) {
			continue
		}
		found := false
		for name := range tests {
			found = found || strings.HasPrefix(name, test)
		}
		require.True(t, found, "%s is held by %s, which is not there", r, test)
	}
	for group, last := range map[string]int{"R-D": 17, "R-M": 6, "R-W": 4, "R-J": 3, "R-B": 4, "R-I": 10, "R-E": 4, "R-S": 1, "R-P": 7, "R-F": 1, "R-X": 1, "R-C": 5,
		"R-T": 9, "R-L": 8, "R-N": 20, "T-W": 2, "T-C": 1, "T-S": 2, "T-P": 5, "T-T": 7, "T-L": 5} {
		for n := 1; n <= last; n++ {
			r := group + strconv.Itoa(n)
			_, listed := nodeRows[r]
			require.True(t, named[r] || listed, "row %s has no test and no reason", r)
		}
	}
}

// TestR_L7 : no marker of unfinished work is in the code.
func TestR_L7(t *testing.T) {
	marker := regexp.MustCompile(`//.*\b(TO` + `DO|FIX` + `ME|X` + `XX)\b`)
	require.NoError(t, filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		src, err := os.ReadFile(path)
		require.False(t, marker.Match(src), "%s has an unfinished part: %s", path, marker.Find(src))
		return err
	}))
}
