package channels

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"

	dt "github.com/cartage-dev/cartage/datatransfer"
)

// endedKey orders the channels that ended by the second in which they did.
func endedKey(at time.Time, chid dt.ChannelID) datastore.Key {
	return datastore.NewKey(fmt.Sprintf("/%s/e/%012d-%s", Version, at.Unix(), chid))
}

func (s *store) putEnded(b datastore.Write, at time.Time, chid dt.ChannelID) error {
	return b.Put(s.ctx, endedKey(at, chid), nil)
}

// prune deletes what ended before a time; the key that names a channel goes last, so that a crash leaves work to find.
func (s *store) prune(ctx context.Context, before time.Time) (n int, err error) {
	prefix := "/" + Version + "/e"
	res, err := s.ds.Query(ctx, query.Query{Prefix: prefix, KeysOnly: true, Orders: []query.Order{query.OrderByKey{}}})
	if err != nil {
		return 0, err
	}
	defer res.Close()
	for e := range res.Next() {
		if e.Error != nil {
			return n, e.Error
		}
		name := strings.TrimPrefix(e.Key, prefix+"/")
		at, id, ok := strings.Cut(name, "-")
		if !ok || at >= fmt.Sprintf("%012d", before.Unix()) {
			return n, nil
		}
		if err := s.delete(ctx, id); err != nil {
			return n, fmt.Errorf("prune channel %s: %w", id, err)
		}
		if err := s.ds.Delete(ctx, datastore.NewKey(e.Key)); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// delete removes every key of a channel.
func (s *store) delete(ctx context.Context, id string) error {
	b, err := s.ds.Batch(ctx)
	if err != nil {
		return err
	}
	for _, part := range []string{"v", "r", "l"} {
		if err := s.deleteAll(ctx, b, "/"+Version+"/"+part+"/"+id); err != nil {
			return err
		}
	}
	for _, part := range []string{"h", "s"} {
		if err := b.Delete(ctx, datastore.NewKey("/"+Version+"/"+part+"/"+id)); err != nil {
			return err
		}
	}
	return b.Commit(ctx)
}

// deleteAll removes the keys below a prefix through a batch, or the store itself.
func (s *store) deleteAll(ctx context.Context, from datastore.Write, prefix string) error {
	res, err := s.ds.Query(ctx, query.Query{Prefix: prefix, KeysOnly: true})
	if err != nil {
		return err
	}
	rest, err := res.Rest()
	if err != nil {
		return err
	}
	for _, e := range rest {
		if err := from.Delete(ctx, datastore.NewKey(e.Key)); err != nil {
			return err
		}
	}
	return nil
}
