package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/cartage-dev/cartage/gateway/x402"
)

// challenged is an answer 402, or what stands for it while something passes.
type challenged struct {
	code      string
	message   string
	status    int
	retry     int
	challenge x402.Challenge
}

// Error implements error.
func (c *challenged) Error() string { return c.message }

// challenge asks for a payment.
func (t *till) challenge(x *exchange, b *body, s stretch, code, message string) error {
	return &challenged{code: code, message: message, status: http.StatusPaymentRequired, challenge: t.describe(x, b, s, code)}
}

// describe is what is sold and what it costs.
func (t *till) describe(x *exchange, b *body, s stretch, code string) x402.Challenge {
	info := map[string]any{"window": t.cfg.Limits.Window, "maxWindow": t.cfg.Limits.MaxWindow}
	return x402.Challenge{X402Version: x402.Version, Error: code, Accepts: t.offers(s.len()),
		Resource:   x402.Resource{URL: t.resource(x.r), Description: fmt.Sprintf("bytes %d-%d of %d", s.from, max(s.to, 1)-1, b.size), MimeType: b.mime},
		Extensions: map[string]any{"cartage": map[string]any{"info": info, "schema": map[string]any{}}}}
}

// resource is the URL of a request as clients know it.
func (t *till) resource(r *http.Request) string {
	u := *r.URL
	if p := t.cfg.PublicURL; p != nil {
		u.Scheme, u.Host = p.Scheme, p.Host
		return u.String()
	}
	u.Scheme, u.Host = "http", r.Host
	if r.TLS != nil {
		u.Scheme = "https"
	}
	return u.String()
}

// refused turns why a payment was not taken into an answer: with a new challenge if the client can mend it.
func (t *till) refused(x *exchange, b *body, s stretch, p x402.Payment, err error) error {
	var r *x402.Refusal
	if !errors.As(err, &r) {
		return err
	}
	c := &challenged{code: r.Code, message: r.Message, status: r.Status, retry: r.RetryAfter, challenge: t.describe(x, b, s, r.Code)}
	same := func(o x402.Offer) bool {
		return o.Scheme == p.Accepted.Scheme && o.Network == p.Accepted.Network && o.Asset == p.Accepted.Asset
	}
	if i := slices.IndexFunc(c.challenge.Accepts, same); i >= 0 && len(r.State) > 0 {
		o := c.challenge.Accepts[i]
		extra := map[string]any{}
		maps.Copy(extra, o.Extra)
		maps.Copy(extra, r.State)
		o.Extra = extra
		// It comes first: clients look for what they know of the channel in the first offer of its scheme.
		c.challenge.Accepts = append([]x402.Offer{o}, slices.Delete(c.challenge.Accepts, i, i+1)...)
	}
	return c
}

// write answers with the challenge: the header is for programs, the body for people.
func (c *challenged) write(x *exchange) {
	header, err := c.challenge.Encode()
	if err != nil {
		x.fail(err)
		return
	}
	x.code = c.status
	x.g.metrics.refusedPayment(c.code)
	x.w.Header().Set(x402.HeaderRequired, header)
	prices := make([]string, 0, len(c.challenge.Accepts))
	for _, o := range c.challenge.Accepts {
		prices = append(prices, o.Amount.String()+" "+o.Asset+" on "+o.Network)
	}
	f := fail(c.status, Code(c.code), "%s", c.message).after(c.retry)
	if len(prices) > 0 {
		f = f.with("price", strings.Join(prices, ", or ")).withHint("Pay with a client of x402 version 2, or with cartage retrieve %s --provider URL.", strings.TrimPrefix(x.r.URL.Path, "/ipfs/"))
	}
	if body, err := json.Marshal(f.extra); err != nil || len(body) > 2<<10 {
		f.extra = nil
	}
	f.write(x.w, x.r, x.id)
}
