package gateway

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// stretch is bytes of a body: from is included, to is not.
type stretch struct{ from, to uint64 }

func (s stretch) len() uint64 { return s.to - s.from }

// contentRange is the header of a partial answer.
func (s stretch) contentRange(size uint64) string {
	return fmt.Sprintf("bytes %d-%d/%d", s.from, s.to-1, size)
}

// parseRange reads the Range header for a body of a size: whole if there is none that counts. Several ranges, other units and what is no range
// are ignored, as RFC 9110 wants it; one that has no byte of the body is refused.
func parseRange(h http.Header, tag string, size uint64) (s stretch, partial bool, err error) {
	whole := stretch{0, size}
	text, ok := strings.CutPrefix(strings.TrimSpace(h.Get("Range")), "bytes=")
	if !ok || strings.Contains(text, ",") || len(h.Values("Range")) > 1 {
		return whole, false, nil
	}
	if v := h.Get("If-Range"); v != "" && v != tag { // strong comparison: a weak tag or a date is never equal
		return whole, false, nil
	}
	first, last, ok := strings.Cut(strings.TrimSpace(text), "-")
	if !ok || !digits(first) || !digits(last) || first == "" && last == "" {
		return whole, false, nil
	}
	outside := fail(http.StatusRequestedRangeNotSatisfiable, BadRange, "the range %s has no byte of this answer, which has %d", quoted(text), size)
	if first == "" {
		n := parseOffset(last)
		if n == 0 || size == 0 {
			return whole, false, outside
		}
		return stretch{size - min(n, size), size}, true, nil
	}
	from, to := parseOffset(first), size
	if last != "" {
		l := parseOffset(last)
		if l < from {
			return whole, false, nil
		}
		to = min(size, saturating(l, 1))
	}
	if from >= size {
		return whole, false, outside
	}
	return stretch{from, to}, true, nil
}

func digits(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
}

// parseOffset reads digits; more than there can be is the largest number.
func parseOffset(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 1<<64 - 1
	}
	return n
}

func saturating(a, b uint64) uint64 {
	if a > (1<<64-1)-b {
		return 1<<64 - 1
	}
	return a + b
}

// notModified reports whether the client has the body with a tag already.
func notModified(h http.Header, tag string) bool {
	for _, line := range h.Values("If-None-Match") {
		for v := range strings.SplitSeq(line, ",") {
			if v = strings.TrimSpace(v); v == "*" || strings.TrimPrefix(v, "W/") == tag {
				return true
			}
		}
	}
	return false
}
