package ui

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLasting(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0 s": 900 * time.Millisecond, "59 s": 59 * time.Second, "1 min": time.Minute, "2 min 5 s": 125 * time.Second, "12 min": 12*time.Minute + 30*time.Second,
		"1 h 1 min": 61 * time.Minute, "9 d 4 h": 220 * time.Hour, "12 d": 292 * time.Hour, "0 s ": -time.Second,
	} {
		if want == "0 s " {
			want = "0 s"
		}
		require.Equal(t, want, Lasting(d))
	}
}

func TestShort(t *testing.T) {
	require.Equal(t, "12D3…MPXk", Short("12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtMPXk"))
	require.Equal(t, "f01000", Short("f01000"))
	require.Equal(t, "a\x1b[31m0123456789", Short("a\x1b[31m0123456789"))
}
