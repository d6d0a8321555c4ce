package dagstore

import (
	"context"
	"errors"

	"github.com/cartage-dev/cartage/internal/lifecycle"
)

// lifetime is what runs in a store: work of its own, which ends with its context, and calls of others.
type lifetime struct {
	ctx    context.Context
	cancel context.CancelFunc
	group  lifecycle.Group
	calls  lifecycle.Group // that use the engine
}

func newLifetime(ctx context.Context) *lifetime {
	l := &lifetime{}
	l.ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return l
}

// end lets nothing more begin, ends what runs, and waits for it.
func (l *lifetime) end() error {
	l.calls.Stop()
	l.cancel()
	ctx := context.WithoutCancel(l.ctx)
	return errors.Join(l.group.Close(ctx), l.calls.Close(ctx))
}

// enter keeps the engine open until leave is called; once the store closes it fails.
func (l *lifetime) enter() (leave func(), err error) {
	if !l.calls.Enter() {
		return nil, ErrClosed
	}
	return l.calls.Leave, nil
}

// boundByStore is a context that also ends with the store.
func (l *lifetime) boundByStore(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(l.ctx, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}
