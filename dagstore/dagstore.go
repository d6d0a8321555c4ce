// Package dagstore knows the pieces of a provider as shards: where the bytes of a piece come from, in which state it is, and,
// by multihash, where each block lies. Blocks are read out of the piece with positional reads; a piece that can be read at random is
// never copied and never loaded, and is open once however many readers it has (node spec 1).
package dagstore

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/dagstore/index"
	"github.com/cartage-dev/cartage/internal/store"
)

// Config is what a Store is made with. Zero values are the defaults.
type Config struct {
	FS  blob.FS // the file system of the host
	Dir string
	// Pieces is where the files lie that are the store's own; pieces in Dir.
	Pieces string
	// Mounts opens the bytes of shards that are no plain files, by the scheme of their URL.
	Mounts map[string]Scheme
	// MaxConcurrentIndex is how many pieces are read for their index at once; 5.
	MaxConcurrentIndex int
	// MaxConcurrentReadyFetches is how many copies of pieces that cannot be read at random are made at once; 5.
	MaxConcurrentReadyFetches int
	// TransientQuota bounds such copies, in bytes; 32 GiB. Above it idle ones go, least recently used first, down to nine tenths.
	TransientQuota int64
	// ReaderIdle is how long the file of a piece stays open after its last reader; 0 closes it at once.
	ReaderIdle time.Duration
	// OpenReaders is how many files of pieces stay open that nobody reads; 128.
	OpenReaders int
	// Reading is for a disk that takes no writes: what is there can be read, and what is changed is forgotten at Close.
	Reading bool
	// BeforeWrite is called before each write of records, whose error it becomes: a seam for faults, as FS is.
	BeforeWrite func() error
	// RecoverAttempts is how often a failed shard is recovered by acquiring it; 1. Negative is never.
	RecoverAttempts int
}

func (c *Config) setDefaults() {
	if c.FS == nil {
		c.FS = blob.OS{}
	}
	if c.Pieces == "" {
		c.Pieces = filepath.Join(c.Dir, "pieces")
	}
	if c.OpenReaders == 0 {
		c.OpenReaders = 128
	}
	if c.MaxConcurrentIndex == 0 {
		c.MaxConcurrentIndex = 5
	}
	if c.MaxConcurrentReadyFetches == 0 {
		c.MaxConcurrentReadyFetches = 5
	}
	if c.TransientQuota == 0 {
		c.TransientQuota = 32 << 30
	}
	if c.RecoverAttempts == 0 {
		c.RecoverAttempts = 1
	}
}

// Store is the shard store. It is safe for concurrent use. Each part has its own state; none calls upward in this list.
type Store struct {
	cfg   Config
	kv    *store.KV
	cat   catalogue
	index *index.Embedded
	count *counters
	jobs  *jobSet

	*lifetime    // what runs
	*subscribers // who is told
	*pieceFiles  // where bytes are
	*readerPool  // files that are open
	*indexer     // bytes become rows
	*inspector   // whether bytes are what they were

	closing    sync.Once
	closeErr   error
	rebuilding chan struct{} // held by a rebuild
}

// Open opens or creates a store in dir with the defaults.
func Open(ctx context.Context, fsys blob.FS, dir string) (*Store, error) {
	return OpenConfig(ctx, Config{FS: fsys, Dir: dir})
}

// OpenConfig opens or creates a store. It returns when the catalogue can be read; what a crash interrupted is done again in the
// background, and waited for by who acquires it. How long it takes does not depend on the number of shards.
func OpenConfig(ctx context.Context, cfg Config) (_ *Store, err error) {
	cfg.setDefaults()
	cfg.FS = blob.Or(cfg.FS)
	open := store.OpenKV
	if cfg.Reading {
		open = store.OpenKVReading
	}
	kv, err := open(filepath.Join(cfg.Dir, "index"))
	if err != nil {
		return nil, err
	}
	kv.BeforeWrite(cfg.BeforeWrite)
	s, err := newStore(ctx, cfg, kv)
	defer func() {
		if err != nil {
			s.cancel()
			err = errors.Join(err, kv.Close())
		}
	}()
	if err != nil {
		return nil, err
	}
	work, err := s.cat.pendingWork()
	if err != nil {
		return nil, err
	}
	for _, n := range work {
		s.startIndexing(n)
	}
	return s, nil
}

