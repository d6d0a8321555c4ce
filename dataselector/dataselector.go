// Package dataselector says which part of a DAG is wanted: all of it, what lies below a path of data model fields ("Links/0/Hash") or of
// UnixFS names ("docs/a.txt"), a range of the bytes of a file, or what a selector in DAG-JSON selects. The same words restrict what is
// fetched and what is exported (node.md 2.5).
package dataselector

import (
	"fmt"
	"strings"

	"github.com/ipfs/go-unixfsnode"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal/selector"
	"github.com/ipld/go-ipld-prime/traversal/selector/builder"
	selectorparse "github.com/ipld/go-ipld-prime/traversal/selector/parse"

	"github.com/cartage-dev/cartage/shared"
)

// Bounds of what a user or a peer may say.
const (
	maxText     = 16 << 10
	maxSegments = 256
)

// Selection is a part of a DAG. The zero value is all of it.
type Selection struct {
	text   string // of data model fields, or JSON
	path   string // of UnixFS names
	bytes  *Range
	fetch  ipld.Node // nil for everything
	target ipld.Node // matches where the parts begin; nil for the root
	exact  bool      // the blocks that fetch loads are what is wanted, not all below a part
	list   bool      // of a folder the names alone, with shards also those in its other blocks
	shards bool
}

// Parse reads a data selector: a path such as Links/0/Hash, which may begin with a slash, or a selector in DAG-JSON if it begins with
// a brace. Below what a path leads to everything is wanted; a selector wants the blocks that it loads, and its matches are the roots of an
// archive of them. An empty text is everything.
func Parse(text string) (Selection, error) {
	s := Selection{text: text}
	switch {
	case text == "":
		return s, nil
	case len(text) > maxText:
		return s, fmt.Errorf("a data selector of %d bytes is above the limit of %d", len(text), maxText)
	case strings.HasPrefix(text, "{"):
		n, err := selectorparse.ParseJSONSelector(text)
		if err == nil {
			_, err = selector.CompileSelector(n)
		}
		if err != nil {
			return s, fmt.Errorf("data selector %q: %w", text, err)
		}
		s.fetch, s.target, s.exact = n, n, true
		return s, nil
	}
	segments, err := splitPath(text)
	if err != nil {
		return s, err
	}
	ssb := builder.NewSelectorSpecBuilder(basicnode.Prototype.Any)
	s.fetch, s.target = fieldSelector(ssb, segments, unixfsnode.ExploreAllRecursivelySelector), fieldSelector(ssb, segments, ssb.Matcher())
	return s, nil
}

// fieldSelector follows fields of the data model to a target.
func fieldSelector(ssb builder.SelectorSpecBuilder, segments []string, target builder.SelectorSpec) ipld.Node {
	for i := len(segments) - 1; i >= 0; i-- {
		next := target
		target = ssb.ExploreFields(func(e builder.ExploreFieldsSpecBuilder) { e.Insert(segments[i], next) })
	}
	return target.Node()
}

// UnixFS selects the file or folder at a path of names below the root, and of a file a range of its bytes if r is not nil.
func UnixFS(path string, r *Range) (Selection, error) {
	s := Selection{path: strings.Trim(path, "/"), bytes: r}
	segments, err := splitPath(path)
	if err != nil || r == nil && len(segments) == 0 {
		return s, err
	}
	target := unixfsnode.ExploreAllRecursivelySelector
	ssb := builder.NewSelectorSpecBuilder(basicnode.Prototype.Any)
	if r != nil {
		if err := r.checkRange(); err != nil {
			return s, err
		}
		target = ssb.ExploreInterpretAs("unixfs", ssb.MatcherSubset(r.sliceBounds()))
	}
	s.fetch, s.exact = unixfsnode.UnixFSPathSelectorBuilder(path, target, false), r != nil
	return s, nil
}

// Folder selects the folder at a path of UnixFS names without what is in it: its first block, or, with shards, all blocks of a folder that
// is spread over several.
func Folder(path string, shards bool) (Selection, error) {
	s := Selection{path: strings.Trim(path, "/"), exact: true, list: true, shards: shards}
	if _, err := splitPath(path); err != nil {
		return s, err
	}
	ssb := builder.NewSelectorSpecBuilder(basicnode.Prototype.Any)
	target := ssb.Matcher()
	if shards {
		target = ssb.ExploreInterpretAs("unixfs-preload", target)
	}
	s.fetch = unixfsnode.UnixFSPathSelectorBuilder(path, target, false)
	return s, nil
}

func splitPath(path string) ([]string, error) {
	if len(path) > maxText {
		return nil, fmt.Errorf("a path of %d bytes is above the limit of %d", len(path), maxText)
	}
	var out []string
	for s := datamodel.ParsePath(path); s.Len() > 0; {
		var first datamodel.PathSegment
		first, s = s.Shift()
		out = append(out, first.String())
	}
	if len(out) > maxSegments {
		return nil, fmt.Errorf("a path of %d segments is above the limit of %d", len(out), maxSegments)
	}
	return out, nil
}

// Everything tells whether nothing is left out.
func (s Selection) Everything() bool { return s.fetch == nil }

// Node is the selector that a provider is asked with: what is wanted, and what lies on the way to it.
func (s Selection) Node() ipld.Node {
	if s.fetch == nil {
		return shared.AllSelector()
	}
	return s.fetch
}

// Bytes is the range of the bytes of a file, or nil.
func (s Selection) Bytes() *Range { return s.bytes }

// String is what the user said.
func (s Selection) String() string {
	switch {
	case s.text != "":
		return s.text
	case s.bytes != nil:
		return strings.TrimPrefix(s.path+" bytes "+s.bytes.String(), " ")
	}
	return s.path
}
