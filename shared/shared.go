// Package shared holds the small types that the published signatures of several packages need.
package shared

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal/selector"
	"github.com/ipld/go-ipld-prime/traversal/selector/builder"
)

// TipSetToken is an opaque reference to a state of the chain.
type TipSetToken []byte

// ReadyFunc is told once how the start of a module went.
type ReadyFunc func(error)

// CloseDataTransferTimeout bounds how long the end of a deal waits for the transfer to close.
const CloseDataTransferTimeout = 30 * time.Second

// ErrNotReady is what a module answers before its start has finished.
var ErrNotReady = errors.New("not ready: migrations have not run")

// ErrNotFound is wrapped by lookups that find nothing.
var ErrNotFound = errors.New("not found")

// AllSelector selects a whole DAG: everything below the root, at any depth.
func AllSelector() ipld.Node {
	b := builder.NewSelectorSpecBuilder(basicnode.Prototype.Any)
	return b.ExploreRecursive(selector.RecursionLimitNone(), b.ExploreAll(b.ExploreRecursiveEdge())).Node()
}

// SameNode tells whether two nodes are the same data. Unlike datamodel.DeepEqual it does not look at the order of the keys of
// a map: encoders of several ages write one selector in several orders (M-42).
func SameNode(a, b ipld.Node) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	x, err := ipld.Encode(a, dagcbor.Encode)
	if err != nil {
		return false
	}
	y, err := ipld.Encode(b, dagcbor.Encode)
	return err == nil && bytes.Equal(x, y)
}

// ReadyManager tells listeners when a module has started. A listener that comes late is called at once. Each is called on a goroutine of its own: it may
// wait for who registered it.
type ReadyManager struct {
	mu    sync.Mutex
	ready chan struct{}
	done  bool
	err   error
	subs  []ReadyFunc
}

// NewReadyManager returns a manager that is not ready.
func NewReadyManager() *ReadyManager { return &ReadyManager{ready: make(chan struct{})} }

// FireReady announces the outcome; only the first call counts.
func (m *ReadyManager) FireReady(err error) {
	m.mu.Lock()
	if m.done {
		m.mu.Unlock()
		return
	}
	m.done, m.err = true, err
	subs := m.subs
	m.subs = nil
	close(m.ready)
	m.mu.Unlock()
	for _, f := range subs {
		go f(err)
	}
}

// OnReady registers a listener.
func (m *ReadyManager) OnReady(f ReadyFunc) {
	m.mu.Lock()
	if !m.done {
		m.subs = append(m.subs, f)
		m.mu.Unlock()
		return
	}
	err := m.err
	m.mu.Unlock()
	go f(err)
}

// Ready returns nil when the start has succeeded, its error when it failed, and ErrNotReady before.
func (m *ReadyManager) Ready() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.done {
		return ErrNotReady
	}
	return m.err
}

// AwaitReady waits for the outcome of the start, or until ctx ends. An outcome that is there is returned whatever ctx says.
func (m *ReadyManager) AwaitReady(ctx context.Context) error {
	if err := m.Ready(); !errors.Is(err, ErrNotReady) {
		return err
	}
	select {
	case <-m.ready:
		return m.Ready()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TimeCounter hands out increasing numbers that start at the clock, so that they do not repeat after a restart.
type TimeCounter struct {
	mu   sync.Mutex
	last uint64
}

// NewTimeCounter returns a counter whose first number is above floor and not below the clock in nanoseconds.
func NewTimeCounter(floor uint64) *TimeCounter {
	return &TimeCounter{last: max(floor, uint64(time.Now().UnixNano()))}
}

// Next returns the next number.
func (c *TimeCounter) Next() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	return c.last
}
