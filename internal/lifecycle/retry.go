package lifecycle

import (
	"context"
	"time"
)

// Backoff is the pauses between attempts: Min first, then each twice the one before, up to Max.
type Backoff struct{ Min, Max time.Duration }

// Retry calls attempt until it wants no further attempt, or ctx ends in a pause, and returns its last error. Between two attempts it
// pauses; attempt itself has to heed ctx.
func Retry(ctx context.Context, b Backoff, attempt func() (again bool, err error)) error {
	for wait := b.Min; ; wait = min(2*wait, b.Max) {
		again, err := attempt()
		if !again || !Sleep(ctx, wait) {
			return err
		}
	}
}

// Every calls f after each period until ctx ends. A period that f overruns is left out.
func Every(ctx context.Context, period time.Duration, f func()) {
	t := time.NewTicker(period)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if ctx.Err() != nil {
				return
			}
			f()
		}
	}
}
