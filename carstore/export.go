package carstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode/data"
	"github.com/ipfs/go-unixfsnode/file"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"

	"github.com/cartage-dev/cartage/internal/blob"
	"github.com/cartage-dev/cartage/shared"
)

// ErrExists means that something is at the place where the export should go.
var ErrExists = errors.New("already exists")

// maxDepth bounds folders in folders.
const maxDepth = 4096

// Export writes the UnixFS file or folder below root to dest, aside and then renamed; an existing dest is replaced only with
// force. The bytes of every block are checked again on the way.
func (s *Store) Export(ctx context.Context, fsys blob.FS, dest string, force bool) error {
	ls := s.LinkSystem()
	return ExportFrom(ctx, fsys, &ls, s.root, dest, force)
}

// ExportFrom is Export out of any link system; it has to check what it reads.
func ExportFrom(ctx context.Context, fsys blob.FS, ls *ipld.LinkSystem, root cid.Cid, dest string, force bool) error {
	return aside(fsys, dest, force, func(tmp string) error { return exportNode(ctx, fsys, ls, root, tmp, 0) })
}

// ExportCAR writes the CARv1 of everything in the file to dest, as Export does.
func (s *Store) ExportCAR(fsys blob.FS, dest string, force bool) error {
	return WriteAside(fsys, dest, force, func(w io.Writer) error {
		_, err := io.Copy(w, s.Payload())
		return err
	})
}

// WriteAside writes a file next to dest and renames it into place when it is complete and synced.
func WriteAside(fsys blob.FS, dest string, force bool, f func(io.Writer) error) error {
	return aside(fsys, dest, force, func(tmp string) error { return writeFile(fsys, tmp, f) })
}

// aside lets f write next to dest and renames the complete result into place.
func aside(fsys blob.FS, dest string, force bool, f func(tmp string) error) error {
	if err := CheckDest(fsys, dest, force); err != nil {
		return err
	}
	tmp := beside(dest, "partial")
	if err := fsys.RemoveAll(tmp); err != nil {
		return err
	}
	err := f(tmp)
	if st, serr := os.Stat(tmp); err == nil && serr == nil && st.IsDir() && force {
		err = fsys.RemoveAll(dest) // a file, which a folder cannot be renamed over
	}
	if err == nil {
		err = blob.Publish(fsys, tmp, dest)
	}
	if err != nil {
		return errors.Join(err, fsys.RemoveAll(tmp))
	}
	return nil
}

// CheckDest tells before anything is spent whether an export could go there.
func CheckDest(fsys blob.FS, dest string, force bool) error {
	if st, err := os.Lstat(dest); err == nil {
		if !force {
			return fmt.Errorf("%s %w: use --force to replace it", dest, ErrExists)
		}
		if !st.Mode().IsRegular() {
			return fmt.Errorf("%s %w and is not a regular file: --force replaces files only", dest, ErrExists)
		}
	}
	dir := filepath.Dir(dest)
	st, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("cannot write to %s: %w", dest, err)
	}
	if !st.IsDir() {
		return fmt.Errorf("cannot write to %s: %s is not a folder", dest, dir)
	}
	name := beside(dest, "probe")
	if err := fsys.RemoveAll(name); err != nil { // of a run that was killed
		return fmt.Errorf("cannot write to %s: %w", dest, err)
	}
	probe, err := fsys.Create(name, 0o600)
	if err != nil {
		return fmt.Errorf("cannot write to %s: %w", dest, err)
	}
	return errors.Join(probe.Close(), fsys.Remove(name))
}

// beside is the name of something of ours next to dest.
func beside(dest, what string) string {
	return filepath.Join(filepath.Dir(dest), "."+filepath.Base(dest)+".cartage-"+what)
}

