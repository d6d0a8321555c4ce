package node

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/reason"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ipfs/go-datastore"

	"github.com/cartage-dev/cartage/blob"
)

// cacheGrace is how long a file is kept although there is no room: whoever retrieved it is about to export it.
const cacheGrace = 10 * time.Minute

// cached is a file of the cache.
type cached struct {
	path    string
	size    int64
	used    time.Time
	changed time.Time
}

// usedKey remembers when a file was last used.
func usedKey(path string) datastore.Key { return datastore.NewKey("/used/" + filepath.Base(path)) }

// touch notes that a file is used now.
func (t *targets) touch(ctx context.Context, path string, now time.Time) error {
	return t.ds.Put(ctx, usedKey(path), binary.BigEndian.AppendUint64(nil, uint64(now.UnixNano())))
}

// list returns the files of the cache, least recently used first.
func (t *targets) list(ctx context.Context) ([]cached, error) {
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		return nil, err
	}
	var out []cached
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) || filepath.Ext(e.Name()) != ".car" {
			continue
		}
		if err != nil {
			return nil, err
		}
		c := cached{filepath.Join(t.dir, e.Name()), info.Size(), info.ModTime(), info.ModTime()}
		if b, err := t.ds.Get(ctx, usedKey(c.path)); err == nil && len(b) == 8 {
			c.used = time.Unix(0, int64(binary.BigEndian.Uint64(b)))
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b cached) int { return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.path, b.path)) })
	return out, nil
}

// trim removes the least recently used files until the rest is within quota (D9). A file that is in use or was a moment ago
// stays; a quota of 0 keeps everything.
func (t *targets) trim(ctx context.Context, quota int64, now time.Time) error {
	if quota <= 0 {
		return nil
	}
	list, err := t.list(ctx)
	if err != nil {
		return err
	}
	total := int64(0)
	for _, c := range list {
		total += c.size
	}
	for _, c := range list {
		if total <= quota {
			return nil
		}
		if now.Sub(c.used) < cacheGrace {
			continue
		}
		removed, err := t.remove(ctx, c.path)
		if err != nil {
			return err
		}
		if removed {
			total -= c.size
		}
	}
	return nil
}

// remove deletes a file that nobody has open.
func (t *targets) remove(ctx context.Context, path string) (bool, error) {
	return t.Unless(path, func() error {
		if err := t.fs.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("make room in the cache: %w", err)
		}
		return t.ds.Delete(ctx, usedKey(path))
	})
}

// roomFor says before anything is paid that the disk is too small: for the file of the cache, and for the export beside it.
func (t *targets) roomFor(missing, whole uint64, output string) error {
	need := map[[2]int32]uint64{}
	where := map[[2]int32]string{}
	free := map[[2]int32]uint64{}
	add := func(dir string, bytes uint64) {
		if f, id, ok := blob.Free(dir); ok {
			need[id], free[id], where[id] = need[id]+bytes, f, dir
		}
	}
	add(t.dir, missing)
	if output != "" {
		add(filepath.Dir(output), whole)
	}
	for id, n := range need {
		if n > free[id] {
			return api.ErrorOf(reason.DiskFull.Errorf("too little disk: %s has %d bytes free, the retrieval needs up to %d", where[id], free[id], n).WithHint("Free some, or choose another --home and output."))
		}
	}
	return nil
}
