package dagstore

import (
	"context"
	"sync"
)

// jobKey is what work is for: making a shard readable, or opening its bytes.
type jobKey struct {
	number uint64
	open   bool
}

// job is work that is done once for all who wait for it. It has a context of its own, which ends when the last of them has left,
// unless the store itself wants it (R-D4).
type job struct {
	done        chan struct{}
	err         error
	cancel      context.CancelFunc
	waiting     int
	keepRunning bool
	abandoned   bool // everybody has gone
}

// jobSet is the work that runs, by what it is for.
type jobSet struct {
	life *lifetime

	mu   sync.Mutex
	jobs map[jobKey]*job
}

// startJob returns the job of a key, a new one if there is none, or nil when the store closes. mu is held.
func (js *jobSet) startJob(key jobKey, f func(context.Context) error) *job {
	if j := js.jobs[key]; j != nil {
		return j
	}
	ctx, cancel := context.WithCancel(js.life.ctx)
	j := &job{done: make(chan struct{}), cancel: cancel}
	ok := js.life.group.Go(func() {
		defer cancel()
		err := f(ctx)
		js.mu.Lock()
		j.err = err
		delete(js.jobs, key)
		js.mu.Unlock()
		close(j.done)
	})
	if !ok {
		cancel()
		return nil
	}
	js.jobs[key] = j
	return j
}

// shareJob waits for the work of a key, which it begins if nobody did.
func (js *jobSet) shareJob(ctx context.Context, key jobKey, f func(context.Context) error) error {
	for {
		js.mu.Lock()
		j := js.startJob(key, f)
		if j == nil {
			js.mu.Unlock()
			return ErrClosed
		}
		j.waiting++
		js.mu.Unlock()
		select {
		case <-j.done:
			if j.abandoned && j.err != nil && ctx.Err() == nil && js.life.ctx.Err() == nil {
				continue // of those who had left before: it begins anew
			}
			return j.err
		case <-ctx.Done():
		}
		js.mu.Lock()
		if j.waiting--; j.waiting == 0 && !j.keepRunning {
			j.abandoned = true
			j.cancel()
		}
		js.mu.Unlock()
		return ctx.Err()
	}
}

// keepJob begins the work of a key that goes on whoever waits, and does not wait itself.
func (js *jobSet) keepJob(key jobKey, f func(context.Context) error) {
	js.mu.Lock()
	defer js.mu.Unlock()
	if j := js.startJob(key, f); j != nil {
		j.keepRunning = true
	}
}

// endJob cancels the work of a key, if there is any, and waits for its end or that of ctx. Who waits for it hears its error.
func (js *jobSet) endJob(ctx context.Context, key jobKey) error {
	js.mu.Lock()
	j := js.jobs[key]
	js.mu.Unlock()
	if j == nil {
		return nil
	}
	j.cancel()
	select {
	case <-j.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