// newStore makes a store of its parts; also with an error it has a lifetime.
func newStore(ctx context.Context, cfg Config, kv *store.KV) (_ *Store, err error) {
	s := &Store{cfg: cfg, kv: kv, cat: catalogue{kv}, count: &counters{}, lifetime: newLifetime(ctx), subscribers: &subscribers{}, rebuilding: make(chan struct{}, 1)}
	if s.index, err = index.Open(cfg.FS, filepath.Join(cfg.Dir, "order"), kv); err != nil {
		return s, err
	}
	s.jobs = &jobSet{life: s.lifetime, jobs: map[jobKey]*job{}}
	s.pieceFiles = &pieceFiles{cfg: cfg}
	if err := errors.Join(s.cat.migrate(), s.skipNumbers()); err != nil {
		return s, err
	}
	if s.transients, err = openTransients(cfg, func(n uint64) bool {
		_, err := s.cat.shardOf(n)
		return !errors.Is(err, ErrShardUnknown)
	}); err != nil {
		return s, err
	}
	s.readerPool = &readerPool{cfg: cfg, cat: s.cat, files: s.pieceFiles, jobs: s.jobs, subs: s.subscribers, count: s.count,
		readers: map[uint64]*reader{}, failed: map[uint64]time.Time{}}
	s.indexer = &indexer{life: s.lifetime, cat: s.cat, index: s.index, files: s.pieceFiles, jobs: s.jobs, subs: s.subscribers, count: s.count,
		indexSlots: make(chan struct{}, cfg.MaxConcurrentIndex)}
	s.inspector = &inspector{life: s.lifetime, cat: s.cat, index: s.index, files: s.pieceFiles, indexer: s.indexer}
	return s, nil
}

// Close ends what runs, which goes on at the next start, and closes the files of readers. It may be called again.
func (s *Store) Close() error {
	s.closing.Do(func() {
		err := s.end()
		s.subscribers.close()
		s.closeErr = errors.Join(err, s.closeReaders(), s.index.Close(), s.kv.Close())
	})
	return s.closeErr
}

// Info returns a shard by its piece.
func (s *Store) Info(piece cid.Cid) (Shard, error) {
	leave, err := s.enter()
	if err != nil {
		return Shard{}, err
	}
	defer leave()
	n, err := s.cat.numberOf(piece)
	if err != nil {
		return Shard{}, err
	}
	return s.shardByNumber(n)
}

// shardByNumber is a shard as others see it.
func (s *Store) shardByNumber(n uint64) (Shard, error) {
	sh, err := s.cat.shardOf(n)
	if sh.State == StateAvailable && s.Readers(n) > 0 {
		sh.State = StateServing
	}
	return sh, err
}

// List returns all shards in order of their number. Records that cannot be read are left to Doctor.
func (s *Store) List() ([]Shard, error) {
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	var out []Shard
	err = s.cat.eachShard(func(sh Shard, _ bool) { out = append(out, sh) }, nil)
	for i := range out {
		if out[i].State == StateAvailable && s.Readers(out[i].Number) > 0 {
			out[i].State = StateServing
		}
	}
	return out, err
}

// Find returns where a multihash lies, without touching any piece. Only pieces that can be read are named.
func (s *Store) Find(ctx context.Context, hash mh.Multihash) ([]index.Row, error) {
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	rows, err := s.index.Find(ctx, hash)
	s.count.countLookup(len(rows) > 0)
	out := rows[:0]
	for _, r := range rows {
		sh, gerr := s.cat.shardOf(r.Piece)
		if gerr == nil && sh.State == StateAvailable {
			out = append(out, r)
		}
	}
	return out, err
}

// Lookup returns the available shards that have a block: those that hold everything below their roots before others, and among those
// first that cost least to read: that are being read, whose bytes are in a file
// here, that are elsewhere. Those that failed a moment ago come last; else the order is that of registration (R-N11). No piece is
// touched (R-N14).
func (s *Store) Lookup(c cid.Cid) ([]Shard, error) {
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	rows, err := s.index.Find(s.ctx, c.Hash())
	if err != nil {
		return nil, err
	}
	s.count.countLookup(len(rows) > 0)
	var out []Shard
	for _, r := range rows {
		sh, err := s.shardByNumber(r.Piece)
		switch {
		case errors.Is(err, ErrShardUnknown), errors.Is(err, ErrBadRecord): // another piece may have it
		case err != nil:
			return nil, err
		case sh.State == StateServing, sh.State == StateAvailable:
			out = append(out, sh)
		}
	}
	s.sortByCost(out)
	return out, nil
}
