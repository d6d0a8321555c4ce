// Package health looks at the parts of a node, one check each, and remembers since when each of them is as it is. What cannot be found out
// within the patience is said as unknown: it is neither well nor bad.
package health

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/cartage-dev/cartage/internal/lifecycle"
)

// State is how a part of the node is.
type State uint8

// The states, the better first.
const (
	OK State = iota
	Unknown
	Warn
	Bad
)

var states = [...]string{OK: "ok", Unknown: "unknown", Warn: "warn", Bad: "bad"}

// String is the state as it is shown.
func (s State) String() string { return states[s] }

// Result is what a check found. Fix is what a person can do about it; it may be empty.
type Result struct {
	ID    string
	State State
	Text  string
	Fix   string
	Since time.Time // when it was seen in this state first
}

// Check looks at one part of a node. Look is quick and reads no data of any size; Deep, if there is one, reads everything that the part has.
type Check struct {
	ID   string
	Look func(ctx context.Context) Result
	Deep func(ctx context.Context) Result
}

// patience is how long a quick look may take, and every how often they are taken by Keep.
const (
	patience = 2 * time.Second
	every    = 30 * time.Second
)

// Monitor has the checks of a node. It is safe for concurrent use.
type Monitor struct {
	checks []Check
	now    func() time.Time

	mu   sync.Mutex
	last map[string]Result
}

// NewMonitor has these checks, in the order in which they are shown. now is its clock; nil is time.Now.
func NewMonitor(checks []Check, now func() time.Time) *Monitor {
	if now == nil {
		now = time.Now
	}
	return &Monitor{checks: checks, now: now, last: map[string]Result{}}
}

// Names are the names of the checks.
func (m *Monitor) Names() []string {
	names := make([]string, 0, len(m.checks))
	for _, c := range m.checks {
		names = append(names, c.ID)
	}
	return names
}

// Look takes the checks with the given names, or all of them, at the same time; with deep those that have more to read read it.
func (m *Monitor) Look(ctx context.Context, deep bool, names ...string) []Result {
	var chosen []Check
	for _, c := range m.checks {
		if len(names) == 0 || slices.Contains(names, c.ID) {
			chosen = append(chosen, c)
		}
	}
	out := make([]Result, len(chosen))
	var wg sync.WaitGroup
	for i, c := range chosen {
		wg.Go(func() { out[i] = m.noted(c.ID, take(ctx, c, deep)) })
	}
	wg.Wait()
	return out
}

func take(ctx context.Context, c Check, deep bool) Result {
	if deep && c.Deep != nil {
		return c.Deep(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return c.Look(ctx)
}

// noted keeps since when a part is as it is.
func (m *Monitor) noted(id string, r Result) Result {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.ID, r.Since = id, m.now()
	if before, ok := m.last[id]; ok && before.State == r.State {
		r.Since = before.Since
	}
	m.last[id] = r
	return r
}

// Keep looks every 30 seconds until ctx ends, so that it is known since when something is wrong.
func (m *Monitor) Keep(ctx context.Context) {
	for {
		m.Look(ctx, false)
		if !lifecycle.Sleep(ctx, every) {
			return
		}
	}
}

// Worst is the worst state of some results.
func Worst(results []Result) State {
	worst := OK
	for _, r := range results {
		worst = max(worst, r.State)
	}
	return worst
}
