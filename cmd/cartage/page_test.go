package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/api"
)

// TestPages: a list is gone through page by page, each row once.
func TestPages(t *testing.T) {
	rows := []string{"a", "b", "c", "d", "e"}
	var seen []string
	p := &page{limit: 2}
	for range 3 {
		var got []string
		require.NoError(t, showPage(rows, p, func(s string) string { return s }, func(l []string) error { got = l; return nil }))
		require.NotEmpty(t, got)
		seen = append(seen, got...)
		p.cursor = got[len(got)-1]
	}
	require.Equal(t, rows, seen)
	none := func([]string) error { return nil }
	id := func(s string) string { return s }
	require.Equal(t, api.CodeNotFound, api.CodeOf(showPage(rows, &page{cursor: "z"}, id, none)))
	require.Equal(t, api.CodeUsage, api.CodeOf(showPage(rows, &page{limit: -1}, id, none)))
}

// TestDealGroups: each deal is in one group, and a filter takes that alone.
func TestDealGroups(t *testing.T) {
	for want, deals := range map[string][]api.Deal{
		"open":    {{Status: "Ongoing"}, {Status: "running"}},
		"waiting": {{Status: "waiting: peer-silent"}},
		"parked":  {{Status: "parked: parked-stall"}, {Status: "InsufficientFunds", Reason: "budget-used"}},
		"ended":   {{Status: "Completed", Final: true}, {Status: "Cancelled", Final: true, Reason: "cancelled"}},
		"failed":  {{Status: "Errored", Final: true}, {Status: "Rejected", Final: true}},
	} {
		for _, d := range deals {
			require.Equal(t, want, groupOf(d), d.Status)
			for _, g := range dealGroups {
				require.Equal(t, g == want, (&dealFilter{state: g}).takes(d), "%s %s", g, d.Status)
			}
		}
	}
	require.Less(t, dealNumber("c9"), dealNumber("c10"))
	require.Less(t, dealNumber("c10"), dealNumber("p12D3KooW/11"))
}
