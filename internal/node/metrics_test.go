package node_test

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMetrics: what a scraper reads names each number of R-N20, and counts.
func TestMetrics(t *testing.T) {
	s := serve(t, true)
	file := filepath.Join(t.TempDir(), "a")
	require.NoError(t, os.WriteFile(file, make([]byte, 3000), 0o600))
	p, err := s.Provide(t.Context(), file)
	require.NoError(t, err)
	found, err := s.DagstoreLookupPieces(t.Context(), p.Root)
	require.NoError(t, err)
	require.Len(t, found, 1)
	_, err = s.DagstoreLookupPieces(t.Context(), "bafkqaaa")
	require.NoError(t, err)
	get := func(token string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.url[:len(s.url)-len("/rpc/v1")]+"/metrics", nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(body)
	}
	code, _ := get("wrong")
	require.Equal(t, http.StatusUnauthorized, code)
	code, body := get(s.token)
	require.Equal(t, http.StatusOK, code)
	for _, line := range []string{
		`cartage_dagstore_lookups_total 2`, `cartage_dagstore_lookup_hits_total 1`, `cartage_dagstore_filter_rejections_total \d+`, `cartage_dagstore_filter_passes_total \d+`,
		`cartage_dagstore_open_readers \d+`, `cartage_dagstore_index_jobs_running 0`, `cartage_dagstore_index_jobs_queued 0`, `cartage_dagstore_index_records_total 1`,
		`cartage_dagstore_index_seconds_total \S+`, `cartage_dagstore_index_bytes [1-9]\S*`, `cartage_dagstore_failures_total\{kind="block"\} 0`,
		`cartage_deals_active\{role="client"\} 0`, `cartage_deals_active\{role="provider"\} 0`, `go_goroutines \d+`,
	} {
		require.Regexp(t, regexp.MustCompile(`(?m)^`+line+`$`), body)
	}
}
