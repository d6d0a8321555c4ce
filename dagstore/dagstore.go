// Package dagstore knows the pieces of a provider as shards: where the bytes of a piece come from, in which state it is, and,
// by multihash, where each block lies. Blocks are read out of the piece with positional reads; the piece is never copied
// and never loaded, and its file is open once however many readers it has.
package dagstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/cartage-dev/cartage/internal/blob"
	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/internal/wire"
)

// State of a shard; the texts are those of the API.
type State uint64

// The states of a shard.
const (
	StateNew          State = 0x00
	StateInitializing State = 0x01
	StateAvailable    State = 0x02
	StateServing      State = 0x03
	StateRecovering   State = 0x80
	StateErrored      State = 0xf0
	StateUnknown      State = 0xff
)

// String is the text of the API.
func (s State) String() string {
	switch s {
	case StateNew:
		return "ShardStateNew"
	case StateInitializing:
		return "ShardStateInitializing"
	case StateAvailable:
		return "ShardStateAvailable"
	case StateServing:
		return "ShardStateServing"
	case StateRecovering:
		return "ShardStateRecovering"
	case StateErrored:
		return "ShardStateErrored"
	case StateUnknown:
		return "ShardStateUnknown"
	}
	return "__undefined__"
}

var (
	// ErrShardUnknown means that no shard has the key.
	ErrShardUnknown = errors.New("shard not found")
	// ErrShardInUse means that a reader has the shard.
	ErrShardInUse = errors.New("shard in use")
	// ErrNotFound means that no piece has the block.
	ErrNotFound = errors.New("block not found in any piece")
)

// Shard is a piece with its place and its sizes.
type Shard struct {
	Number  uint64 // local piece number, never reused
	Piece   cid.Cid
	Root    cid.Cid
	Path    string
	Offset  uint64 // of the CARv1 in the file
	CarSize uint64
	Padded  uint64
	Blocks  uint64
	Bytes   uint64 // of the blocks
	State   State
	Error   string
}

func (s *Shard) fields() []wire.Field {
	return []wire.Field{
		wire.Uint("number", &s.Number), wire.Cid("piece", &s.Piece), wire.Cid("root", &s.Root), wire.Text("path", &s.Path),
		wire.Uint("offset", &s.Offset), wire.Uint("carSize", &s.CarSize), wire.Uint("padded", &s.Padded), wire.Uint("blocks", &s.Blocks),
		wire.Uint("bytes", &s.Bytes), wire.Uint("state", &s.State), wire.Text("error", &s.Error),
	}
}

// Keys of the index: one row for each (multihash, piece).
const (
	keyNext  = "n"
	keyShard = "s" // number -> shard
	keyPiece = "p" // piece CID -> number
	keyRow   = "b" // multihash, number -> offset, size of the section
)

// Store is the shard store. It is safe for concurrent use.
type Store struct {
	kv *store.KV
	fs blob.FS

	mu   sync.Mutex
	open map[uint64]*reader
}

// reader is the one open file of a piece.
type reader struct {
	file blob.File
	refs int
}

// Open opens or creates a store in dir. A shard whose indexing did not finish is indexed again.
func Open(ctx context.Context, fsys blob.FS, dir string) (*Store, error) {
	kv, err := store.OpenKV(filepath.Join(dir, "index"))
	if err != nil {
		return nil, err
	}
	s := &Store{kv: kv, fs: fsys, open: map[uint64]*reader{}}
	if err := s.repair(ctx); err != nil {
		return nil, errors.Join(err, kv.Close())
	}
	return s, nil
}

// repair finishes what a crash interrupted: a shard that was being indexed starts over.
func (s *Store) repair(ctx context.Context) error {
	list, err := s.List()
	if err != nil {
		return err
	}
	for _, sh := range list {
		if sh.State != StateInitializing && sh.State != StateRecovering {
			continue
		}
		if _, err := s.Register(ctx, Source{Path: sh.Path, Piece: sh.Piece, Padded: sh.Padded}); err != nil {
			sh.State, sh.Error = StateErrored, err.Error()
			if err := s.put(sh); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close closes the store and the files of its readers.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for n, r := range s.open {
		errs = append(errs, r.file.Close())
		delete(s.open, n)
	}
	return errors.Join(append(errs, s.kv.Close())...)
}

func be(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func (s *Store) put(sh Shard) error {
	data, err := wire.EncodeTuple(sh.fields())
	if err != nil {
		return err
	}
	b := s.kv.NewBatch()
	b.Set(append([]byte(keyShard), be(sh.Number)...), data)
	b.Set(append([]byte(keyPiece), sh.Piece.Bytes()...), be(sh.Number))
	return b.Commit(true)
}

// Info returns a shard by its piece.
func (s *Store) Info(piece cid.Cid) (Shard, error) {
	n, err := s.kv.Get(append([]byte(keyPiece), piece.Bytes()...))
	if err != nil {
		return Shard{}, err
	}
	if n == nil {
		return Shard{}, fmt.Errorf("%w: %s", ErrShardUnknown, piece)
	}
	return s.shard(binary.BigEndian.Uint64(n))
}

func (s *Store) shard(n uint64) (Shard, error) {
	var sh Shard
	data, err := s.kv.Get(append([]byte(keyShard), be(n)...))
	if err != nil {
		return sh, err
	}
	if data == nil {
		return sh, fmt.Errorf("%w: number %d", ErrShardUnknown, n)
	}
	if err := wire.DecodeTuple(data, "shard", sh.fields()); err != nil {
		return sh, err
	}
	s.mu.Lock()
	if sh.State == StateAvailable && s.open[n] != nil {
		sh.State = StateServing
	}
	s.mu.Unlock()
	return sh, nil
}

// List returns all shards in order of their number.
func (s *Store) List() ([]Shard, error) {
	var out []Shard
	var bad error
	err := s.kv.Scan([]byte(keyShard), func(_, value []byte) bool {
		var sh Shard
		if bad = wire.DecodeTuple(value, "shard", sh.fields()); bad == nil {
			out = append(out, sh)
		}
		return bad == nil
	})
	return out, errors.Join(err, bad)
}

// Row is where a block lies: its section in the CARv1 of a piece.
type Row struct {
	Shard  uint64
	Offset uint64
	Size   uint64
}

// Find returns the rows of a multihash, without touching any piece.
func (s *Store) Find(hash mh.Multihash) ([]Row, error) {
	prefix := append([]byte(keyRow), hash...)
	var out []Row
	err := s.kv.Scan(prefix, func(key, value []byte) bool {
		if len(key) != len(prefix)+8 {
			return true // a longer multihash with the same start
		}
		off, n := binary.Uvarint(value)
		size, m := binary.Uvarint(value[max(n, 0):])
		if n > 0 && m > 0 {
			out = append(out, Row{binary.BigEndian.Uint64(key[len(prefix):]), off, size})
		}
		return true
	})
	return out, err
}

// Lookup returns the available shards that have a block, in order of registration.
func (s *Store) Lookup(c cid.Cid) ([]Shard, error) {
	rows, err := s.Find(c.Hash())
	if err != nil {
		return nil, err
	}
	var out []Shard
	for _, r := range rows {
		sh, err := s.shard(r.Shard)
		if err != nil {
			return nil, err
		}
		if sh.State == StateAvailable || sh.State == StateServing {
			out = append(out, sh)
		}
	}
	return out, nil
}
