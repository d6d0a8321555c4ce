package dataselector

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/schema"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/shared"
)

// Part is where a selection begins in a DAG.
type Part struct {
	Root cid.Cid
	// Way are the blocks from the root of the DAG to there, the root first and Root left out: they prove that the part belongs to it.
	Way []cid.Cid
	// inside is the path of a match that is no block of its own.
	inside string
}

// ErrNoMatch says that a DAG has nothing at a path.
var ErrNoMatch = errors.New("path selection does not match a node")

// noMatchError is the refusal of a path that leads to nothing.
func (s Selection) noMatchError(root cid.Cid) error {
	return reason.PathUnknown.Errorf("%w within %s: there is nothing at %s", ErrNoMatch, root, s)
}

// Parts finds where the parts of a selection begin. ls reads the DAG, or as much of it as was fetched.
func (s Selection) Parts(ctx context.Context, ls *ipld.LinkSystem, root cid.Cid) ([]Part, error) {
	switch {
	case s.path != "":
		p, err := s.entityPart(ctx, ls, root)
		return []Part{p}, err
	case s.target == nil:
		return []Part{{Root: root}}, nil
	}
	var out []Part
	var way []cid.Cid // from the root to the last block that was loaded
	reading := recording(ls, func(c cid.Cid) { way = append(way, c) })
	known := cid.NewSet()
	err := carstore.WalkSelector(&reading, root, s.target, func(v carstore.Visited) error {
		if err := ctx.Err(); err != nil || !v.Matched {
			return err
		}
		part := Part{Root: v.Block}
		if !known.Visit(part.Root) {
			return nil
		}
		if path, inside := v.Path(); inside {
			part.inside = path
		}
		if !s.exact {
			part.Way = slices.DeleteFunc(slices.Clone(way), func(c cid.Cid) bool { return c.Equals(part.Root) })
		}
		out = append(out, part)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(out) == 0 && s.exact {
		return []Part{{Root: root}}, nil // it only explores
	}
	if len(out) == 0 {
		return nil, s.noMatchError(root)
	}
	return out, nil
}

// recording tells of each block that is read.
func recording(ls *ipld.LinkSystem, f func(cid.Cid)) ipld.LinkSystem {
	mine := *ls
	mine.StorageReadOpener = func(ctx linking.LinkContext, l datamodel.Link) (io.Reader, error) {
		r, err := ls.StorageReadOpener(ctx, l)
		if cl, ok := l.(cidlink.Link); ok && err == nil {
			f(cl.Cid)
		}
		return r, err
	}
	return mine
}

// entityPart follows names of UnixFS.
func (s Selection) entityPart(ctx context.Context, ls *ipld.LinkSystem, root cid.Cid) (Part, error) {
	out := Part{Root: root}
	names, err := splitPath(s.path)
	if err != nil {
		return out, err
	}
	reading := recording(ls, func(c cid.Cid) {
		if n := len(out.Way); n == 0 || !out.Way[n-1].Equals(c) {
			out.Way = append(out.Way, c)
		}
	})
	for i, name := range names {
		next, err := childOf(ctx, &reading, out.Root, name)
		if errors.Is(err, errNoEntry) {
			return out, reason.PathUnknown.Errorf("%w within %s: there is nothing at %s: %w", ErrNoMatch, root, s.path, err)
		}
		if err != nil {
			return out, fmt.Errorf("%s within %s: %w", strings.Join(names[:i+1], "/"), root, err)
		}
		out.Root = next
	}
	return out, nil
}

// errNoEntry says that a node has no entry with a name.
var errNoEntry = errors.New("no such entry")

// childOf finds an entry of a folder.
func childOf(ctx context.Context, ls *ipld.LinkSystem, at cid.Cid, name string) (cid.Cid, error) {
	kind, _, err := carstore.Stat(ctx, ls, at)
	if err != nil {
		return cid.Undef, err
	}
	if !kind.IsFolder() {
		return cid.Undef, fmt.Errorf("%w as %q: %s is a %s", errNoEntry, name, at, kind)
	}
	node, err := ls.Load(ipld.LinkContext{Ctx: ctx}, cidlink.Link{Cid: at}, dagpb.Type.PBNode)
	if err != nil {
		return cid.Undef, err
	}
	folder, err := ls.KnownReifiers["unixfs"](ipld.LinkContext{Ctx: ctx}, node, ls)
	if err != nil {
		return cid.Undef, err
	}
	v, err := folder.LookupByString(name)
	var none schema.ErrNoSuchField
	if errors.As(err, &none) {
		return cid.Undef, fmt.Errorf("%w as %q in %s", errNoEntry, name, at)
	}
	if err != nil {
		return cid.Undef, err
	}
	l, err := v.AsLink()
	if err != nil {
		return cid.Undef, err
	}
	return l.(cidlink.Link).Cid, nil
}

// singleTarget is the part that a file or folder is written of.
func (s Selection) singleTarget(ctx context.Context, ls *ipld.LinkSystem, root cid.Cid) (cid.Cid, error) {
	parts, err := s.Parts(ctx, ls, root)
	if err != nil {
		return cid.Undef, err
	}
	if len(parts) == 1 && parts[0].inside != "" {
		return cid.Undef, reason.NotAFile.Errorf("unsupported selection path '%s' does not correspond to a block boundary (a.k.a. CID link)", parts[0].inside).WithHint("Name a link, or take the archive with --car.")
	}
	if len(parts) != 1 {
		return cid.Undef, reason.NotAFile.Errorf("the selection has %d parts, a file is made of one", len(parts)).WithHint("Take the archive with --car.")
	}
	return parts[0].Root, nil
}

// Export writes the file or folder that is selected to a place that was claimed for it, as carstore.Dest does. A range of a file is a file.
func (s Selection) Export(ctx context.Context, d *carstore.Dest, ls *ipld.LinkSystem, root cid.Cid, progress func(carstore.Exported)) (carstore.Exported, error) {
	part, err := s.singleTarget(ctx, ls, root)
	if err != nil {
		return carstore.Exported{}, err
	}
	if s.bytes == nil {
		return d.Export(ctx, ls, part, progress)
	}
	err = d.WriteFile(func(w io.Writer) error { return s.writeBytes(ctx, ls, part, w) })
	return carstore.Exported{Files: 1}, err
}

// WriteFile writes the file that is selected to w.
func (s Selection) WriteFile(ctx context.Context, ls *ipld.LinkSystem, root cid.Cid, w io.Writer) error {
	part, err := s.singleTarget(ctx, ls, root)
	if err != nil {
		return err
	}
	if s.bytes == nil {
		return carstore.WriteFileFrom(ctx, ls, part, w)
	}
	return s.writeBytes(ctx, ls, part, w)
}

func (s Selection) writeBytes(ctx context.Context, ls *ipld.LinkSystem, file cid.Cid, w io.Writer) error {
	r, err := carstore.OpenFileFrom(ctx, ls, file)
	if err != nil {
		return err
	}
	size, err := r.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	first, n, err := s.bytes.Within(size)
	if err != nil {
		return err
	}
	if _, err := r.Seek(first, io.SeekStart); err != nil {
		return err
	}
	_, err = io.CopyBuffer(shared.Writer(ctx, w), io.LimitReader(r, n), make([]byte, 1<<20))
	return err
}

// ExportCAR writes what WriteCAR does to a place that was claimed for it.
func (s Selection) ExportCAR(ctx context.Context, d *carstore.Dest, ls *ipld.LinkSystem, root cid.Cid, proof bool) error {
	return d.WriteFile(func(w io.Writer) error { return s.WriteCAR(ctx, ls, root, w, proof) })
}

// WriteCAR writes the selection as a CARv1: its parts are the roots, each block is there once, depth first. With proof the blocks on the
// way from the root of the DAG come first. A range of a file, or a selector, is what it loads, which is its proof as well.
func (s Selection) WriteCAR(ctx context.Context, ls *ipld.LinkSystem, root cid.Cid, w io.Writer, proof bool) error {
	return WriteCARs(ctx, ls, root, w, []Wanted{{s, proof}})
}

// Wanted is a selection of an archive of several.
type Wanted struct {
	Selection
	Proof bool
}

// WriteCARs is Selection.WriteCAR for several selections of a DAG in one archive.
func WriteCARs(ctx context.Context, ls *ipld.LinkSystem, root cid.Cid, w io.Writer, list []Wanted) error {
	var roots []cid.Cid
	parts := make([][]Part, len(list))
	for i, s := range list {
		var err error
		if parts[i], err = s.Parts(ctx, ls, root); err != nil {
			return err
		}
		for _, p := range parts[i] {
			roots = append(roots, p.Root)
		}
	}
	buf := bufio.NewWriterSize(shared.Writer(ctx, w), 1<<20)
	head, err := carstore.V1Header(roots...)
	if err != nil {
		return err
	}
	if _, err := buf.Write(head); err != nil {
		return err
	}
	out := &archive{w: buf, seen: map[string]bool{}}
	writing := *ls
	writing.StorageReadOpener = out.copyingOpener(ctx, ls)
	for i, s := range list {
		if err := s.writeParts(ctx, out, &writing, root, parts[i]); err != nil {
			return err
		}
	}
	return buf.Flush()
}

func (w Wanted) writeParts(ctx context.Context, out *archive, ls *ipld.LinkSystem, root cid.Cid, parts []Part) error {
	if w.exact {
		return carstore.WalkSelector(ls, root, w.fetch, nil)
	}
	for _, p := range parts {
		if w.Proof {
			if err := out.writeBlocks(ctx, ls, p.Way); err != nil {
				return err
			}
		}
		if err := carstore.WalkOnce(ls, p.Root, shared.AllSelector()); err != nil {
			return err
		}
	}
	return nil
}
