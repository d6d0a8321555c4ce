package cartargets

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ipfs/go-datastore"
	"github.com/ipld/go-ipld-prime"

	"github.com/cartage-dev/cartage/carstore"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

// baseKey is where the base of a deal is kept.
func baseKey(id rm.DealID) datastore.Key { return datastore.NewKey("/base/" + id.String()) }

// BaseOf is what a deal claims to have had before it began, in bytes; 0 if it never opened its file.
func (t *Files) BaseOf(ctx context.Context, id rm.DealID) (base uint64, known bool, err error) {
	data, err := t.ds.Get(ctx, baseKey(id))
	if errors.Is(err, datastore.ErrNotFound) {
		return 0, false, nil
	}
	if err == nil && len(data) != 8 {
		err = fmt.Errorf("what the file of deal %s held is stored as %x, which is not a number", id, data)
	}
	if err != nil {
		return 0, false, err
	}
	return binary.BigEndian.Uint64(data), true, nil
}

// base is what the file held when a deal began, and holds still: the deal does not owe for it. It is claimed to the provider, so it is on stable storage
// first. Damage that takes of it all the same makes it less: what comes again is due like everything else.
func (t *Files) base(ctx context.Context, id rm.DealID, s *carstore.Store, sel ipld.Node) (uint64, error) {
	base, known, err := t.BaseOf(ctx, id)
	if err != nil || known && base == 0 {
		return 0, err
	}
	pos, err := s.Locate(sel)
	switch {
	case err != nil:
		return 0, err
	case known && base <= pos.Bytes:
		return base, nil
	case !known && pos.Bytes > 0:
		err = s.Sync()
	}
	if err == nil {
		err = t.ds.Put(ctx, baseKey(id), binary.BigEndian.AppendUint64(nil, pos.Bytes))
	}
	if err != nil {
		return 0, err
	}
	return pos.Bytes, t.ds.Sync(ctx, baseKey(id))
}
