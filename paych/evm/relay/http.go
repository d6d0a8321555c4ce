// Package relay reaches the chain of EVM channels: through a facilitator of x402, or directly by JSON-RPC. Both implement book.Escrow.
package relay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/paych/book"
)

// Bounds of requests.
const (
	requestTime = 20 * time.Second
	maxAnswer   = 1 << 20
	maxTries    = 3
	retryPause  = 200 * time.Millisecond
)

// endpoint is a server that is sent JSON.
type endpoint struct {
	url   string
	token string // bearer; empty: none
	http  *http.Client
}

func newEndpoint(at, token string) endpoint {
	return endpoint{at, token, &http.Client{Timeout: requestTime, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 2}}}
}

// CheckURL refuses a server that is reached without encryption, but for one on this machine.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil {
		return fmt.Errorf("%q is no URL such as https://rpc.example.org", text)
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()) {
		return nil
	}
	return fmt.Errorf("%q is reached without encryption: only a server on this machine may be", text)
}

// post sends a question and decodes the answer. It is asked again while nobody answers.
func (e endpoint) post(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return e.exchange(ctx, http.MethodPost, path, body, out)
}

func (e endpoint) exchange(ctx context.Context, method, path string, body []byte, out any) error {
	return patiently(ctx, func() error { return e.once(ctx, method, path, body, out) })
}

// patiently tries something again while nobody answers.
func patiently(ctx context.Context, do func() error) error {
	var err error
	for try := range maxTries {
		if try > 0 && !lifecycle.Sleep(ctx, retryPause<<try) {
			return errors.Join(ctx.Err(), err)
		}
		if err = do(); !errors.Is(err, book.ErrUnavailable) {
			return err
		}
	}
	return err
}

func (e endpoint) once(ctx context.Context, method, path string, body []byte, out any) error {
	r, err := http.NewRequestWithContext(ctx, method, e.url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "cartage")
	if e.token != "" {
		r.Header.Set("Authorization", "Bearer "+e.token)
	}
	resp, err := e.http.Do(r)
	if err != nil {
		return fmt.Errorf("%w: %w", book.ErrUnavailable, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", book.ErrUnavailable, err)
	case len(data) > maxAnswer:
		return fmt.Errorf("%w: an answer of more than %d bytes", book.ErrUnavailable, maxAnswer)
	case json.Unmarshal(data, out) != nil:
		return fmt.Errorf("%w: status %d, and no JSON that is known", book.ErrUnavailable, resp.StatusCode)
	}
	return nil
}

func (e endpoint) close() { e.http.CloseIdleConnections() }
