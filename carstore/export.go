package carstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/shared"
)

// maxDepth bounds folders in folders.
const maxDepth = 4096

// Exported is what an export wrote. It grows while the export goes on.
type Exported struct {
	Files, Folders, Symlinks int
	Bytes                    uint64 // of the files
	LeftOut                  []LeftOut
}

// LeftOut is an entry that an export did not write. Its names come from the DAG: they are untrusted.
type LeftOut struct {
	Path string // below the output, with slashes
	Why  string
}

// Export writes the UnixFS file or folder below root to path, aside and then renamed; an existing file is replaced only with force. The
// bytes of every block are checked again on the way.
func (s *Store) Export(ctx context.Context, fsys blob.FS, path string, force bool) error {
	d, err := ClaimDest(fsys, path, force)
	if err != nil {
		return err
	}
	ls := s.LinkSystem()
	_, err = d.Export(ctx, &ls, s.root, nil)
	return errors.Join(err, d.Release())
}

// ExportCAR writes the CARv1 of everything in the file.
func (s *Store) ExportCAR(d *Dest) error {
	return d.WriteFile(func(w io.Writer) error {
		_, err := io.Copy(w, s.Payload())
		return err
	})
}

// Export writes the UnixFS file or folder below root; ls has to check what it reads. A folder is written without a sync for each file, then made
// durable as a whole, then renamed into place. Symbolic links are made if they cannot lead out of the folder and are left out
// otherwise. Kept modes and times are restored, the bits beyond permissions never. progress, if not nil, is told now and then on the
// goroutine of the export.
func (d *Dest) Export(ctx context.Context, ls *ipld.LinkSystem, root cid.Cid, progress func(Exported)) (Exported, error) {
	e := exporter{fs: d.fs, ls: ls, progress: progress}
	err := d.writeAside(func(tmp string) error { return e.exportNode(ctx, root, tmp) })
	return e.done, err
}

// exporter writes one DAG.
type exporter struct {
	fs       blob.FS
	ls       *ipld.LinkSystem
	root     string // where the export is written
	buf      []byte
	links    []symlink
	folders  []attributes // innermost last
	done     Exported
	progress func(Exported)
}

// symlink is made when all files are there, so that nothing is ever written through one.
type symlink struct{ target, name string }

type attributes struct {
	name string
	blob.Attributes
}

func (e *exporter) exportNode(ctx context.Context, root cid.Cid, to string) error {
	e.root = to
	n, err := loadUnixFS(ctx, e.ls, root)
	if err != nil {
		return err
	}
	switch {
	case n.kind == KindSymlink:
		return reason.NotAFile.Errorf("%s is a %s to %q: it is not made alone, it could lead anywhere", root, n.kind, n.linkTarget())
	case n.kind == KindFile:
		if err := e.writeFile(ctx, n, to, true); err != nil {
			return err
		}
		return e.restoreAttributes(n, to)
	}
	if err := e.writeNode(ctx, n, to, 0); err != nil {
		return err
	}
	for _, l := range e.links {
		if err := e.fs.Symlink(l.target, l.name); err != nil {
			return err
		}
		e.done.Symlinks++
	}
	for _, a := range slices.Backward(e.folders) {
		if err := e.fs.SetAttributes(a.name, a.Attributes); err != nil {
			return err
		}
	}
	return e.fs.SyncTree(to)
}

// writeNode writes a node that is not a link.
func (e *exporter) writeNode(ctx context.Context, n unixfsNode, to string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("folders are nested deeper than %d", maxDepth)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	switch {
	case n.kind == KindFile:
		if err := e.writeFile(ctx, n, to, false); err != nil {
			return err
		}
		return e.restoreAttributes(n, to)
	case n.kind.IsFolder():
		return e.writeFolder(ctx, n, to, depth)
	case n.kind == KindSymlink:
		e.addLink(n.linkTarget(), to)
		return nil
	}
	return reason.NotAFile.Errorf("%s is a %s, which cannot be a file or folder", n.cid, n.kind).WithHint("Take its blocks as an archive with retrieve --car -o.")
}

