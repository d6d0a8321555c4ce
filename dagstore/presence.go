package dagstore

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/dagstore/index"
	"github.com/cartage-dev/cartage/internal/reason"
)

// Present tells whether the bytes of a shard seem to be there, without reading or copying all of them: of a file that was written to since it
// was looked at, the root and a few other blocks are read.
func (in *inspector) Present(ctx context.Context, sh Shard) error {
	m, err := in.files.mountOf(&sh)
	if err != nil {
		return err
	}
	if _, ok := m.(fileMount); !ok {
		return nil
	}
	f, err := m.Open(ctx)
	if err != nil {
		return err
	}
	if err = checkLength(f, &sh); err == nil {
		err = in.checkUnchanged(ctx, f, &sh)
	}
	return errors.Join(err, f.Close())
}

// fileStamp is what a file was like when some of its blocks were read.
type fileStamp struct {
	size    int64
	written time.Time
}

// checkedBlocks is how many blocks of a changed file are read.
const checkedBlocks = 8

// checkUnchanged reads some blocks of a file, unless it is as it was when that was done last.
func (in *inspector) checkUnchanged(ctx context.Context, f Reader, sh *Shard) error {
	st, err := os.Stat(in.files.filePath(sh))
	if err != nil {
		return err
	}
	now := fileStamp{st.Size(), st.ModTime()}
	if last, _ := in.proved.Load(sh.Number); last == now || sh.State != StateAvailable && sh.State != StateServing {
		return nil
	}
	leave, err := in.life.enter()
	if err != nil {
		return err
	}
	defer leave()
	if err := in.checkSomeBlocks(ctx, f, sh); err != nil {
		return reason.PieceDamaged.Errorf("piece %s: %s is not what it was when it was registered: %w", sh.Piece, sh.Where(), err).
			WithHint("Put the file back, or provide it again.")
	}
	in.proved.Store(sh.Number, now)
	return nil
}

func (in *inspector) checkSomeBlocks(ctx context.Context, f Reader, sh *Shard) error {
	read := func(r *index.Row) error {
		_, err := carstore.ReadSection(f, int64(sh.Offset+r.Offset), int64(r.Section()), cid.NewCidV1(cid.Raw, r.Multihash))
		return err
	}
	for _, root := range sh.Roots() {
		row, err := in.indexer.rowOfPiece(ctx, sh.Number, root.Hash())
		if err == nil && row != nil {
			err = read(row)
		}
		if err != nil {
			return err
		}
	}
	n := 0
	for r, err := range in.index.Iterate(ctx, sh.Number, nil) {
		if err != nil {
			return err
		}
		row, err := in.indexer.rowOfPiece(ctx, sh.Number, r.Multihash)
		if err == nil && row != nil {
			err = read(row)
		}
		if err != nil {
			return err
		}
		if n++; n == checkedBlocks {
			break
		}
	}
	return nil
}
