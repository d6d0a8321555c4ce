package shared

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// RetryStream opens streams, and tries again after growing pauses: from Min to Max, each Factor times the one before and up to
// half of it shorter; a pause is over when the peer connects. No attempts are one.
type RetryStream struct {
	Min, Max         time.Duration
	Attempts, Factor float64
	OpenTimeout      time.Duration // of one attempt; 0 is none of its own
	// StopIfForeign ends the attempts at a peer that is known to speak none of the protocols.
	StopIfForeign bool
	// Ended, if closed, ends the attempts: who made them is stopping. One that is under way goes on.
	Ended <-chan struct{}
	// Before, if set, is called before each attempt.
	Before func()
}

// DefaultRetryStream is 5 attempts with pauses from 1 s to 5 min, each 5 times the one before.
func DefaultRetryStream() RetryStream {
	return RetryStream{Min: time.Second, Max: 5 * time.Minute, Attempts: 5, Factor: 5}
}

// ExhaustedError is the end of all attempts to open a stream.
type ExhaustedError struct {
	Attempts int
	Err      error
}

// Error implements error.
func (e *ExhaustedError) Error() string {
	return fmt.Sprintf("exhausted %d attempts but failed to open stream, err: %s", e.Attempts, e.Err)
}

// Unwrap returns the error of the last attempt.
func (e *ExhaustedError) Unwrap() error { return e.Err }

// errEnded is the end of attempts whose maker is stopping.
var errEnded = errors.New("this side is stopping")

// Open opens a stream for one of the protocols.
func (r RetryStream) Open(ctx context.Context, h host.Host, to peer.ID, protocols ...protocol.ID) (network.Stream, error) {
	wait := r.Min
	for i := 1; ; i++ {
		if r.Before != nil {
			r.Before()
		}
		before := connections(h, to)
		s, err := r.once(ctx, h, to, protocols)
		if err == nil {
			return s, nil
		}
		if ctx.Err() == nil && (i >= int(r.Attempts) || r.StopIfForeign && foreign(h, to, protocols)) {
			return nil, &ExhaustedError{i, err}
		}
		if perr := r.pause(ctx, h, to, before, wait/2+rand.N(wait/2+1)); perr != nil {
			return nil, fmt.Errorf("open stream to %s canceled by context: %w (attempt %d: %w)", to, perr, i, err)
		}
		wait = time.Duration(math.Min(float64(wait)*max(r.Factor, 1), float64(r.Max)))
	}
}

// lookEvery is how often a pause looks for a new connection. An event of the host would not do: there is none if the peer is back before
// its old connection is known to be dead.
const lookEvery = 250 * time.Millisecond

// pause waits between two attempts, at most until a peer has another connection than before the first of them.
func (r RetryStream) pause(ctx context.Context, h host.Host, to peer.ID, before []string, d time.Duration) error {
	for end := time.Now().Add(d); ; {
		timer := time.NewTimer(min(time.Until(end), lookEvery))
		select {
		case <-ctx.Done():
		case <-r.Ended:
		case <-timer.C:
		}
		timer.Stop()
		select {
		case <-r.Ended:
			return errEnded
		default:
		}
		if ctx.Err() != nil || !time.Now().Before(end) || slices.ContainsFunc(connections(h, to), func(id string) bool { return !slices.Contains(before, id) }) {
			return ctx.Err()
		}
	}
}

// connections are the names of those to a peer.
func connections(h host.Host, to peer.ID) (ids []string) {
	for _, c := range h.Network().ConnsToPeer(to) {
		ids = append(ids, c.ID())
	}
	return ids
}

// foreign tells whether a peer is known to speak none of the protocols.
func foreign(h host.Host, to peer.ID, protocols []protocol.ID) bool {
	if to == "" {
		return true
	}
	all, err := h.Peerstore().GetProtocols(to)
	ours, serr := h.Peerstore().SupportsProtocols(to, protocols...)
	return err == nil && serr == nil && len(all) > 0 && len(ours) == 0
}

func (r RetryStream) once(ctx context.Context, h host.Host, to peer.ID, protocols []protocol.ID) (network.Stream, error) {
	if r.OpenTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.OpenTimeout)
		defer cancel()
	}
	return h.NewStream(ctx, to, protocols...)
}
