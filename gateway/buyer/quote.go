package buyer

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/cartage-dev/cartage/gateway"
	"github.com/cartage-dev/cartage/gateway/x402"
	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/reason"
)

// Quote is what a gateway says of a CAR before anything is paid.
type Quote struct {
	Size      uint64 // of the CAR in bytes; 0: it is not known
	Ranges    bool   // ranges of it are served
	Window    uint64 // advised for one payment; 0: the gateway sells nothing
	MaxWindow uint64
	Prices    []Price
	Free      bool
	Tag       string
}

// Price is what a CAR costs in an asset: of a TiB, of a window, and of all of it, in the smallest units.
type Price struct {
	Asset              string // NETWORK/ASSET
	TiB, Window, Total x402.Amount
}

// windowOf is how many bytes are asked for at once.
func (q Quote) windowOf(wanted uint64) uint64 {
	w := q.Window
	if wanted > 0 {
		w = wanted
	}
	if q.MaxWindow > 0 {
		w = min(w, q.MaxWindow)
	}
	return min(max(w, 1), maxWindow)
}

// maxWindow bounds a window whatever a gateway says: it is what is lost to a cheat, and what it takes of memory.
const maxWindow = 64 << 20

// Bounds of the patience with a gateway that is busy.
const (
	maxTries  = 5
	maxWait   = time.Minute
	firstByte = time.Minute
)

func newTransport() *http.Transport {
	return &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: firstByte, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 4, MaxResponseHeaderBytes: 256 << 10}
}

// sameOrigin follows redirects within one origin.
func sameOrigin(r *http.Request, via []*http.Request) error {
	first := via[0].URL
	if len(via) > 3 || r.URL.Scheme != first.Scheme || r.URL.Host != first.Host {
		return http.ErrUseLastResponse
	}
	return nil
}

// allowed refuses gateways that are reached without encryption, but for those on this machine.
func (b *Buyer) allowed(base *url.URL) error {
	switch ip := net.ParseIP(base.Hostname()); {
	case base.Scheme == "https", base.Scheme == "http" && (b.cfg.Insecure || base.Hostname() == "localhost" || ip != nil && ip.IsLoopback()):
		return nil
	case base.Scheme == "http":
		return reason.Usage.Errorf("%s is reached without encryption: everybody on the way would see and change what is bought", base.Host).WithHint("Use https://.")
	}
	return reason.Usage.Errorf("%q is no URL of a gateway", base).WithHint("It looks like https://gw.example.org.")
}

// request asks a gateway for a CAR. One that is busy is asked again.
func (b *Buyer) request(ctx context.Context, method string, base *url.URL, q gateway.Query, header http.Header) (*http.Response, error) {
	at := strings.TrimSuffix(base.String(), "/") + q.URL()
	for try := 0; ; try++ {
		r, err := http.NewRequestWithContext(ctx, method, at, nil)
		if err != nil {
			return nil, err
		}
		if header != nil {
			r.Header = header.Clone()
		}
		r.Header.Set("Accept", "application/vnd.ipld.car;version=1;order=dfs;dups=n")
		r.Header.Set("User-Agent", "cartage")
		resp, err := b.http.Do(r)
		if err != nil && (ctx.Err() != nil || try+1 == maxTries) {
			return nil, reason.PeerUnreachable.Errorf("the gateway %s does not answer: %w", base.Host, err)
		}
		wait := time.Duration(1<<try) * 100 * time.Millisecond
		if err == nil {
			if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable || try+1 == maxTries {
				return resp, nil
			}
			wait = max(wait, retryAfter(resp.Header))
			drain(resp)
		}
		if !lifecycle.Sleep(ctx, min(wait, maxWait)) {
			return nil, ctx.Err()
		}
	}
}

func retryAfter(h http.Header) time.Duration {
	n, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || n < 0 {
		return 0
	}
	return time.Duration(n) * time.Second
}

// drain ends an answer so that its connection can be used again.
func drain(r *http.Response) {
	_, _ = io.CopyN(io.Discard, r.Body, 64<<10)
	_ = r.Body.Close()
}

// quote asks for length and price.
func (b *Buyer) quote(ctx context.Context, base *url.URL, q gateway.Query) (Quote, error) {
	resp, err := b.request(ctx, http.MethodHead, base, q, nil)
	if err != nil {
		return Quote{}, err
	}
	drain(resp)
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusMethodNotAllowed, http.StatusNotImplemented: // it can be asked only for all of it
		return Quote{Free: true}, nil
	default:
		return Quote{}, statusError(base, resp, nil)
	}
	out := Quote{Size: uint64(max(0, resp.ContentLength)), Tag: resp.Header.Get("Etag"), Free: true}
	if err := out.readWindow(resp.Header); err != nil {
		return out, err
	}
	return out, out.readPrices(resp.Header)
}

// parametersOf splits VALUE;KEY=VALUE;...
func parametersOf(line string) (value string, parameters map[string]string) {
	value, rest, _ := strings.Cut(line, ";")
	parameters = map[string]string{}
	for part := range strings.SplitSeq(rest, ";") {
		if key, v, ok := strings.Cut(strings.TrimSpace(part), "="); ok {
			parameters[key] = v
		}
	}
	return strings.TrimSpace(value), parameters
}

// readWindow reads Cartage-Window.
func (q *Quote) readWindow(h http.Header) error {
	text := h.Get("Cartage-Window")
	if text == "" {
		return nil
	}
	value, p := parametersOf(text)
	window, err := strconv.ParseUint(value, 10, 32)
	largest, lerr := strconv.ParseUint(p["max"], 10, 32)
	if err != nil || lerr != nil {
		return reason.PeerFailed.Errorf("the gateway's Cartage-Window is %.100q, which cannot be read", text)
	}
	q.Window, q.MaxWindow, q.Ranges = window, largest, p["car"] == "?1" && q.Size > 0
	return nil
}

// readPrices reads Cartage-Price. A price is an integer of up to 39 digits, which structured fields do not have.
func (q *Quote) readPrices(h http.Header) error {
	for _, line := range h.Values("Cartage-Price") {
		p, err := parsePrice(line)
		if err != nil {
			return reason.PeerFailed.Errorf("the gateway's Cartage-Price is %.200q, which cannot be read", line)
		}
		q.Prices, q.Free = append(q.Prices, p), false
	}
	return nil
}

func parsePrice(line string) (p Price, err error) {
	name, parameters := parametersOf(line)
	if p.Asset, err = strconv.Unquote(name); err != nil {
		return p, err
	}
	for key, to := range map[string]*x402.Amount{"tib": &p.TiB, "window": &p.Window, "total": &p.Total} {
		if v, ok := parameters[key]; ok && err == nil {
			*to, err = x402.ParseAmount(v)
		}
	}
	return p, err
}
