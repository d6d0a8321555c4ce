package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPlaces: every fault has its place still, exactly once, and its name for itself. Whether it is caught is for the command to say: go run
// ./internal/sim/planted.
func TestPlaces(t *testing.T) {
	names := map[string]bool{}
	for _, f := range faults {
		require.False(t, names[f.name], f.name)
		names[f.name] = true
		data, err := f.apply("../../..")
		require.NoError(t, err, f.name)
		require.NotContains(t, string(data), f.old, f.name)
	}
}
