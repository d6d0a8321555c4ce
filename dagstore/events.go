package dagstore

import (
	"sync"

	"github.com/ipfs/go-cid"
)

// Operations of events, as the reference names them. Acquire and Release are told for each reader; a registration that reads the piece at once
// is told when the piece is known, which is when all of it was read.
const (
	OpRegister      = "OpShardRegister"
	OpInitialize    = "OpShardInitialize"
	OpMakeAvailable = "OpShardMakeAvailable"
	OpDestroy       = "OpShardDestroy"
	OpAcquire       = "OpShardAcquire"
	OpFail          = "OpShardFail"
	OpRelease       = "OpShardRelease"
	OpRecover       = "OpShardRecover"
)

// Event is one operation on a shard, with its state after it.
type Event struct {
	Piece cid.Cid
	Op    string
	State State
	Error string
	Lost  uint64 // events that were lost before this one because the listener was slow
}

// subscribers are listeners that never make the store wait (R-D13).
type subscribers struct {
	mu     sync.Mutex
	list   map[*subscription]bool
	closed bool
}

type subscription struct {
	ch     chan Event
	filter func(Event) bool
	lost   uint64
}

// Subscribe tells about operations from now on. A listener that is more than buffer events behind loses some, and is told how many.
// The channel is closed by cancel, which may be called again, and by Close.
func (l *subscribers) Subscribe(buffer int, filter func(Event) bool) (events <-chan Event, cancel func()) {
	sub := &subscription{ch: make(chan Event, max(buffer, 1)), filter: filter}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		close(sub.ch)
		return sub.ch, func() {}
	}
	if l.list == nil {
		l.list = map[*subscription]bool{}
	}
	l.list[sub] = true
	return sub.ch, func() { l.removeListener(sub) }
}

func (l *subscribers) removeListener(sub *subscription) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.list[sub] {
		delete(l.list, sub)
		close(sub.ch)
	}
}

func (l *subscribers) publish(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for sub := range l.list {
		if sub.filter != nil && !sub.filter(e) {
			continue
		}
		e.Lost = sub.lost
		select {
		case sub.ch <- e:
			sub.lost = 0
		default:
			sub.lost++
		}
	}
}

func (l *subscribers) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for sub := range l.list {
		close(sub.ch)
	}
	l.list = nil
}

func (l *subscribers) tellState(op string, sh Shard) {
	l.publish(Event{Piece: sh.Piece, Op: op, State: sh.State, Error: sh.Error})
}

// tellReading tells of a reader that came or went. mu is not held: a listener's filter may ask the store.
func (l *subscribers) tellReading(op string, piece cid.Cid, state State) {
	l.publish(Event{Piece: piece, Op: op, State: state})
}
