package lifecycle

import (
	"context"
	"sync"
)

// Group is work that ends together: goroutines of its own, and calls of others that enter and leave. Its zero value is open; it is safe for concurrent use.
type Group struct {
	mu     sync.Mutex
	wg     sync.WaitGroup
	closed bool
}

// Go runs f on a goroutine of the group. It reports false, and does not run f, once the group is closed.
func (g *Group) Go(f func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.wg.Go(f)
	return true
}

// Enter counts a call that runs on a goroutine of its caller, until Leave. It reports false, and counts nothing, once the group is closed.
func (g *Group) Enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.wg.Add(1)
	return true
}

// Leave ends a call that entered.
func (g *Group) Leave() { g.wg.Done() }

// Closed tells whether the group takes no more work.
func (g *Group) Closed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}

// Stop lets nothing more begin, and does not wait.
func (g *Group) Stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

// Close lets nothing more begin and waits for what runs, or until ctx ends. It may be called again.
func (g *Group) Close(ctx context.Context) error {
	g.Stop()
	done := make(chan struct{})
	go func() {
		g.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
