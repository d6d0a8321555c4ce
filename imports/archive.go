package imports

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"github.com/multiformats/go-varint"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/internal/blob"
)

// Archive is a Sink that writes a CARv1, each block once. The header has room for the root and gets it at the end.
type Archive struct {
	w    *bufio.Writer
	seen map[string]bool
}

// Leaf implements Sink.
func (a *Archive) Leaf(c cid.Cid, data []byte, _ Leaf) error { return a.Node(c, data) }

// Node implements Sink.
func (a *Archive) Node(c cid.Cid, data []byte) error {
	if a.seen[string(c.Hash())] {
		return nil
	}
	a.seen[string(c.Hash())] = true
	cb := c.Bytes()
	for _, p := range [][]byte{varint.ToUvarint(uint64(len(cb) + len(data))), cb, data} {
		if _, err := a.w.Write(p); err != nil {
			return err
		}
	}
	return nil
}

// WriteCAR builds the DAG of a file or folder into a CARv1 at dest. It is written aside, synced and renamed: a crash or an
// error leaves nothing under the name.
func WriteCAR(ctx context.Context, fsys blob.FS, path, dest string, p Profile, progress func(int64)) (cid.Cid, error) {
	tmp := dest + ".partial"
	_ = fsys.Remove(tmp)
	f, err := fsys.Create(tmp, 0o600)
	if err != nil {
		return cid.Undef, err
	}
	root, err := writeCAR(ctx, f, path, p, progress)
	if err = errors.Join(err, f.Close()); err != nil {
		return cid.Undef, errors.Join(err, fsys.Remove(tmp))
	}
	return root, blob.Publish(fsys, tmp, dest)
}

func writeCAR(ctx context.Context, f blob.File, path string, p Profile, progress func(int64)) (cid.Cid, error) {
	placeholder, err := cid.V1Builder{Codec: cid.Raw, MhType: p.HashCode}.Sum(nil)
	if err != nil {
		return cid.Undef, err
	}
	head, err := carstore.V1Header(placeholder)
	if err != nil {
		return cid.Undef, err
	}
	out := &blob.Appender{F: f, Off: int64(len(head))}
	a := &Archive{w: bufio.NewWriterSize(out, 1<<20), seen: map[string]bool{}}
	abs, err := filepath.Abs(path)
	if err != nil {
		return cid.Undef, err
	}
	b := Builder{Profile: p, Sink: a, Progress: progress}
	root, err := b.Add(ctx, abs)
	if err == nil {
		err = a.w.Flush()
	}
	if err != nil {
		return cid.Undef, err
	}
	final, err := carstore.V1Header(root)
	if err != nil {
		return cid.Undef, err
	}
	if len(final) != len(head) {
		return cid.Undef, fmt.Errorf("root %s is inlined (%s): it cannot be provided; the payload is smaller than a CID", root, mh.Codes[root.Prefix().MhType])
	}
	if _, err := f.WriteAt(final, 0); err != nil {
		return cid.Undef, err
	}
	return root, f.Sync()
}
