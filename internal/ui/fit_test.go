package ui

import (
	"bytes"
	"strings"
	"testing"

	"github.com/rivo/uniseg"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestFit: no row is wider than the terminal, ids keep their ends, and what fits is left as it is.
func TestFit(t *testing.T) {
	id := "p12D3KooWGC5ZLknT1U3ZwKTRwuFcC2kUD27ehgshbtYrzzJi1gyf/1796045715948848649"
	root := "bafybeid7sfin2wmhtqoavzzw43iisv7u365f6n64n6ushj5oer64goyyja"
	table := Table{Header: []string{"ID", "STATUS", "BYTES", "ROOT", "MESSAGE"}, Fit: 80, Rows: [][]string{
		{id, "Completed", "2.9 MiB", root, strings.Repeat("a long message ", 20)}, {"o1", "parked: budget-used", "1.0 MiB", root, ""}}}
	var out bytes.Buffer
	require.NoError(t, table.Write(&out))
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	require.Len(t, lines, 3)
	for _, l := range lines {
		require.LessOrEqual(t, uniseg.StringWidth(l), 80, l)
	}
	require.Contains(t, lines[1], "p12D…8649")
	require.Contains(t, lines[1], "bafy…yyja")
	require.Contains(t, lines[2], "parked: budget-used")

	out.Reset()
	require.NoError(t, Table{Header: []string{"A"}, Fit: 80, Rows: [][]string{{root}}}.Write(&out))
	require.Contains(t, out.String(), root)
}

func TestFitAlways(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fit := rapid.IntRange(20, 200).Draw(t, "fit")
		rows := rapid.SliceOfN(rapid.SliceOfN(rapid.StringN(0, 60, -1), 1, 12), 1, 5).Draw(t, "rows")
		var out bytes.Buffer
		require.NoError(t, Table{Rows: rows, Fit: fit}.Write(&out))
		for _, l := range strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n") {
			require.LessOrEqual(t, uniseg.StringWidth(strings.TrimRight(l, " ")), fit, "%q", l)
		}
	})
}
