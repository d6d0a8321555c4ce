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

// EachDecision is EachTransport, and once more over graphsync with validators that are asked later: DecidesLater says so.
func EachDecision(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	EachTransport(t, f)
	t.Run(decidedLater, f)
}

const (
	overStreams  = "over streams"
	decidedLater = "over graphsync, decided later"
)

// DecidesLater tells whether a test is one that EachDecision runs with validators that are asked later.
func DecidesLater(tb testing.TB) bool { return runs(tb, decidedLater) }

func runs(tb testing.TB, name string) bool {
	return strings.Contains(tb.Name(), strings.ReplaceAll(name, " ", "_"))
}

// OverStreams tells whether a test is one of those that EachTransport runs over streams.
func OverStreams(tb testing.TB) bool {
	return runs(tb, overStreams)
}