// writeFile makes a new file with what f writes, synced.
func writeFile(fsys blob.FS, name string, f func(io.Writer) error) error {
	out, err := fsys.Create(name, 0o644)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(&blob.Appender{F: out}, 1<<20)
	err = f(w)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// WriteFileTo writes the UnixFS file below root to w.
func (s *Store) WriteFileTo(ctx context.Context, w io.Writer) error {
	ls := s.LinkSystem()
	return WriteFileFrom(ctx, &ls, s.root, w)
}

// WriteFileFrom is WriteFileTo out of any link system.
func WriteFileFrom(ctx context.Context, ls *ipld.LinkSystem, root cid.Cid, w io.Writer) error {
	r, err := OpenFileFrom(ctx, ls, root)
	if err != nil {
		return err
	}
	return copyTo(ctx, w, r)
}

// OpenFileFrom opens the UnixFS file below root; it reads what it is asked for, and no more than that of the DAG.
func OpenFileFrom(ctx context.Context, ls *ipld.LinkSystem, root cid.Cid) (io.ReadSeeker, error) {
	node, err := load(ctx, ls, root)
	if err != nil {
		return nil, err
	}
	if pb, ok := node.(dagpb.PBNode); ok {
		if d, err := unixfsData(pb); err == nil && (d.DataType.Int() == data.Data_Directory || d.DataType.Int() == data.Data_HAMTShard) {
			return nil, fmt.Errorf("%s is a folder: write it to a path, or take the archive with --car", root)
		}
	}
	return openFile(ctx, ls, node)
}

// ExportCARFrom is ExportCAR out of any link system.
func ExportCARFrom(ctx context.Context, fsys blob.FS, ls *ipld.LinkSystem, root cid.Cid, dest string, force bool) error {
	return WriteAside(fsys, dest, force, func(w io.Writer) error { return WriteCARFrom(ctx, ls, root, w) })
}

// Entry is a link of a folder, or of any other node.
type Entry struct {
	Cid  cid.Cid
	Name string
	Size uint64 // of the DAG below it, as the node says
}

// List returns the links of a node: of a folder its entries, of another dag-pb node its links.
func List(ctx context.Context, ls *ipld.LinkSystem, root cid.Cid) ([]Entry, error) {
	node, err := load(ctx, ls, root)
	if err != nil {
		return nil, err
	}
	pb, ok := node.(dagpb.PBNode)
	if !ok {
		return nil, nil
	}
	if d, err := unixfsData(pb); err == nil && d.DataType.Int() == data.Data_HAMTShard {
		return listShard(ctx, ls, node)
	}
	var out []Entry
	for it := pb.FieldLinks().Iterator(); !it.Done(); {
		_, l := it.Next()
		e := Entry{Cid: l.FieldHash().Link().(cidlink.Link).Cid}
		if l.FieldName().Exists() {
			e.Name = l.FieldName().Must().String()
		}
		if l.FieldTsize().Exists() {
			e.Size = uint64(l.FieldTsize().Must().Int())
		}
		out = append(out, e)
	}
	return out, nil
}

// listShard lists a sharded folder; its nodes do not say how large the entries are.
func listShard(ctx context.Context, ls *ipld.LinkSystem, node datamodel.Node) ([]Entry, error) {
	dir, err := ls.KnownReifiers["unixfs"](ipld.LinkContext{Ctx: ctx}, node, ls)
	if err != nil {
		return nil, err
	}
	var out []Entry
	for it := dir.MapIterator(); it != nil && !it.Done(); {
		k, v, err := it.Next()
		if err != nil {
			return nil, err
		}
		name, err := k.AsString()
		if err != nil {
			return nil, err
		}
		l, err := v.AsLink()
		if err != nil {
			return nil, err
		}
		out = append(out, Entry{Cid: l.(cidlink.Link).Cid, Name: name})
	}
	return out, nil
}

func load(ctx context.Context, ls *ipld.LinkSystem, c cid.Cid) (datamodel.Node, error) {
	var proto ipld.NodePrototype = basicnode.Prototype.Any
	if c.Prefix().Codec == cid.DagProtobuf {
		proto = dagpb.Type.PBNode
	}
	return ls.Load(ipld.LinkContext{Ctx: ctx}, cidlink.Link{Cid: c}, proto)
}

func openFile(ctx context.Context, ls *ipld.LinkSystem, node datamodel.Node) (io.ReadSeeker, error) {
	f, err := file.NewUnixFSFile(ctx, node, ls)
	if err != nil {
		return nil, err
	}
	return f.AsLargeBytes()
}

func copyTo(ctx context.Context, w io.Writer, r io.Reader) error {
	_, err := io.CopyBuffer(shared.Writer(ctx, w), r, make([]byte, 1<<20))
	return err
}

func copyFile(ctx context.Context, ls *ipld.LinkSystem, node datamodel.Node, w io.Writer) error {
	r, err := openFile(ctx, ls, node)
	if err != nil {
		return err
	}
	return copyTo(ctx, w, r)
}

func exportNode(ctx context.Context, fsys blob.FS, ls *ipld.LinkSystem, c cid.Cid, dest string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("folders are nested deeper than %d", maxDepth)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	node, err := load(ctx, ls, c)
	if err != nil {
		return err
	}
	kind := int64(data.Data_File)
	if pb, ok := node.(dagpb.PBNode); ok {
		d, err := unixfsData(pb)
		if err != nil {
			return fmt.Errorf("%s is not UnixFS (%w): retrieve it with --car", c, err)
		}
		kind = d.DataType.Int()
	} else if c.Prefix().Codec != cid.Raw {
		return fmt.Errorf("%s is not UnixFS: retrieve it with --car", c)
	}
	switch kind {
	case data.Data_File, data.Data_Raw:
		return writeFile(fsys, dest, func(w io.Writer) error { return copyFile(ctx, ls, node, w) })
	case data.Data_Directory, data.Data_HAMTShard:
		return exportFolder(ctx, fsys, ls, node, dest, depth)
	}
	return fmt.Errorf("%s has UnixFS type %d, which cannot be exported: retrieve it with --car", c, kind)
}

func unixfsData(pb dagpb.PBNode) (data.UnixFSData, error) {
	if !pb.FieldData().Exists() {
		return nil, errors.New("it has no data")
	}
	return data.DecodeUnixFSData(pb.FieldData().Must().Bytes())
}

// UnixFSKind is what a UnixFS node is: one of the Data constants of go-unixfsnode; -1 for any other node.
func UnixFSKind(ctx context.Context, ls *ipld.LinkSystem, c cid.Cid) (int64, error) {
	node, err := load(ctx, ls, c)
	if err != nil {
		return -1, err
	}
	pb, ok := node.(dagpb.PBNode)
	if !ok {
		return -1, nil
	}
	d, err := unixfsData(pb)
	if err != nil {
		return -1, nil
	}
	return d.DataType.Int(), nil
}

func exportFolder(ctx context.Context, fsys blob.FS, ls *ipld.LinkSystem, node datamodel.Node, dest string, depth int) error {
	if err := fsys.MkdirAll(dest, 0o755); err != nil {
		return err
	}
	dir, err := ls.KnownReifiers["unixfs"](ipld.LinkContext{Ctx: ctx}, node, ls)
	if err != nil {
		return err
	}
	for it := dir.MapIterator(); it != nil && !it.Done(); {
		k, v, err := it.Next()
		if err != nil {
			return err
		}
		name, err := k.AsString()
		if err != nil {
			return err
		}
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
			return fmt.Errorf("folder has an entry named %q, which cannot be a file name", name)
		}
		l, err := v.AsLink()
		if err != nil {
			return err
		}
		if err := exportNode(ctx, fsys, ls, l.(cidlink.Link).Cid, filepath.Join(dest, name), depth+1); err != nil {
			return err
		}
	}
	return nil
}
