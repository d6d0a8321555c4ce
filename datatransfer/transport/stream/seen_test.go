package stream

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSeen: the table answers as a map does, however keys repeat and whatever they share.
func TestSeen(t *testing.T) {
	s, want := newSeen(), map[[keyEnd]byte]bool{}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		var k [keyEnd]byte
		binary.LittleEndian.PutUint64(k[rnd.IntN(9):], rnd.Uint64N(60_000)) // the key of zeros among them
		require.Equal(t, want[k], s.addKey(k))
		want[k] = true
	}
}
