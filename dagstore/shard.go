package dagstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/internal/wire"
)

// Shard is a piece with its place and its sizes. Root and the sizes are known once it was initialised.
type Shard struct {
	Number    uint64 // local piece number, never reused
	Piece     cid.Cid
	Root      cid.Cid
	Path      string // of a plain file; empty for another mount
	Mount     string // URL of where the bytes come from, for what is no plain file
	Owned     bool   // the file is the store's own and goes with the shard
	Offset    uint64 // of the CARv1 in the file
	CarSize   uint64
	Padded    uint64
	Blocks    uint64
	Bytes     uint64 // of the blocks, each once
	State     State
	Error     string
	Attempts  uint64 // failed recoveries in a row
	Created   time.Time
	IndexedAt time.Time
	// Others are roots beside Root.
	Others []cid.Cid
	// Checked says that it is known whether the piece holds everything below its roots: Missing is how many blocks it lacks, and Lacks are
	// the first of them.
	Checked bool
	Missing uint64
	Lacks   []cid.Cid

	// Of a shard that was just registered, not kept: bytes behind the last section that are no padding and not sold, and blocks that could not
	// be decoded.
	Dropped uint64
	Opaque  []cid.Cid
}

// Roots are the roots of a shard.
func (s *Shard) Roots() []cid.Cid { return append([]cid.Cid{s.Root}, s.Others...) }

// Whole reports whether a piece is known to hold everything below its roots.
func (s *Shard) Whole() bool { return s.Checked && s.Missing == 0 }

// Where is what a person calls the origin of a shard.
func (s *Shard) Where() string {
	if s.Mount != "" {
		return s.Mount
	}
	return s.Path
}

// Keys of the catalogue.
const (
	keyNext  = "n"
	keyShard = "s" // number -> shard
	keyPiece = "p" // piece CID -> number
	keyWork  = "w" // number of a shard whose work a start has to finish
	keyOld   = "b" // rows of the first version
)

var undefinedRoot = cid.NewCidV1(cid.Raw, []byte{0, 0}) // stands for a root that is not known yet

func (s *Shard) encode() ([]byte, error) {
	root, created, indexed := s.Root, unixSeconds(s.Created), unixSeconds(s.IndexedAt)
	if !root.Defined() {
		root = undefinedRoot
	}
	return wire.EncodeTuple(append(s.fieldsV2(&root, &created, &indexed), s.fieldsV3()...))
}

// fieldsV2 are the fields of the second version, which begins with the first.
func (s *Shard) fieldsV2(root *cid.Cid, created, indexed *uint64) []wire.Field {
	return append(s.fieldsV1(root), wire.Text("mount", &s.Mount), wire.Bool("owned", &s.Owned),
		wire.Uint("attempts", &s.Attempts), wire.Uint("created", created), wire.Uint("indexed", indexed))
}

// fieldsV3 are the fields that came after those.
func (s *Shard) fieldsV3() []wire.Field {
	each := func(c *cid.Cid) wire.Field { return wire.Cid("block", c) }
	return []wire.Field{wire.List("others", &s.Others, each), wire.Bool("checked", &s.Checked), wire.Uint("missing", &s.Missing), wire.List("lacks", &s.Lacks, each)}
}

// fieldsV1 are the fields of the first version.
func (s *Shard) fieldsV1(root *cid.Cid) []wire.Field {
	return []wire.Field{
		wire.Uint("number", &s.Number), wire.Cid("piece", &s.Piece), wire.Cid("root", root), wire.Text("path", &s.Path),
		wire.Uint("offset", &s.Offset), wire.Uint("carSize", &s.CarSize), wire.Uint("padded", &s.Padded), wire.Uint("blocks", &s.Blocks),
		wire.Uint("bytes", &s.Bytes), wire.Uint("state", &s.State), wire.Text("error", &s.Error),
	}
}

func unixSeconds(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.Unix())
}

func fromUnix(n uint64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(int64(n), 0)
}

// decodeShard reads a record; old says that it is of the first version, whose rows have to be made anew.
func decodeShard(data []byte) (s Shard, old bool, err error) {
	var root cid.Cid
	var created, indexed uint64
	err = wire.DecodeTuple(data, "shard", append(s.fieldsV2(&root, &created, &indexed), s.fieldsV3()...))
	if err != nil {
		s = Shard{}
		if wire.DecodeTuple(data, "shard", s.fieldsV2(&root, &created, &indexed)) == nil {
			err = nil
		}
	}
	if err != nil {
		s = Shard{}
		if wire.DecodeTuple(data, "shard", s.fieldsV1(&root)) != nil {
			return s, false, err
		}
		old = true
	}
	if !root.Equals(undefinedRoot) {
		s.Root = root
	}
	s.Created, s.IndexedAt = fromUnix(created), fromUnix(indexed)
	return s, old, nil
}

