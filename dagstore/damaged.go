package dagstore

import (
	"context"
	"errors"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/carstore"
)

// BlockDamaged is the finding of a piece of which a block was to be served and was not what its CID says.
const BlockDamaged = "block damaged"

// flagDamage notes that a block of a shard was read and is damaged: the doctor looks at it first.
func (in *inspector) flagDamage(n uint64, c cid.Cid, err error) {
	if !errors.Is(err, carstore.ErrBadHash) {
		return
	}
	in.damaged.Store(n, c)
}

// recheckDamage looks at the block of a shard that was damaged when it was read last; one that is whole again is forgotten.
func (in *inspector) recheckDamage(ctx context.Context, sh Shard, file Reader) error {
	flagged, _ := in.damaged.Load(sh.Number)
	c, ok := flagged.(cid.Cid)
	if !ok || file == nil {
		return nil
	}
	rows, err := in.index.Find(ctx, c.Hash())
	if err != nil {
		return err
	}
	for _, r := range rows {
		if r.Piece != sh.Number {
			continue
		}
		if _, err := carstore.ReadSection(file, int64(sh.Offset+r.Offset), int64(r.Section()), c); err != nil {
			return err
		}
	}
	in.damaged.Delete(sh.Number)
	return nil
}
