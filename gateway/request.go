package gateway

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/cartage-dev/cartage/dataselector"
)

// Bounds of what a URL may say.
const (
	maxCIDText  = 512
	maxSegments = 32
	maxPath     = 4 << 10
	maxFilename = 255
	minDigest   = 20
)

// format is the kind of an answer.
type format uint8

const (
	formatNone format = iota
	formatRaw
	formatCAR
	formatPiece
)

// scope is how much of a DAG below the end of a path is wanted.
type scope string

const (
	scopeAll    scope = "all"
	scopeEntity scope = "entity"
	scopeBlock  scope = "block"
)

// request is what is asked for at /ipfs, without what HTTP adds to it: the same request is the same body.
type request struct {
	root       cid.Cid
	path       []string
	format     format
	scope      scope
	bytes      *dataselector.Range
	dups       bool
	blockLimit uint64
	filename   string
	negotiated bool // the format comes from Accept
}

func badParameter(name, value, rule string) *failure {
	return fail(http.StatusBadRequest, BadParameter, "the parameter %s is %s: %s", name, quoted(value), rule)
}

// parseIPFS reads a request below /ipfs/.
func parseIPFS(r *http.Request, rest string) (request, error) {
	q := request{scope: scopeAll}
	if err := q.parsePath(rest); err != nil {
		return q, err
	}
	p, err := parameters(r.URL.RawQuery)
	if err != nil {
		return q, err
	}
	accepted, err := q.negotiate(p, r.Header.Values("Accept"))
	if err != nil {
		return q, err
	}
	if q.format == formatRaw && len(q.path) > 0 {
		return q, fail(http.StatusBadRequest, PathWithRaw, "a raw block has no path below it").withHint("Ask for format=car, or for the CID of what is at the path.")
	}
	return q, q.parseParameters(p, accepted)
}

// parsePath reads CID[/PATH], still escaped; empty segments count for nothing.
func (q *request) parsePath(rest string) error {
	if len(rest) > maxPath {
		return fail(http.StatusBadRequest, BadPath, "a path of %d bytes is above the limit of %d", len(rest), maxPath)
	}
	first, below, _ := strings.Cut(rest, "/")
	var err error
	if q.root, err = parseCID(first); err == nil {
		err = checkHash(q.root)
	}
	if err != nil {
		return err
	}
	for part := range strings.SplitSeq(below, "/") {
		if part == "" {
			continue
		}
		name, err := url.PathUnescape(part)
		if err != nil || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
			return fail(http.StatusBadRequest, BadPath, "%s is no name in a path", quoted(part))
		}
		q.path = append(q.path, name)
	}
	if len(q.path) > maxSegments {
		return fail(http.StatusBadRequest, BadPath, "a path of %d names is above the limit of %d", len(q.path), maxSegments)
	}
	return nil
}

// badCID is the failure of a CID that is none, or none that can be served.
func badCID(text, why string) error {
	return fail(http.StatusBadRequest, BadCID, "%s is no CID that can be served: %s", quoted(text), why)
}

// parseCID reads a CID of a URL: of version 0 or 1, in any base.
func parseCID(text string) (cid.Cid, error) {
	if len(text) > maxCIDText {
		return cid.Undef, badCID(text, "it is longer than 512 characters")
	}
	c, err := cid.Decode(text)
	if err != nil {
		return cid.Undef, badCID(text, "it cannot be decoded")
	}
	return c, nil
}

// checkHash refuses a CID of which a block cannot be verified, or be made to fit.
func checkHash(c cid.Cid) error {
	d, err := mh.Decode(c.Hash())
	if err != nil {
		return badCID(c.String(), "its hash cannot be decoded")
	}
	if d.Code == mh.IDENTITY {
		return nil
	}
	if _, err := mh.GetHasher(d.Code); err != nil {
		return badCID(c.String(), "its hash function is not known")
	}
	if len(d.Digest) < minDigest {
		return badCID(c.String(), "its digest is shorter than 20 bytes")
	}
	return nil
}

