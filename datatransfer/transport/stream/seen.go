package stream

import (
	"hash/maphash"

	"github.com/ipfs/go-cid"
)

// seen remembers blocks by the end of their hash. It is a table of its own, because small blocks spend more time in a map than in being
// verified: the keys are in the order in which they came, so that memory is touched for the first time in a row, and the table of their
// places is small enough to stay near. There is nothing for the garbage collector to follow.
type seen struct {
	seed   maphash.Seed // so that no peer can choose blocks that meet in one place
	slots  []uint32     // the number of a key, from 1, and above it a few bits of its hash; 0 is empty
	chunks [][]key
	n      int
}

type key = [keyEnd]byte

const (
	chunkKeys  = 4 << 10
	numberBits = 27 // a walk has at most carstore.MaxLinks
	numberMask = 1<<numberBits - 1
)

// keyEnd is how much of a hash tells blocks apart.
const keyEnd = 16

// shortKey is the length from which the end of a key is a multihash and nothing of the codec before it.
const shortKey = 26

func newSeen() *seen { return &seen{seed: maphash.MakeSeed(), slots: make([]uint32, 64)} }

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

func (s *seen) addKey(k key) (again bool) {
	if s.n >= len(s.slots)/4*3 {
		s.grow()
	}
	at, tag, found := s.find(k)
	if !found {
		s.slots[at] = tag | uint32(s.n+1)
		if s.n%chunkKeys == 0 {
			s.chunks = append(s.chunks, make([]key, 0, chunkKeys))
		}
		last := &s.chunks[len(s.chunks)-1]
		*last = append(*last, k)
		s.n++
	}
	return found
}

// find is where a key is, or belongs.
func (s *seen) find(k key) (at uint64, tag uint32, found bool) {
	h := maphash.Bytes(s.seed, k[:])
	tag = uint32(h>>32) &^ numberMask
	mask := uint64(len(s.slots) - 1)
	for at = h & mask; ; at = (at + 1) & mask {
		slot := s.slots[at]
		if slot == 0 {
			return at, tag, false
		}
		if slot&^numberMask == tag {
			if i := int(slot&numberMask) - 1; s.chunks[i/chunkKeys][i%chunkKeys] == k {
				return at, tag, true
			}
		}
	}
}

func (s *seen) grow() {
	s.slots = make([]uint32, 2*len(s.slots))
	for i := range s.n {
		at, tag, _ := s.find(s.chunks[i/chunkKeys][i%chunkKeys])
		s.slots[at] = tag | uint32(i+1)
	}
}
