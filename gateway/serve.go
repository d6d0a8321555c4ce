package gateway

import (
	"fmt"
	"net/http"
	"strconv"
)

// Cache-Control of answers. A paid one is for who paid alone; its own copy costs it nothing.
const (
	cacheFree = "public, max-age=29030400, immutable"
	cachePaid = "private, max-age=29030400, immutable, no-transform"
)

// serve answers with a body, or a range of it, free or for money.
func (g *Gateway) serve(x *exchange, b *body) error {
	if notModified(x.r.Header, b.tag) {
		return x.unmodified(b.tag)
	}
	free := b.inline || g.till.isFree(b)
	x.bodyHeaders(b, free)
	h := x.w.Header()
	if x.r.Method == http.MethodHead {
		if !b.open {
			h.Set("Content-Length", strconv.FormatUint(b.size, 10))
		}
		x.status(http.StatusOK)
		return nil
	}
	s, partial := stretch{0, b.size}, false
	if !b.open {
		var err error
		if s, partial, err = parseRange(x.r.Header, b.tag, b.size); err != nil {
			h.Set("Content-Range", fmt.Sprintf("bytes */%d", b.size))
			return err
		}
	}
	if !free {
		x.tier = tierPaid
		return g.till.sell(x, b, s, partial)
	}
	if err := g.readmit(x); err != nil {
		return err
	}
	done, err := g.gate.send(x.visitor, b.open)
	if err != nil {
		return err
	}
	defer done()
	status := x.lengthHeaders(b, s, partial)
	out := x.body(status)
	if err := b.write(x.r.Context(), out, s); err != nil {
		if out.started {
			x.abort(err)
		}
		return err
	}
	out.start()
	return nil
}

// readmit counts a request for what is free that came with a payment: it was let in as one that pays.
func (g *Gateway) readmit(x *exchange) error {
	if !hasPayment(x.r) {
		return nil
	}
	return g.gate.admit(x.visitor)
}

// bodyHeaders are those of a whole answer without its length.
func (x *exchange) bodyHeaders(b *body, free bool) {
	h := x.w.Header()
	h.Set("Content-Type", b.mime)
	h.Set("Content-Disposition", contentDisposition(b.saveAs))
	h.Set("Etag", b.tag)
	h.Set("Accept-Ranges", b.ranges)
	h.Set("Cache-Control", cacheFree)
	l := x.g.cfg.Limits
	window := fmt.Sprintf("%d;max=%d", l.Window, l.MaxWindow)
	if !b.open {
		window += ";car=?1"
	}
	h.Set("Cartage-Window", window)
	if b.truncated {
		h.Set("Cartage-Truncated", "blocks")
	}
	if !free {
		h.Set("Cache-Control", cachePaid)
		x.g.till.priceHeader(h, b)
	}
}

// lengthHeaders are those of a stretch; it returns the status.
func (x *exchange) lengthHeaders(b *body, s stretch, partial bool) int {
	h := x.w.Header()
	if !b.open {
		h.Set("Content-Length", strconv.FormatUint(s.len(), 10))
	}
	if !partial {
		return http.StatusOK
	}
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Range", s.contentRange(b.size))
	return http.StatusPartialContent
}
