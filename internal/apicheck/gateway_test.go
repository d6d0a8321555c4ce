package apicheck

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// gatewayRows says where each requirement of the specification of the gateway is held, or why it is not built.
var gatewayRows = map[string]string{
	"G-01": "internal/apicheck.TestNoGoEthereum", "G-03": "gateway.TestRequests", "G-04": "gateway.TestHeaders", "G-05": "gateway.TestHeaders", "G-06": "gateway.TestHeaders",
	"G-07": "gateway.TestCARRanges", "G-08": "gateway.TestG_08_CutAnswers", "G-09": "gateway.TestRequests", "G-10": "gateway.TestConfiguration",
	"G-11": "gateway.TestPlanEqualsTraversal", "G-12": "gateway.TestG_12_OpenPlans", "G-13": "gateway.TestG_13_MissingBlocks", "G-14": "gateway.TestG_90_Denied",
	"G-15": notBuilt + "blocks are read one by one and not with their neighbours; a paid window is whole in memory before its commit (gateway/paychannel.TestCrashPoints)",
	"G-18": "gateway.TestPieceRanges", "G-19": notBuilt + "proofs of a range of a piece; our buyer does not pay by /piece",
	"G-30": "internal/accounting.TestRate", "G-31": "internal/accounting.TestRate", "G-32": "internal/accounting.TestRate", "G-33": "gateway/paychannel.TestG_33_HonouredPrices",
	"G-34": "gateway/x402.TestG_34_StrictDecoding", "G-35": "gateway/paychannel.TestG_35_Windows", "G-40": "gateway/paychannel.TestCrashPoints",
	"G-41": "gateway/paychannel.TestG_41_Exact", "G-42": "gateway/paychannel.TestG_42_Replay", "G-43": "gateway/paychannel.TestG_42_Replay",
	"G-44": "gateway/paychannel.TestCrashPoints", "G-45": "gateway/batch.BenchmarkChallenge",
	"G-46": "gateway/batch.TestG_46_Refund", "G-47": "gateway/batch.TestG_46_Refund", "G-50": "gateway/paychannel.TestG_50_OneCharge", "G-51": "gateway/paychannel.TestG_35_Windows",
	"G-02": "internal/apicheck.TestNoInternalTypes", "G-52": notBuilt + "the records of lanes and days stay as they are (docs/adr/0017)",
	"G-53": "cmd/cartage.TestScripts", "G-54": "gateway/batch.TestG_54_Relays", "G-55": "gateway/batch.TestG_55_Withdrawal", "G-56": "gateway/batch.TestG_56_ChainAway", "G-57": "gateway/batch.TestG_55_Withdrawal",
	"G-58": "paych/evm.TestG_58_Recover", "G-60": "gateway/paychannel.TestCheats", "G-61": "gateway/paychannel.TestFreeAndForeign", "G-62": notBuilt + "cartage proxy",
	"G-70": notBuilt + "one machine behind a name", "G-90": "internal/denylist.TestG_90_Rules", "G-91": notBuilt + "nothing is announced, and /routing/v1 is 404 unless an embedder gives a handler",
	"G-93": notBuilt + "a free allowance for each address", "G-94": "cmd/cartage.TestScripts", "G-95": "gateway.TestG_95_Limits",
}

// TestGatewayRows: each requirement has a test that is there, or a reason why not.
func TestGatewayRows(t *testing.T) {
	declared, tests := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`), map[string]bool{}
	require.NoError(t, filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		src, err := os.ReadFile(path)
		pkg, _ := filepath.Rel("../..", filepath.Dir(path))
		for _, m := range declared.FindAllSubmatch(src, -1) {
			tests[filepath.ToSlash(pkg)+"."+string(m[1])] = true
		}
		return err
	}))
	for row, where := range gatewayRows {
		if why, missing := strings.CutPrefix(where, notBuilt); missing {
			t.Logf("%s is not built, or not so: %s", row, why)
			continue
		}
		require.True(t, tests[where], "%s is held by %s, which is not there", row, where)
	}
	for _, span := range [][2]int{{1, 15}, {18, 19}, {30, 35}, {40, 47}, {50, 58}, {60, 62}, {70, 70}, {90, 91}, {93, 95}} {
		for n := span[0]; n <= span[1]; n++ {
			require.Contains(t, gatewayRows, fmt.Sprintf("G-%02d", n))
		}
	}
}

// TestNoGoEthereum: no package of the product depends on go-ethereum.
func TestNoGoEthereum(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "../../...").Output()
	require.NoError(t, err)
	require.NotContains(t, string(out), "go-ethereum")
	require.Contains(t, string(out), "cartage/paych/evm")
}
