package dagstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
)

// Verified is what reading a piece through has found.
type Verified struct {
	Blocks uint64 // that were read
	Bytes  uint64
	Bad    uint64 // of them, those that are not what their CIDs say
	First  error  // of the first of these
}

// Verify reads every block of the shard and compares it with its hash. It goes on behind a damaged one, and ends with an error where the shard
// cannot be read at all. progress, if it is not nil, hears of the bytes that were read.
func (a *Accessor) Verify(ctx context.Context, progress func(bytes uint64)) (v Verified, err error) {
	leave, err := a.store.enter()
	if err != nil {
		return v, err
	}
	defer leave()
	ctx, cancel := a.store.boundByStore(ctx)
	defer cancel()
	var buf []byte
	for r, err := range a.store.index.Iterate(ctx, a.r.shard.Number, nil) {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return v, err
		}
		if need := int(r.Section()); cap(buf) < need {
			buf = make([]byte, need)
		}
		c := cid.NewCidV1(cid.Raw, r.Multihash)
		_, err = a.readRow(buf, c, r)
		v.Blocks++
		v.Bytes += r.Size
		if err != nil {
			if v.Bad++; v.Bad == 1 {
				v.First = fmt.Errorf("block %s: %w", r.Multihash.B58String(), err)
			}
		}
		if progress != nil {
			progress(v.Bytes)
		}
	}
	if want := a.r.shard.Blocks; v.Blocks != want {
		return v, fmt.Errorf("the index has %d blocks of the piece, it was made with %d: %w", v.Blocks, want, ErrBadRecord)
	}
	return v, nil
}
