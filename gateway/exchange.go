package gateway

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/cartage-dev/cartage/gateway/x402"
)

// What browsers may do here.
const (
	allowedMethods = "GET, HEAD, OPTIONS"
	allowedHeaders = x402.HeaderPayment + ", " + x402.HeaderPaymentV1 + ", Access-Control-Expose-Headers, Accept, Range, If-Range, If-None-Match, Cache-Control, Content-Type, Cartage-Piece-Proof"
	exposedHeaders = x402.HeaderRequired + ", " + x402.HeaderReceipt + ", Content-Range, Content-Length, Content-Location, Accept-Ranges, ETag, Retry-After, X-Ipfs-Path, X-Ipfs-Roots, Ipfs-Uri, " +
		"Cartage-Window, Cartage-Price, Cartage-Piece-Proof, X-Request-Id"
)

// tier is who pays for an answer.
type tier string

const (
	tierFree tier = "free"
	tierPaid tier = "paid"
)

// exchange is a request with what becomes of it.
type exchange struct {
	g       *Gateway
	w       http.ResponseWriter
	r       *http.Request
	id      string
	began   time.Time
	addr    netip.Addr
	visitor *visitor

	route   string
	tier    tier
	code    int
	sent    uint64
	failure Code
	charge  string
	asset   string
	channel string
	replay  bool
}

func (g *Gateway) newExchange(w http.ResponseWriter, r *http.Request) *exchange {
	var id [8]byte
	_, _ = rand.Read(id[:]) // it never fails
	addr := g.cfg.ClientAddr(r)
	return &exchange{g: g, w: w, r: r, id: hex.EncodeToString(id[:]), began: g.cfg.Now(), addr: addr, visitor: g.gate.visitor(addr), route: "other", tier: tierFree}
}

// commonHeaders are those of every answer.
func (x *exchange) commonHeaders() {
	h := x.w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Request-Id", x.id)
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", exposedHeaders)
	h.Set("Vary", "Accept")
	if x.r.Method == http.MethodOptions {
		h.Set("Access-Control-Allow-Methods", allowedMethods)
		h.Set("Access-Control-Allow-Headers", allowedHeaders)
		h.Set("Access-Control-Max-Age", "86400")
	}
}

// status answers without a body.
func (x *exchange) status(code int) {
	x.code = code
	x.w.WriteHeader(code)
}

func (x *exchange) text(s string) error {
	h := x.w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(s)))
	x.status(http.StatusOK)
	if x.r.Method != http.MethodHead {
		_, _ = x.w.Write([]byte(s))
	}
	return nil
}

// fail answers with a failure. Nothing of the body may have been sent.
func (x *exchange) fail(err error) {
	var asked *challenged
	if errors.As(err, &asked) {
		x.failure = Code(asked.code)
		asked.write(x)
		return
	}
	f := failed(err)
	if f.code == Internal && x.r.Context().Err() == nil {
		x.g.cfg.Log.Error("a request failed", "id", x.id, "error", err)
	}
	x.failure, x.code = f.code, f.status
	f.write(x.w, x.r, x.id)
}

// abort ends an answer of which a part was sent: the client sees that it is cut.
func (x *exchange) abort(err error) {
	if x.r.Context().Err() == nil {
		x.g.cfg.Log.Warn("an answer was cut", "id", x.id, "error", err)
	}
	panic(http.ErrAbortHandler)
}

// finish writes the exchange down.
func (x *exchange) finish() {
	if hasPayment(x.r) && x.charge == "" && x.code >= http.StatusBadRequest && x.code < http.StatusInternalServerError {
		x.visitor.failures.Allow()
	}
	took := x.g.cfg.Now().Sub(x.began)
	x.g.metrics.end(x, took)
	x.g.access.write(x, took)
}

// counted is the writer of an answer that somebody else makes.
func (x *exchange) counted() http.ResponseWriter { return &countedWriter{ResponseWriter: x.w, x: x} }

type countedWriter struct {
	http.ResponseWriter
	x *exchange
}

// WriteHeader implements http.ResponseWriter.
func (c *countedWriter) WriteHeader(code int) {
	c.x.code = code
	c.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (c *countedWriter) Write(p []byte) (int, error) {
	if c.x.code == 0 {
		c.x.code = http.StatusOK
	}
	n, err := c.ResponseWriter.Write(p)
	c.x.sent += uint64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (c *countedWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// bodyWriter sends a body: the status goes out with its first bytes, so that what fails before is an answer of its own.
type bodyWriter struct {
	x       *exchange
	status  int
	started bool
	control *http.ResponseController
	end     time.Time // after which nothing is sent any more; zero: as long as the client goes on taking
}

func (x *exchange) body(status int) *bodyWriter {
	return &bodyWriter{x: x, status: status, control: http.NewResponseController(x.w)}
}

// start sends the status.
func (b *bodyWriter) start() {
	if !b.started {
		b.started = true
		b.x.status(b.status)
	}
}

// sendChunk is how much a client has to take within Limits.Progress.
const sendChunk = 256 << 10

// Write implements io.Writer.
func (b *bodyWriter) Write(p []byte) (n int, err error) {
	b.start()
	for len(p) > 0 && err == nil {
		until := time.Now().Add(b.x.g.cfg.Limits.Progress)
		if !b.end.IsZero() && b.end.Before(until) {
			until = b.end
		}
		_ = b.control.SetWriteDeadline(until) // a writer without deadlines, as in tests, has none
		var sent int
		sent, err = b.x.w.Write(p[:min(len(p), sendChunk)])
		n, p = n+sent, p[sent:]
		b.x.sent += uint64(sent)
	}
	return n, err
}

// contentDisposition names the file that an answer is saved as.
func contentDisposition(name string) string {
	plain := strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e || r == '"' || r == '\\' || r == '%' {
			return '_'
		}
		return r
	}, name)
	v := `attachment; filename="` + plain + `"`
	if plain != name {
		v += "; filename*=UTF-8''" + percentEncoded(name)
	}
	return v
}

// percentEncoded is a value of RFC 8187.
func percentEncoded(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$&+-.^_`|~", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