func (e *exporter) writeFolder(ctx context.Context, n unixfsNode, to string, depth int) error {
	if err := e.fs.MkdirAll(to, 0o755); err != nil {
		return err
	}
	e.done.Folders++
	if a, any := keptAttributes(n); any {
		e.folders = append(e.folders, attributes{to, a})
	}
	dir, err := e.ls.KnownReifiers["unixfs"](ipld.LinkContext{Ctx: ctx}, n.node, e.ls)
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
		child, err := loadUnixFS(ctx, e.ls, l.(cidlink.Link).Cid)
		if err != nil {
			return err
		}
		if err := e.writeNode(ctx, child, filepath.Join(to, name), depth+1); err != nil {
			return err
		}
	}
	return nil
}

// writeFile writes a file; one that is alone is synced at once.
func (e *exporter) writeFile(ctx context.Context, n unixfsNode, to string, sync bool) error {
	out, err := e.fs.Create(to, 0o644)
	if err != nil {
		return err
	}
	w := &countedWriter{e: e, w: shared.Writer(ctx, &blob.Appender{F: out})}
	err = e.copyFile(ctx, n, w)
	if err == nil && sync {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err == nil {
		e.done.Files++
		e.tellProgress()
	}
	return err
}

// copyFile copies a file of one block without a buffer, any other through the one of the export.
func (e *exporter) copyFile(ctx context.Context, n unixfsNode, w io.Writer) error {
	if n.meta == nil {
		if len(n.raw) == 0 {
			return nil
		}
		_, err := w.Write(n.raw)
		return err
	}
	r, err := n.openFile(ctx, e.ls)
	if err != nil {
		return err
	}
	if e.buf == nil {
		e.buf = make([]byte, 1<<20)
	}
	_, err = io.CopyBuffer(w, r, e.buf)
	return err
}

// countedWriter counts what is written.
type countedWriter struct {
	e *exporter
	w io.Writer
}

// Write implements io.Writer.
func (c *countedWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.e.done.Bytes += uint64(n)
	c.e.tellProgress()
	return n, err
}

func (e *exporter) tellProgress() {
	if e.progress != nil {
		e.progress(e.done)
	}
}

// keptAttributes is what was kept with a node beside its bytes: of its mode the permissions only.
func keptAttributes(n unixfsNode) (a blob.Attributes, any bool) {
	if n.meta != nil && n.meta.FieldMode().Exists() {
		mode := fs.FileMode(n.meta.FieldMode().Must().Int()) & fs.ModePerm
		a.Mode = &mode
	}
	if t, ok := n.modifiedAt(); ok {
		a.Mtime = &t
	}
	return a, a.Mode != nil || a.Mtime != nil
}

func (e *exporter) restoreAttributes(n unixfsNode, name string) error {
	a, any := keptAttributes(n)
	if !any {
		return nil
	}
	return e.fs.SetAttributes(name, a)
}

// maxTarget is the longest target that file systems take.
const maxTarget = 4095

// addLink notes a symbolic link that stays inside the export, or that it is left out.
func (e *exporter) addLink(target, name string) {
	rel, err := filepath.Rel(e.root, name)
	at := filepath.ToSlash(rel)
	if why := outsideTarget(at, target); err != nil || why != "" {
		e.done.LeftOut = append(e.done.LeftOut, LeftOut{at, fmt.Sprintf("symbolic link to %q, which %s", shortenName(target), why)})
		return
	}
	e.links = append(e.links, symlink{filepath.FromSlash(target), name})
}

func shortenName(s string) string {
	if len(s) > 200 {
		return s[:200] + "..."
	}
	return s
}

// outsideTarget says why a link at a path below the export could lead out of it, or nothing. A target may climb first and go down then: the folder
// of the link is a real one, so climbing from it is what it looks like. Climbing after a name is not, if the name is a link.
func outsideTarget(at, target string) string {
	switch {
	case target == "":
		return "is empty"
	case len(target) > maxTarget:
		return "is too long"
	case strings.ContainsRune(target, 0):
		return "has a zero byte"
	case path.IsAbs(target), filepath.IsAbs(filepath.FromSlash(target)), filepath.VolumeName(target) != "":
		return "is absolute"
	}
	up, down := 0, false
	for part := range strings.SplitSeq(filepath.ToSlash(target), "/") {
		switch part {
		case "", ".":
		case "..":
			if up++; down {
				return "climbs after it went down"
			}
		default:
			down = true
		}
	}
	if up > strings.Count(at, "/") {
		return "leads out of the output"
	}
	return ""
}
