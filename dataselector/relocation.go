package dataselector

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal/selector/builder"

	"github.com/cartage-dev/cartage/internal/reason"
)

// Moves tells whether the selection is one of UnixFS names: it can be had from a node on the way to it as well.
func (s Selection) Moves() bool { return s.text == "" }

// Traverses tells whether the selector is a path of fields and what is below it: no program for a traversal of its own.
func (s Selection) Traverses() bool { return !s.exact }

// List tells whether a folder is wanted without what is in it, and if so whether with all of its shards.
func (s Selection) List() (list, shards bool) { return s.list, s.shards }

// Moved is the same part at another path, as it is called below another node. Only what Moves can be moved.
func (s Selection) Moved(path string) (Selection, error) {
	switch {
	case s.text != "":
		return s, errors.New("a data selector belongs to one root")
	case s.list:
		return Folder(path, s.shards)
	}
	return UnixFS(path, s.bytes)
}

// Resolve follows the names of the selection as far as blocks are here: at is the last node that is known to be on the way, left what is left of
// the path below it, and lost the block that it takes to go on; it is undefined at the end of the path. A node that has no such entry is refused
// with reason.PathUnknown.
func (s Selection) Resolve(ctx context.Context, ls *ipld.LinkSystem, root cid.Cid) (at cid.Cid, left string, lost cid.Cid, err error) {
	names, err := splitPath(s.path)
	if err != nil {
		return root, s.path, lost, err
	}
	at = root
	for i, name := range names {
		w := watch{read: ls.StorageReadOpener}
		mine := *ls
		mine.StorageReadOpener = w.openBlock
		next, err := childOf(ctx, &mine, at, name)
		switch {
		case w.lost.Defined():
			return at, strings.Join(names[i:], "/"), w.lost, nil
		case errors.Is(err, errNoEntry):
			return at, "", lost, reason.PathUnknown.Errorf("%w within %s: there is nothing at %s: %w", ErrNoMatch, root, s.path, err)
		case err != nil:
			return at, "", lost, err
		}
		at = next
	}
	return at, "", lost, nil
}

// watch notes which block could not be read: a traversal that looks up a name takes it for a name that is not there.
type watch struct {
	read linking.BlockReadOpener
	lost cid.Cid
}

func (w *watch) openBlock(ctx linking.LinkContext, l datamodel.Link) (io.Reader, error) {
	r, err := w.read(ctx, l)
	if cl, ok := l.(cidlink.Link); ok && err != nil && !w.lost.Defined() {
		w.lost = cl.Cid
	}
	return r, err
}

// LinkRange are links of a dag-pb node, by their place: from From, without To.
type LinkRange struct{ From, To int }

// Below selects links of a dag-pb node with everything below them, and the node itself.
func Below(links []LinkRange) ipld.Node {
	return linkSelector(links, unixfsnode.ExploreAllRecursivelySelector)
}

// ShardsBelow selects the shards that links of a sharded folder lead to, with the shards below them, and the folder's own block.
func ShardsBelow(links []LinkRange) ipld.Node {
	ssb := builder.NewSelectorSpecBuilder(basicnode.Prototype.Any)
	return linkSelector(links, ssb.ExploreInterpretAs("unixfs-preload", ssb.Matcher()))
}

func linkSelector(links []LinkRange, target builder.SelectorSpec) ipld.Node {
	ssb := builder.NewSelectorSpecBuilder(basicnode.Prototype.Any)
	hash := ssb.ExploreFields(func(e builder.ExploreFieldsSpecBuilder) { e.Insert("Hash", target) })
	ranges := make([]builder.SelectorSpec, len(links))
	for i, r := range links {
		ranges[i] = ssb.ExploreRange(int64(r.From), int64(r.To), hash)
	}
	some := ranges[0]
	if len(ranges) > 1 {
		some = ssb.ExploreUnion(ranges...)
	}
	return ssb.ExploreFields(func(e builder.ExploreFieldsSpecBuilder) { e.Insert("Links", some) }).Node()
}

// NodeAlone selects the block of a node.
func NodeAlone() ipld.Node {
	return builder.NewSelectorSpecBuilder(basicnode.Prototype.Any).Matcher().Node()
}
