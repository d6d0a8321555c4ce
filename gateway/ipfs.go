package gateway

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/cartage-dev/cartage/carstore"
)

// maxInline bounds the bytes of an identity CID that is served: it carries them itself.
const maxInline = 128

// serveIPFS answers /ipfs/CID[/PATH]. The order of its checks is the order in which a client learns what is wrong, so that nobody pays for what
// cannot be had.
func (g *Gateway) serveIPFS(x *exchange, rest string) error {
	q, err := parseIPFS(x.r, rest)
	if err != nil {
		return err
	}
	if err := g.permitted(q.root, q.path); err != nil {
		return err
	}
	if err := g.till.admit(x); err != nil {
		return err
	}
	place, err := g.root(x, q)
	if err != nil {
		return err
	}
	q.headers(x)
	if q.format == formatRaw {
		return g.serve(x, g.rawBody(q, place))
	}
	tag := q.etag()
	if notModified(x.r.Header, tag) {
		return x.unmodified(tag)
	}
	p, err := g.planner.plan(x.r.Context(), q, x.lookups())
	g.metrics.planned(p, err)
	if err != nil {
		return err
	}
	return g.serve(x, g.carBody(q, p, place.Piece))
}

// lookups charges the look-ups of a request without a payment to its address.
func (x *exchange) lookups() func(int) error {
	if hasPayment(x.r) {
		return nil
	}
	return x.visitor.charge
}

// root finds the block of the CID in the URL.
func (g *Gateway) root(x *exchange, q request) (Place, error) {
	if data, ok := carstore.Inlined(q.root); ok {
		if len(data) > maxInline {
			return Place{}, fail(http.StatusBadRequest, BadCID, "an identity CID of %d bytes is above the limit of %d", len(data), maxInline)
		}
		return Place{Size: uint32(len(data))}, nil
	}
	place, err := g.planner.single(x.r.Context(), q.root)
	var f *failure
	if errors.As(err, &f) && f.status == http.StatusNotFound && onlyIfCached(x.r.Header) {
		return place, fail(http.StatusPreconditionFailed, NotCached, "%s is not at hand", q.root)
	}
	return place, err
}

func onlyIfCached(h http.Header) bool {
	for v := range strings.SplitSeq(h.Get("Cache-Control"), ",") {
		if strings.EqualFold(strings.TrimSpace(v), "only-if-cached") {
			return true
		}
	}
	return false
}

// headers are those that say what is asked for.
func (q request) headers(x *exchange) {
	h := x.w.Header()
	escaped := q.escapedPath()
	h.Set("X-Ipfs-Path", "/ipfs/"+escaped)
	h.Set("Ipfs-Uri", "ipfs://"+escaped)
	if len(q.path) == 0 {
		h.Set("X-Ipfs-Roots", q.root.String())
	}
	if q.negotiated {
		h.Set("Content-Location", "/ipfs/"+escaped+"?"+q.query())
	}
}

// escapedPath is CID/PATH as a URL has it.
func (q request) escapedPath() string {
	path := q.root.String()
	for _, name := range q.path {
		path += "/" + name
	}
	return (&url.URL{Path: path}).EscapedPath()
}

// query is the request as parameters of a URL, without those that are the defaults.
func (q request) query() string {
	v := url.Values{}
	if q.format == formatRaw {
		v.Set("format", "raw")
		return v.Encode()
	}
	v.Set("format", "car")
	switch {
	case q.bytes != nil:
		v.Set("entity-bytes", q.bytes.String())
	case q.scope != scopeAll:
		v.Set("dag-scope", string(q.scope))
	}
	if q.dups {
		v.Set("dups", "y")
	}
	if q.blockLimit > 0 {
		v.Set("blockLimit", strconv.FormatUint(q.blockLimit, 10))
	}
	return v.Encode()
}

// saveAs is the name of the file of an answer.
func (q request) saveAs(extension string) string {
	if q.filename != "" {
		return q.filename
	}
	return q.root.String() + extension
}

// unmodified answers a client that has the body.
func (x *exchange) unmodified(tag string) error {
	h := x.w.Header()
	h.Set("Etag", tag)
	h.Set("Cache-Control", cacheFree)
	x.status(http.StatusNotModified)
	return nil
}
