package imports

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/internal/blob"
)

// refsMagic opens a leaf table, version 1.
var refsMagic = []byte("cartage-refs\x00\x01")

// Ref is an import by reference: inner nodes in a CARv2, leaves as positions in the sources.
type Ref struct {
	Root  cid.Cid
	Path  string
	Bytes uint64
}

// source is a file that leaves point into, as it was when it was read.
type source struct {
	path  string
	size  int64
	mtime int64
}

type leafRow struct {
	hash   []byte
	source uint32
	offset uint64
	size   uint32
}

// refSink keeps nodes and notes where leaves lie.
type refSink struct {
	nodes  []nodeBlock
	rows   []leafRow
	files  map[string]uint32
	source []source
	bytes  uint64
}

type nodeBlock struct {
	c    cid.Cid
	data []byte
}

// Leaf implements Sink.
func (s *refSink) Leaf(c cid.Cid, data []byte, at Leaf) error {
	n, ok := s.files[at.Path]
	if !ok {
		st, err := os.Stat(at.Path)
		if err != nil {
			return err
		}
		n = uint32(len(s.source))
		s.files[at.Path] = n
		s.source = append(s.source, source{at.Path, st.Size(), st.ModTime().UnixNano()})
	}
	s.bytes += uint64(len(data))
	s.rows = append(s.rows, leafRow{c.Hash(), n, uint64(at.Offset), uint32(len(data))})
	return nil
}

// Node implements Sink.
func (s *refSink) Node(c cid.Cid, data []byte) error {
	s.nodes = append(s.nodes, nodeBlock{c, bytes.Clone(data)})
	return nil
}

// Reference imports a file or folder without a copy: dir/id.car is a valid CARv2 of the inner nodes, dir/id.refs the leaf
// table. Both are written aside and renamed.
func Reference(ctx context.Context, fsys blob.FS, path, dir, id string, p Profile) (Ref, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Ref{}, err
	}
	s := &refSink{files: map[string]uint32{}}
	b := Builder{Profile: p, Sink: s}
	root, err := b.Add(ctx, path)
	if err != nil {
		return Ref{}, err
	}
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		return Ref{}, err
	}
	refs, err := s.table()
	if err != nil {
		return Ref{}, err
	}
	if err := blob.WriteFile(fsys, filepath.Join(dir, id+".refs"), refs, 0o600); err != nil {
		return Ref{}, err
	}
	tmp, dest := filepath.Join(dir, id+".car.partial"), filepath.Join(dir, id+".car")
	c, err := carstore.Open(fsys, tmp, root)
	if err != nil {
		return Ref{}, err
	}
	for _, n := range s.nodes {
		if err = c.Put(n.c, n.data); err != nil {
			break
		}
	}
	if err == nil {
		err = c.Finalize()
	}
	if err = errors.Join(err, c.Close()); err == nil {
		err = blob.Publish(fsys, tmp, dest)
	}
	return Ref{root, path, s.bytes}, err
}

// table is: magic, sources (path, size, mtime), rows sorted by multihash.
func (s *refSink) table() ([]byte, error) {
	sort.Slice(s.rows, func(i, j int) bool { return bytes.Compare(s.rows[i].hash, s.rows[j].hash) < 0 })
	out := append([]byte(nil), refsMagic...)
	out = binary.AppendUvarint(out, uint64(len(s.source)))
	for _, f := range s.source {
		out = binary.AppendUvarint(out, uint64(len(f.path)))
		out = append(out, f.path...)
		out = binary.AppendVarint(binary.AppendVarint(out, f.size), f.mtime)
	}
	out = binary.AppendUvarint(out, uint64(len(s.rows)))
	for _, r := range s.rows {
		if len(r.hash) > 255 {
			return nil, fmt.Errorf("multihash of %d bytes is too long", len(r.hash))
		}
		out = append(append(out, byte(len(r.hash))), r.hash...)
		out = binary.AppendUvarint(binary.AppendUvarint(binary.AppendUvarint(out, uint64(r.source)), r.offset), uint64(r.size))
	}
	return out, nil
}