// parameters reads a query. A parameter may be there twice if it says the same.
func parameters(raw string) (map[string]string, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, fail(http.StatusBadRequest, BadParameter, "the query %s cannot be decoded", quoted(raw))
	}
	out := make(map[string]string, len(values))
	for name, list := range values {
		for _, v := range list {
			if has, ok := out[name]; ok && has != v {
				return nil, fail(http.StatusBadRequest, BadParameter, "the parameter %s is given twice, as %s and as %s", quoted(name), quoted(has), quoted(v))
			}
			out[name] = v
		}
	}
	return out, nil
}

// either is a parameter with an older name.
func either(p map[string]string, name, old string) (string, error) {
	a, hasA := p[name]
	b, hasB := p[old]
	switch {
	case hasA && hasB && a != b:
		return "", fail(http.StatusBadRequest, BadParameter, "%s is %s and %s is %s", name, quoted(a), old, quoted(b))
	case hasA:
		return a, nil
	}
	return b, nil
}

// parseParameters reads what only CARs have, and the name of the file. accepted are the parameters of the media type that was chosen; the
// query wins over them.
func (q *request) parseParameters(p, accepted map[string]string) (err error) {
	if q.filename = p["filename"]; len(q.filename) > maxFilename || strings.ContainsFunc(q.filename, func(r rune) bool { return r < 0x20 || r == 0x7f || r == '/' }) {
		return badParameter("filename", q.filename, "at most 255 bytes, without slashes and control characters")
	}
	if q.format != formatCAR {
		return nil
	}
	if v := p["dag-scope"]; v != "" {
		if q.scope = scope(v); q.scope != scopeAll && q.scope != scopeEntity && q.scope != scopeBlock {
			return badParameter("dag-scope", v, "say all, entity or block")
		}
	}
	if v, ok := p["entity-bytes"]; ok {
		if q.bytes, err = parseEntityBytes(v); err != nil {
			return err
		}
		q.scope = scopeEntity
	}
	if v, ok := p["blockLimit"]; ok {
		if q.blockLimit, err = strconv.ParseUint(v, 10, 32); err != nil || strings.HasPrefix(v, "+") {
			return badParameter("blockLimit", v, "it is a number of blocks, 0 for no limit")
		}
	}
	return q.parseLayout(p, accepted)
}

// parseLayout reads the parameters that the query and the media type share.
func (q *request) parseLayout(p, accepted map[string]string) error {
	for _, l := range []struct {
		name, values string
		set          func(string) bool
	}{
		{"dups", "y or n", func(v string) bool { q.dups = v == "y"; return v == "y" || v == "n" }},
		{"order", "dfs or unk", func(v string) bool { return v == "dfs" || v == "unk" }},
		{"version", "1", func(v string) bool { return v == "1" }},
	} {
		v, err := either(p, l.name, "car-"+l.name)
		if err != nil {
			return err
		}
		if v == "" {
			v = accepted[l.name]
		}
		switch {
		case v == "" || l.set(v):
		case l.name == "version":
			return fail(http.StatusNotAcceptable, NotAcceptable, "there is no CAR of version %s here, only of version 1", quoted(v))
		default:
			return badParameter(l.name, v, "say "+l.values)
		}
	}
	return nil
}

// parseEntityBytes reads FROM:TO. Numbers are digits with a minus sign at most; TO may be *.
func parseEntityBytes(text string) (*dataselector.Range, error) {
	bad := func() error {
		return badParameter("entity-bytes", text, "say FROM:TO, both included, as in 0:1023 or -1024:*")
	}
	from, to, ok := strings.Cut(text, ":")
	if !ok || !wholeNumber(from) || to != "*" && !wholeNumber(to) {
		return nil, bad()
	}
	r, err := dataselector.ParseRange(text)
	if err != nil {
		return nil, bad()
	}
	return r, nil
}

// wholeNumber reports whether a text is a number as entity-bytes has it: "+1", " 1", "-0" and "" are none.
func wholeNumber(s string) bool {
	digits := strings.TrimPrefix(s, "-")
	if digits == "" || s == "-0" {
		return false
	}
	return !strings.ContainsFunc(digits, func(r rune) bool { return r < '0' || r > '9' })
}