func bigEndian(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func shardKey(n uint64) []byte  { return append([]byte(keyShard), bigEndian(n)...) }
func workKey(n uint64) []byte   { return append([]byte(keyWork), bigEndian(n)...) }
func pieceKey(p cid.Cid) []byte { return append([]byte(keyPiece), p.Bytes()...) }

// catalogue keeps shards durably.
type catalogue struct{ kv *store.KV }

// putShard stores a shard. What a start has to finish is noted beside it, so that a start looks at nothing else.
func (c catalogue) putShard(s Shard) error {
	data, err := s.encode()
	if err != nil {
		return err
	}
	b := c.kv.NewBatch()
	b.Set(shardKey(s.Number), data)
	b.Set(pieceKey(s.Piece), bigEndian(s.Number))
	if s.State == StateInitializing || s.State == StateRecovering {
		b.Set(workKey(s.Number), nil)
	} else {
		b.Delete(workKey(s.Number))
	}
	return b.Commit(true)
}

// replaceShard makes one shard the successor of another in one write, and notes that the old number has something left.
func (c catalogue) replaceShard(old uint64, s Shard) error {
	data, err := s.encode()
	if err != nil {
		return err
	}
	b := c.kv.NewBatch()
	b.Delete(shardKey(old))
	b.Set(workKey(old), nil)
	b.Set(shardKey(s.Number), data)
	b.Set(pieceKey(s.Piece), bigEndian(s.Number))
	b.Delete(workKey(s.Number))
	return b.Commit(true)
}

// removeLater forgets a shard and notes that its number has something left.
func (c catalogue) removeLater(s Shard) error {
	b := c.kv.NewBatch()
	b.Delete(shardKey(s.Number))
	b.Delete(pieceKey(s.Piece))
	b.Set(workKey(s.Number), nil)
	return b.Commit(true)
}

// noteWork notes that a number is being worked on that no shard has yet; done ends it.
func (c catalogue) noteWork(n uint64) error {
	b := c.kv.NewBatch()
	b.Set(workKey(n), nil)
	return b.Commit(true)
}

func (c catalogue) clearWork(n uint64) error {
	b := c.kv.NewBatch()
	b.Delete(workKey(n))
	return b.Commit(true)
}

func (c catalogue) numberOf(piece cid.Cid) (uint64, error) {
	n, err := c.kv.Get(pieceKey(piece))
	if err != nil {
		return 0, err
	}
	if len(n) != 8 {
		return 0, fmt.Errorf("%w: %s", ErrShardUnknown, piece)
	}
	return binary.BigEndian.Uint64(n), nil
}

func (c catalogue) shardOf(n uint64) (Shard, error) {
	data, err := c.kv.Get(shardKey(n))
	if err != nil {
		return Shard{}, err
	}
	if data == nil {
		return Shard{}, fmt.Errorf("%w: number %d", ErrShardUnknown, n)
	}
	s, _, err := decodeShard(data)
	if err != nil {
		err = fmt.Errorf("%w: number %d: %w", ErrBadRecord, n, err)
	}
	return s, err
}

// eachShard calls f for every shard in the order of numbers, and bad for every record that does not parse (R-D15).
func (c catalogue) eachShard(f func(s Shard, old bool), bad func(number uint64, raw []byte, err error)) error {
	return c.kv.Scan([]byte(keyShard), func(key, value []byte) bool {
		s, old, err := decodeShard(value)
		if err == nil {
			f(s, old)
		} else if bad != nil {
			bad(binary.BigEndian.Uint64(key[len(keyShard):]), append([]byte(nil), value...), err)
		}
		return true
	})
}

// pendingWork are the numbers of the shards whose work was interrupted.
func (c catalogue) pendingWork() (out []uint64, err error) {
	err = c.kv.Scan([]byte(keyWork), func(key, _ []byte) bool {
		out = append(out, binary.BigEndian.Uint64(key[len(keyWork):]))
		return true
	})
	return out, err
}

// takeNumber hands out a piece number. The caller serialises.
func (c catalogue) takeNumber() (uint64, error) {
	b, err := c.kv.Get([]byte(keyNext))
	if err != nil {
		return 0, err
	}
	n := uint64(1)
	if len(b) == 8 {
		n = binary.BigEndian.Uint64(b)
	}
	batch := c.kv.NewBatch()
	batch.Set([]byte(keyNext), bigEndian(n+1))
	return n, batch.Commit(true)
}

// isFresh tells whether no number was ever handed out.
func (c catalogue) isFresh() (bool, error) {
	b, err := c.kv.Get([]byte(keyNext))
	return b == nil, err
}

func (c catalogue) setNextNumber(n uint64) error {
	b := c.kv.NewBatch()
	b.Set([]byte(keyNext), bigEndian(n))
	return b.Commit(true)
}

const keyVersion = "v"

// migrate takes a catalogue of the first version over: its shards are initialised again, which makes their rows anew. It may be
// interrupted and done again.
func (c catalogue) migrate() error {
	v, err := c.kv.Get([]byte(keyVersion))
	if err != nil || len(v) == 1 && v[0] == 2 {
		return err
	}
	if len(v) > 0 {
		return fmt.Errorf("the dagstore is of version %d, this program knows 2: use a newer one", v[0])
	}
	var errs []error
	err = c.eachShard(func(s Shard, old bool) {
		if old {
			s.State = StateInitializing
			errs = append(errs, c.putShard(s))
		}
	}, nil)
	if err = errors.Join(append(errs, err)...); err != nil {
		return err
	}
	b := c.kv.NewBatch()
	b.DeleteRange([]byte(keyOld), []byte{keyOld[0] + 1})
	b.Set([]byte(keyVersion), []byte{2})
	return b.Commit(true)
}
