package sim

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"

	"github.com/cartage-dev/cartage/carstore"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
)

// loot is the store of a thief. It claims the first blocks of each payload, which it can read, and counts what it is given beyond them.
type loot struct {
	w      *world
	claims int
	lies   bool // it claims another number each time
	rnd    *rand.Rand

	mu     sync.Mutex
	nasty  bool
	blocks map[cid.Cid][]byte
	bytes  uint64
}

func newLoot(w *world, claims int, lies bool) *loot {
	return &loot{w: w, claims: claims, lies: lies, rnd: rand.New(rand.NewPCG(w.plan.Seed, 77)), blocks: map[cid.Cid][]byte{}}
}

// mean ends all payments.
func (l *loot) mean() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nasty = true
}

func (l *loot) isMean() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nasty
}

func (l *loot) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.blocks)
}

func (l *loot) taken() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes
}

// Open implements retrievalimpl.Targets.
func (l *loot) Open(_ context.Context, d rm.ClientDealState) (retrievalimpl.Target, error) {
	return &stolen{loot: l, root: d.PayloadCID}, nil
}

// Done implements retrievalimpl.Targets.
func (l *loot) Done(rm.ClientDealState) {}

// stolen is a store as one deal sees it.
type stolen struct {
	*loot
	root cid.Cid
	mu   sync.Mutex
	had  map[cid.Cid]bool // the blocks that it claims
	base uint64
	mine uint64
}

var errEnoughClaimed = errors.New("enough")

// claim draws how many of the first blocks it says it has; mu is held.
func (s *stolen) claim(sel ipld.Node) {
	n := s.claims
	if s.lies {
		n = s.rnd.IntN(20)
	}
	s.had, s.base = map[cid.Cid]bool{}, 0
	ls := carstore.Links(func(c cid.Cid) ([]byte, error) {
		data, err := s.w.pieces.store.Get(c)
		if len(s.had) >= n {
			return nil, errEnoughClaimed
		}
		if !s.had[c] {
			s.had[c] = true
			s.base += uint64(len(data))
		}
		return data, err
	})
	_ = carstore.WalkSelector(&ls, s.root, sel, nil)
}

func (s *stolen) get(c cid.Cid) ([]byte, error) {
	s.mu.Lock()
	had := s.had[c]
	s.mu.Unlock()
	if had {
		return s.w.pieces.store.Get(c)
	}
	s.loot.mu.Lock()
	defer s.loot.mu.Unlock()
	if data, ok := s.blocks[c]; ok {
		return data, nil
	}
	return nil, carstore.ErrNotFound
}

// LinkSystem implements retrievalimpl.Target.
func (s *stolen) LinkSystem() ipld.LinkSystem {
	return carstore.Writing(carstore.Links(s.get), func(c cid.Cid, data []byte) error {
		s.loot.mu.Lock()
		_, known := s.blocks[c]
		if !known {
			s.blocks[c] = append([]byte(nil), data...)
			s.bytes += uint64(len(data))
		}
		s.loot.mu.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		if !known {
			s.mine += uint64(len(data))
		}
		return nil
	})
}

// Locate implements retrievalimpl.Target.
func (s *stolen) Locate(sel ipld.Node) (carstore.Position, error) {
	s.mu.Lock()
	if s.had == nil || s.lies {
		s.claim(sel)
	}
	s.mu.Unlock()
	return carstore.LocateIn(s.root, sel, s.get)
}

// Base implements retrievalimpl.Target.
func (s *stolen) Base() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.base
}

// Bytes implements retrievalimpl.Target.
func (s *stolen) Bytes() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.base + s.mine
}
