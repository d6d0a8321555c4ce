// Package flow decides whether a sender sends: one pure function of what is known about a channel, for every transport. Nobody remembers
// that a channel "is paused"; who has to know asks here, before each block and after each change.
package flow

// Facts are what is known about a channel on which this side sends.
type Facts struct {
	// HighWater is the highest index that was handed to the transport. A claim of the recipient does not raise it.
	HighWater uint64
	// Limited tells whether there is a limit, and Open whether the position is below it, so that the next block may go.
	Limited, Open bool
	// HeldByUs: the application paused, or has not let the channel begin. HeldByPeer: the recipient paused.
	HeldByUs, HeldByPeer bool
}

// Verdict is what a sender does.
type Verdict int

const (
	// AsTold: there is no limit to decide by. The sender pauses and resumes as it is told.
	AsTold Verdict = iota
	// Send the block.
	Send
	// AwaitHold: until the side that holds the channel resumes it.
	AwaitHold
	// AwaitPayment: until the limit is raised above the position.
	AwaitPayment
)

// Decide says what becomes of the block at an index. withheld tells whether this block was left out on a claim of the recipient and never
// handed out. What was handed out before and was lost goes out again whatever is owed: nobody pays for blocks that did not arrive.
func Decide(f Facts, index uint64, withheld bool) Verdict {
	switch {
	case f.HeldByUs || f.HeldByPeer:
		return AwaitHold
	case !f.Limited:
		return AsTold
	case f.Open:
		return Send
	case index <= f.HighWater && !withheld:
		return Send
	}
	return AwaitPayment
}
