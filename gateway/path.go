package gateway

import (
	"errors"
	"net/http"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal/selector/builder"

	"github.com/cartage-dev/cartage/carstore"
)

// run visits what a request asks for: the blocks on the way to the end of its path, then what its scope says.
func (w *walk) run(q request) error {
	if w.seen == nil {
		w.seen = map[string]Place{}
	}
	end, err := w.follow(q)
	if err != nil || end.inside || q.scope == scopeBlock {
		return err
	}
	place := w.seen[end.block.KeyString()]
	if q.scope == scopeEntity {
		return w.entity(end.block, place, q.bytes)
	}
	return w.tree(end.block, place)
}

// ending is where a path ends.
type ending struct {
	block cid.Cid
	// inside says that the path ends at a field of a block: then what is below was visited already.
	inside bool
}

// follow visits the blocks on the way to the end of a path.
func (w *walk) follow(q request) (ending, error) {
	if len(q.path) == 0 {
		_, _, err := w.meet(q.root)
		return ending{block: q.root}, err
	}
	ssb := builder.NewSelectorSpecBuilder(basicnode.Prototype.Any)
	end, err := w.explore(q, ssb.Matcher())
	if err != nil || !end.inside {
		return end, err
	}
	target := ssb.Matcher()
	switch q.scope {
	case scopeAll:
		target = unixfsnode.ExploreAllRecursivelySelector
	case scopeEntity, scopeBlock:
		return end, nil // a field is no file
	}
	return end, w.rest(q, target)
}

// rest visits what a field of a block leads to; the blocks on the way to it stand in the CAR already, once.
func (w *walk) rest(q request, target builder.SelectorSpec) error {
	dups := w.dups
	defer func() { w.dups = dups }()
	w.dups = false
	_, _, _, err := w.visitSelected(q, target)
	return err
}

// explore visits the blocks on the way to what a selector matches at the end of a path.
func (w *walk) explore(q request, target builder.SelectorSpec) (ending, error) {
	end, good, found, err := w.visitSelected(q, target)
	if err == nil && !found {
		err = w.noPath(q, good)
	}
	return end, err
}

// visitSelected visits what a selector loads that begins at the end of a path of UnixFS names; the first good names of the path lead somewhere.
// Leaves are not read: a selector of paths needs nothing of them.
func (w *walk) visitSelected(q request, target builder.SelectorSpec) (end ending, good int, found bool, err error) {
	var failed error
	ls := carstore.Links(func(c cid.Cid) ([]byte, error) {
		data, err := w.load(c)
		if err != nil {
			failed = errors.Join(failed, err)
		}
		return data, err
	})
	sel := unixfsnode.UnixFSPathSelectorBuilder(strings.Join(q.path, "/"), target, false)
	err = carstore.WalkSelector(&ls, q.root, sel, func(v carstore.Visited) error {
		path, inside := v.Path()
		if path != "" && !v.Matched {
			good = max(good, strings.Count(path, "/")+1)
		}
		if v.Matched && !found {
			found, end = true, ending{v.Block, inside}
		}
		return w.ctx.Err()
	})
	switch {
	case failed != nil: // a folder of shards would say that it has not the name
		err = failed
	case err != nil && w.ctx.Err() == nil:
		f := w.noPath(q, good)
		f.hint = "What stands there cannot be read as a folder."
		err = f
	}
	return end, good, found, err
}

// noPath is the failure of a path that leads to nothing; the first good names of it lead somewhere.
func (w *walk) noPath(q request, good int) *failure {
	name := q.path[min(good, len(q.path)-1)]
	return fail(http.StatusNotFound, PathNotFound, "there is nothing named %s below %s", quoted(name), q.root).with("segment", name)
}

// load is a block for a selector: of a leaf nothing is read.
func (w *walk) load(c cid.Cid) ([]byte, error) {
	place, _, err := w.meet(c)
	if err != nil || isLeaf(c) {
		return nil, err
	}
	data, err := w.read(c, place)
	return append([]byte(nil), data...), err
}
