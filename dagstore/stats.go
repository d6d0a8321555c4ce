package dagstore

import (
	"sync/atomic"
	"time"
)

// Stats is what a store has done since it was opened, and how it stands (R-N20).
type Stats struct {
	Lookups uint64 // of blocks, by multihash
	Hits    uint64 // lookups that found a piece
	// FilterRejections are look-ups of tables that their filters answered without a read; FilterPasses are those that they let through.
	FilterRejections, FilterPasses int64
	OpenReaders                    int // files of pieces that are open
	JobsRunning, JobsQueued        int // pieces that are read for their index, and that wait for it
	Records                        uint64
	IndexTime                      time.Duration // that reading pieces for their index took, together: Records over it is the rate
	IndexBytes                     uint64        // that rows and records take on disk
	InitFailures                   uint64        // pieces that could not be read for their index
	OpenFailures                   uint64        // pieces whose bytes could not be opened
	BlockFailures                  uint64        // blocks that could not be read, or were other bytes
}

// counters are the parts of Stats that are counted.
type counters struct {
	lookups, hits, records, indexNanos, inits, opens, blocks atomic.Uint64
	running, queued                                          atomic.Int64
}

// countLookup counts a look-up.
func (c *counters) countLookup(hit bool) {
	c.lookups.Add(1)
	if hit {
		c.hits.Add(1)
	}
}

// countFailure counts an error.
func countFailure(n *atomic.Uint64, err error) {
	if err != nil {
		n.Add(1)
	}
}

// Stats tells how the store stands.
func (s *Store) Stats() (Stats, error) {
	leave, err := s.enter()
	if err != nil {
		return Stats{}, err
	}
	defer leave()
	kv := s.kv.Stats()
	c := s.count
	out := Stats{
		Lookups: c.lookups.Load(), Hits: c.hits.Load(), FilterRejections: kv.FilterRejections, FilterPasses: kv.FilterPasses,
		JobsRunning: int(c.running.Load()), JobsQueued: int(c.queued.Load()), Records: c.records.Load(), IndexTime: time.Duration(c.indexNanos.Load()),
		IndexBytes: kv.Bytes, InitFailures: c.inits.Load(), OpenFailures: c.opens.Load(), BlockFailures: c.blocks.Load(),
	}
	out.OpenReaders = s.openCount()
	return out, nil
}
