package dagstore

import "errors"

// State of a shard; the texts are those of the API (node spec 1.2).
type State uint64

// The states of a shard. Serving is not stored: it is Available with readers.
const (
	StateNew          State = 0x00
	StateInitializing State = 0x01
	StateAvailable    State = 0x02
	StateServing      State = 0x03
	StateRecovering   State = 0x80
	StateErrored      State = 0xf0
	StateUnknown      State = 0xff
)

// String is the text of the API.
func (s State) String() string {
	switch s {
	case StateNew:
		return "ShardStateNew"
	case StateInitializing:
		return "ShardStateInitializing"
	case StateAvailable:
		return "ShardStateAvailable"
	case StateServing:
		return "ShardStateServing"
	case StateRecovering:
		return "ShardStateRecovering"
	case StateErrored:
		return "ShardStateErrored"
	case StateUnknown:
		return "ShardStateUnknown"
	}
	return "__undefined__"
}

// Word is the state in the words of a person.
func (s State) Word() string {
	switch s {
	case StateNew:
		return "registered and not read yet"
	case StateInitializing:
		return "being read"
	case StateAvailable:
		return "available"
	case StateServing:
		return "being served"
	case StateRecovering:
		return "being recovered"
	case StateErrored:
		return "failed"
	}
	return "unknown"
}

var (
	// ErrShardUnknown means that no shard has the key.
	ErrShardUnknown = errors.New("shard not found")
	// ErrShardExists means that a shard has the key already.
	ErrShardExists = errors.New("shard already exists")
	// ErrShardInit means that the bytes of a shard could not be made readable.
	ErrShardInit = errors.New("shard initialization failed")
	// ErrShardInUse means that a reader has the shard.
	ErrShardInUse = errors.New("shard in use")
	// ErrNotFound means that no piece has the block.
	ErrNotFound = errors.New("block not found in any piece")
	// ErrBadRecord means that what is stored of a shard cannot be read: register the piece again.
	ErrBadRecord = errors.New("record of the shard is damaged")
	// ErrClosed means that the store is closed or closing.
	ErrClosed = errors.New("dagstore is closed")
)
