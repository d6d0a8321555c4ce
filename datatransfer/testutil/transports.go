package testutil

import (
	"strings"
	"testing"
)

// EachTransport runs a test over graphsync and over streams. Peers of the second one prefer streams: OverStreams says so.
func EachTransport(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	for _, name := range []string{"over graphsync", overStreams} {
		t.Run(name, f)
	}
}

const overStreams = "over streams"

// OverStreams tells whether a test is one of those that EachTransport runs over streams.
func OverStreams(tb testing.TB) bool {
	return strings.Contains(tb.Name(), strings.ReplaceAll(overStreams, " ", "_"))
}
