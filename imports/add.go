package imports

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/shared"
)

// Add imports a file or folder without a copy: its inner nodes go into a CAR, its leaves stay where they are.
func (m *Manager) Add(ctx context.Context, path string, p Profile, o *Options) (Import, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Import{}, err
	}
	return m.buildImport(ctx, m.nextID(), path, map[string]string{LabelSource: "import", LabelFilename: path}, p, o)
}

// AddReader imports a stream, of which a copy is kept.
func (m *Manager) AddReader(ctx context.Context, r io.Reader, p Profile, o *Options) (Import, error) {
	id := m.nextID()
	data := m.pathOf(id, ".data")
	f, err := m.fs.Create(data, 0o600)
	if err != nil {
		return Import{}, err
	}
	_, err = io.Copy(&blob.Appender{F: f}, shared.Reader(ctx, r))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return Import{}, errors.Join(err, m.fs.RemoveAll(data))
	}
	i, err := m.buildImport(ctx, id, data, map[string]string{LabelSource: "import-local", LabelData: data}, p, o)
	if err != nil {
		err = errors.Join(err, m.fs.RemoveAll(data))
	}
	return i, err
}

// buildImport makes the DAG of a path. A failure leaves nothing.
func (m *Manager) buildImport(ctx context.Context, id uint64, path string, labels map[string]string, p Profile, o *Options) (Import, error) {
	s := &refSink{files: map[string]int{}}
	b := Builder{Profile: p, Sink: s, Options: o}
	root, err := b.Add(ctx, path)
	if err != nil {
		return Import{}, err
	}
	i := Import{ID: id, Labels: labels}
	labels[LabelRoot], labels[LabelBytes] = root.String(), strconv.FormatUint(s.bytes, 10)
	labels[LabelCARPath], labels[LabelCAROwner] = m.pathOf(id, ".car"), OwnerManager
	err = m.writeNodes(id, root, s.nodes)
	if err == nil {
		err = m.keepImport(ctx, i, &s.refs)
	}
	if err != nil {
		return Import{}, errors.Join(err, m.removeFiles(i))
	}
	return i, nil
}

// writeNodes writes the CAR of an import: a valid one, of its inner nodes.
func (m *Manager) writeNodes(id uint64, root cid.Cid, nodes []nodeBlock) error {
	tmp := m.pathOf(id, ".car.partial")
	c, err := carstore.Open(m.fs, tmp, root)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if err = c.Put(n.c, n.data); err != nil {
			break
		}
	}
	if err == nil {
		err = c.Finalize()
	}
	if err = errors.Join(err, c.Close()); err != nil {
		return errors.Join(err, m.fs.RemoveAll(tmp))
	}
	return blob.Publish(m.fs, tmp, m.pathOf(id, ".car"))
}

// keepImport stores the leaf table and then the record, which makes the import.
func (m *Manager) keepImport(ctx context.Context, i Import, r *refs) error {
	if err := blob.WriteFile(m.fs, m.pathOf(i.ID, ".refs"), r.encodeRefs(), 0o600); err != nil {
		return err
	}
	return m.putImport(ctx, i)
}

// AddCAR imports a CAR of version 1 or 2 where it lies. It must have one root, and every block must be what its CID says.
func (m *Manager) AddCAR(ctx context.Context, path string) (Import, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Import{}, err
	}
	f, err := m.fs.Open(path)
	if err != nil {
		return Import{}, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return Import{}, err
	}
	l, err := carstore.Inspect(f, size)
	if err != nil {
		return Import{}, fmt.Errorf("%s: %w", path, err)
	}
	if len(l.Roots) != 1 {
		return Import{}, reason.ArchiveRoot.Errorf("%s: CAR has %d roots, an import needs exactly one", path, len(l.Roots)).
			WithHint("Write an archive with one root: cartage generate-car, or retrieve --car.")
	}
	closure := &carstore.Closure{}
	closure.Await(l.Roots[0], 0)
	end := l.Header
	s := &refSink{files: map[string]int{}}
	n, err := s.sourceIndex(path)
	if err != nil {
		return Import{}, err
	}
	err = carstore.Walk(f, l, func(b carstore.Block) error {
		off := l.Offset + b.Offset + b.Section - int64(len(b.Data))
		s.refs.rows = append(s.refs.rows, row{b.Cid.Hash(), n, off, len(b.Data)})
		s.bytes += uint64(len(b.Data))
		closure.Add(b.Cid, b.Data)
		end = b.Offset + b.Section
		return ctx.Err()
	})
	if err == nil {
		_, err = carstore.Behind(f, l, end)
	}
	if err == nil {
		err = checkWhole(l.Roots[0], closure, &s.refs, f)
	}
	if err != nil {
		return Import{}, fmt.Errorf("%s: %w", path, err)
	}
	i := Import{ID: m.nextID(), Labels: map[string]string{LabelSource: "import", LabelFilename: path, LabelRoot: l.Roots[0].String(), LabelCARPath: path,
		LabelCAROwner: "user", LabelBytes: strconv.FormatUint(s.bytes, 10)}}
	if err := m.keepImport(ctx, i, &s.refs); err != nil {
		return Import{}, errors.Join(err, m.removeFiles(i))
	}
	return i, nil
}

// removeFiles removes the files of an import that are ours.
func (m *Manager) removeFiles(i Import) error {
	names := []string{m.pathOf(i.ID, ".refs"), m.pathOf(i.ID, ".refs.tmp"), m.pathOf(i.ID, ".car.partial"), m.pathOf(i.ID, ".car"), m.pathOf(i.ID, ".data")}
	var errs []error
	for _, n := range names {
		errs = append(errs, m.fs.RemoveAll(n))
	}
	return errors.Join(errs...)
}

// checkWhole refuses an archive that lacks blocks below its root: what is imported can be stored and read again.
func checkWhole(root cid.Cid, closure *carstore.Closure, r *refs, f blob.File) error {
	at := make(map[string]int, len(r.rows))
	for i, x := range r.rows {
		at[string(x.hash)] = i
	}
	dangling, err := closure.Missing(func(hash mh.Multihash) (bool, error) {
		_, ok := at[string(hash)]
		return ok, nil
	})
	if err != nil || len(dangling) == 0 {
		return err
	}
	lacks, missing, err := carstore.MissingBelow([]cid.Cid{root}, func(c cid.Cid) ([]byte, error) {
		if data, ok := carstore.Inlined(c); ok {
			return data, nil
		}
		i, ok := at[string(c.Hash())]
		if !ok {
			return nil, carstore.ErrNotFound
		}
		data := make([]byte, r.rows[i].size)
		_, err := f.ReadAt(data, r.rows[i].offset)
		return data, err
	})
	switch {
	case err != nil || missing == 0:
		return err
	case slices.Contains(lacks, root):
		return reason.ArchiveRoot.Errorf("the CAR does not hold its root %s", root)
	}
	return reason.ArchiveIncomplete.Errorf("the CAR lacks %d blocks below its root, the first is %s", missing, lacks[0])
}
