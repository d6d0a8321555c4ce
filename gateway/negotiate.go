package gateway

import (
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// The media types.
const (
	typeRaw   = "application/vnd.ipld.raw"
	typeCAR   = "application/vnd.ipld.car"
	typePiece = "application/octet-stream"
)

// maxMediaRanges bounds what is looked at of an Accept header.
const maxMediaRanges = 64

// negotiate chooses the format: the parameter wins over Accept. It returns the parameters of the media type that was chosen.
func (q *request) negotiate(p map[string]string, accept []string) (map[string]string, error) {
	switch v, given := p["format"]; {
	case v == "raw":
		q.format = formatRaw
	case v == "car":
		q.format = formatCAR
	case given:
		return nil, badParameter("format", v, "say raw or car")
	}
	list := strings.Join(accept, ",")
	if q.format != formatNone {
		c := bestRange(list, func(f format, exact bool) bool { return f == q.format && exact })
		return c.parameters, nil
	}
	if strings.TrimSpace(list) == "" {
		return nil, fail(http.StatusBadRequest, FormatMissing, "no format is asked for").
			withHint("Add format=car or format=raw to the URL, or send Accept: %s or %s.", typeCAR, typeRaw)
	}
	c := bestRange(list, func(format, bool) bool { return true })
	if c.format == formatNone {
		return nil, fail(http.StatusNotAcceptable, NotAcceptable, "nothing of %s is served here", quoted(list)).
			withHint("This gateway answers with %s and %s.", typeCAR, typeRaw)
	}
	q.format, q.negotiated = c.format, true
	return c.parameters, nil
}

// mediaRange is an element of Accept that can be served.
type mediaRange struct {
	format     format
	exact      bool // it names the type
	q          float64
	parameters map[string]string
}

// bestRange is the range of a list with the highest quality that can be served and that admit takes: a type before a wildcard, the first of
// several. CARs of another version are not served.
func bestRange(list string, admit func(f format, exact bool) bool) (best mediaRange) {
	for i, text := range strings.Split(list, ",") {
		if i == maxMediaRanges {
			break
		}
		c, ok := parseMediaRange(text)
		if !ok || !admit(c.format, c.exact) {
			continue
		}
		if c.q > best.q || c.q == best.q && c.exact && !best.exact {
			best = c
		}
	}
	return best
}

// parseMediaRange reads an element of Accept; ok is false for what cannot be served, or is not wanted.
func parseMediaRange(text string) (c mediaRange, ok bool) {
	name, parameters, err := mime.ParseMediaType(strings.TrimSpace(text))
	if err != nil {
		return c, false
	}
	c = mediaRange{q: 1, parameters: parameters}
	switch name {
	case typeRaw:
		c.format, c.exact = formatRaw, true
	case typeCAR:
		if v := parameters["version"]; v != "" && v != "1" {
			return c, false
		}
		c.format, c.exact = formatCAR, true
	case "*/*", "application/*":
		c.format = formatCAR
	default:
		return c, false
	}
	if v, given := parameters["q"]; given {
		if c.q, err = strconv.ParseFloat(v, 64); err != nil || !(c.q > 0 && c.q <= 1) {
			return c, false
		}
	}
	return c, true
}
