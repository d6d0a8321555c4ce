package ledger

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/filecoin-project/go-address"
	"golang.org/x/time/rate"
)

// Limits of a served ledger (4.8). Who is above a rate waits for a while before it is refused: what it sends is slowed down, not lost.
const (
	maxBody       = 64 << 10
	maxCalls      = 64 // at once
	bodyLimit     = 5 * time.Second
	callRate      = 200
	callBurst     = 400
	accountRate   = 20
	accountBurst  = 100
	maxAccounts   = 4096 // whose pace is remembered
	paceWait      = 10 * time.Second
	paceRetention = time.Minute
)

// paced bounds the calls of a token: how many each second, how many at once, how large, and how long one may take to send. There are no
// WebSockets: what comes over them would not be counted.
func paced(next http.Handler) http.Handler {
	pace := rate.NewLimiter(callRate, callBurst)
	room := make(chan struct{}, maxCalls)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			http.Error(w, "the ledger is asked over HTTP only", http.StatusNotImplemented)
			return
		}
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyLimit))
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil { // too large or too slow; a call that is not read whole is not made
			http.Error(w, "a call has at most 65536 bytes, and 5 seconds to come", http.StatusRequestEntityTooLarge)
			return
		}
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
		ctx, cancel := context.WithTimeout(r.Context(), paceWait)
		defer cancel()
		if err = pace.Wait(ctx); err == nil {
			select {
			case room <- struct{}{}:
				defer func() { <-room }()
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		if err != nil {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "too many calls: at most 200 a second and 64 at once", http.StatusTooManyRequests)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

// paces bounds the transactions of each account.
type paces struct {
	mu       sync.Mutex
	accounts map[address.Address]*pace
}

type pace struct {
	*rate.Limiter
	used time.Time
}

func newPaces() *paces { return &paces{accounts: map[address.Address]*pace{}} }

// wait returns when an account may send its next transaction.
func (p *paces) wait(ctx context.Context, from address.Address) error {
	of := p.of(from)
	if of == nil {
		return fmt.Errorf("%w: too many accounts at once", ErrQueueFull)
	}
	ctx, cancel := context.WithTimeout(ctx, paceWait)
	defer cancel()
	if err := of.Wait(ctx); err != nil {
		return fmt.Errorf("%w: account %s sends more than %d transactions a second", ErrQueueFull, from, accountRate)
	}
	return nil
}

func (p *paces) of(a address.Address) *rate.Limiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	of := p.accounts[a]
	if of == nil {
		if len(p.accounts) >= maxAccounts {
			for k, old := range p.accounts {
				if now.Sub(old.used) > paceRetention {
					delete(p.accounts, k)
				}
			}
		}
		if len(p.accounts) >= maxAccounts {
			return nil
		}
		of = &pace{Limiter: rate.NewLimiter(accountRate, accountBurst)}
		p.accounts[a] = of
	}
	of.used = now
	return of.Limiter
}
