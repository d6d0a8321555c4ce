package dagstore

import (
	"context"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/dagstore/index"
)

// AcquireNumber is Acquire by the number of a shard, as rows have it, for one that can be read now: nothing is read for its index or recovered.
func (s *Store) AcquireNumber(ctx context.Context, number uint64) (*Accessor, error) {
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	sh, err := s.cat.shardOf(number)
	if err != nil {
		return nil, err
	}
	if sh.State != StateAvailable {
		return nil, fmt.Errorf("%w: shard %s is %s", ErrNotFound, sh.Piece, sh.State)
	}
	return s.accessShard(ctx, sh)
}

// GetRow is GetInto for a block whose row is known: the index is not asked again.
func (a *Accessor) GetRow(buf []byte, c cid.Cid, r index.Record) ([]byte, error) {
	return a.readRow(buf, c, r)
}

// Payload is the CARv1 of the piece.
func (a *Accessor) Payload() io.ReaderAt {
	return io.NewSectionReader(a.r.file, int64(a.r.shard.Offset), int64(a.r.shard.CarSize))
}
