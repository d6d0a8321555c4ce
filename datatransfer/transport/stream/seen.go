package stream

import (
	"hash/maphash"

	"github.com/ipfs/go-cid"
)

// seen remembers blocks by the end of their hash. It is a table of its own, because small blocks spend more time in a map than in being
// verified: one place in memory is looked at for each, and there is nothing for the garbage collector to follow.
type seen struct {
	seed  maphash.Seed // so that no peer can choose blocks that meet in one place
	slots [][keyEnd]byte
	n     int
	zero  bool // the key of zeros, which marks an empty slot
}

// keyEnd is how much of a hash tells blocks apart.
const keyEnd = 16

// shortKey is the length from which the end of a key is a multihash and nothing of the codec before it.
const shortKey = 26

func newSeen() *seen { return &seen{seed: maphash.MakeSeed(), slots: make([][keyEnd]byte, 64)} }

// add notes a block, and tells whether it was there.
func (s *seen) add(c cid.Cid) (again bool) {
	var k [keyEnd]byte
	hash := c.KeyString() // its end is that of the multihash
	if len(hash) < shortKey {
		hash = string(c.Hash())
	}
	copy(k[:], hash[max(0, len(hash)-len(k)):])
	return s.addKey(k)
}

func (s *seen) addKey(k [keyEnd]byte) (again bool) {
	if k == ([keyEnd]byte{}) {
		again, s.zero = s.zero, true
		return again
	}
	if s.n >= len(s.slots)/4*3 {
		s.grow()
	}
	at, found := s.find(k)
	if !found {
		s.slots[at] = k
		s.n++
	}
	return found
}

// find is where a key is, or belongs.
func (s *seen) find(k [keyEnd]byte) (at uint64, found bool) {
	mask := uint64(len(s.slots) - 1)
	for at = maphash.Bytes(s.seed, k[:]) & mask; ; at = (at + 1) & mask {
		switch s.slots[at] {
		case k:
			return at, true
		case [keyEnd]byte{}:
			return at, false
		}
	}
}

func (s *seen) grow() {
	old := s.slots
	s.slots = make([][keyEnd]byte, 2*len(old))
	for _, k := range old {
		if k != ([keyEnd]byte{}) {
			at, _ := s.find(k)
			s.slots[at] = k
		}
	}
}
