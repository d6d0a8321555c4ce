// Package dagstore knows the pieces of a provider as shards: where the bytes of a piece come from, in which state it is, and,
// by multihash, where each block lies. Blocks are read out of the piece with positional reads; a piece that can be read at random is
// never copied and never loaded, and is open once however many readers it has (node spec 1).
package dagstore

import (
	"cmp"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/dagstore/index"
	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/shared"
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

// Store is the shard store. It is safe for concurrent use.
type Store struct {
	cfg   Config
	kv    *store.KV
	cat   catalogue
	index  *index.Embedded
	transients *transients
	subs  subscribers
	count counters
	indexSlots chan struct{} // slots of Config.MaxConcurrentIndex

	ctx    context.Context
	cancel context.CancelFunc
	group  shared.Group

	closing sync.Once
	closed  error

	changing   sync.Mutex // held while the catalogue changes who a piece's shard is
	rebuilding sync.Mutex

	users sync.WaitGroup // calls that use the engine

	mu   sync.Mutex
	shut bool
	readers map[uint64]*reader
	jobs map[jobKey]*job
	// failed is when shards could not be opened or read, by number.
	failed map[uint64]time.Time
	// damaged is the last block of a shard that was read and was not what its CID says, by number.
	damaged map[uint64]cid.Cid
	// proved is what files were like when some of their blocks were read, by number.
	proved map[uint64]fileStamp
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
	s := &Store{cfg: cfg, kv: kv, cat: catalogue{kv}, indexSlots: make(chan struct{}, cfg.MaxConcurrentIndex), readers: map[uint64]*reader{}, jobs: map[jobKey]*job{}, failed: map[uint64]time.Time{}, damaged: map[uint64]cid.Cid{}, proved: map[uint64]fileStamp{}}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			s.cancel()
			err = errors.Join(err, kv.Close())
		}
	}()
	if s.index, err = index.Open(cfg.FS, filepath.Join(cfg.Dir, "order"), kv); err != nil {
		return nil, err
	}
	if err := errors.Join(s.cat.migrate(), s.skipNumbers()); err != nil {
		return nil, err
	}
	if s.transients, err = openTransients(cfg, func(n uint64) bool {
		_, err := s.cat.shardOf(n)
		return !errors.Is(err, ErrShardUnknown)
	}); err != nil {
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

// Close ends what runs, which goes on at the next start, and closes the files of readers. It may be called again.
func (s *Store) Close() error {
	s.closing.Do(func() { s.closed = s.close() })
	return s.closed
}

func (s *Store) close() error {
	s.mu.Lock()
	s.shut = true
	s.mu.Unlock()
	s.cancel()
	err := s.group.Close(context.WithoutCancel(s.ctx))
	s.users.Wait()
	s.subs.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, r := range s.readers {
		err = errors.Join(err, r.close())
		delete(s.readers, n)
	}
	return errors.Join(err, s.index.Close(), s.kv.Close())
}

// enter keeps the engine open until leave is called; once the store closes it fails.
func (s *Store) enter() (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shut {
		return nil, ErrClosed
	}
	s.users.Add(1)
	return s.users.Done, nil
}

// boundByStore is a context that also ends with the store.
func (s *Store) boundByStore(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.ctx, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
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
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.readers[n]; sh.State == StateAvailable && r != nil && r.refs > 0 {
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
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range out {
		if r := s.readers[out[i].Number]; out[i].State == StateAvailable && r != nil && r.refs > 0 {
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
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.SortStableFunc(out, func(a, b Shard) int { return cmp.Compare(s.readCost(&a), s.readCost(&b)) })
	return out, nil
}

// failureWorth is how long a shard that could not be opened or read comes after the others.
const failureWorth = 10 * time.Minute

// readCost ranks what reading a shard costs. mu is held.
func (s *Store) readCost(sh *Shard) int {
	c := 2
	switch {
	case sh.State == StateServing:
		c = 0
	case sh.Mount == "":
		c = 1
	}
	switch {
	case sh.Whole():
	case sh.Checked: // it lacks something: others first
		c += 12
	default:
		c += 6
	}
	if at, ok := s.failed[sh.Number]; ok && time.Since(at) < failureWorth {
		c += 24
	}
	return c
}

// noteOutcome notes whether a shard could be opened or read.
func (s *Store) noteOutcome(n uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		delete(s.failed, n)
	} else {
		s.failed[n] = time.Now()
	}
}
