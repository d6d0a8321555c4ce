package health

import (
	"sync"
	"time"
)

// Counts is how things have ended: well, or by whose fault. Unclear is what ended badly without anybody knowing whose fault it was.
type Counts struct{ Well, Ours, Theirs, Network, Unclear int }

// Total is how many have ended.
func (c Counts) Total() int { return c.Well + c.Ours + c.Theirs + c.Network + c.Unclear }

func (c Counts) plus(d Counts) Counts {
	return Counts{c.Well + d.Well, c.Ours + d.Ours, c.Theirs + d.Theirs, c.Network + d.Network, c.Unclear + d.Unclear}
}

// hours is how far a Tally looks back.
const hours = 24

// Tally counts by the hour what has ended in the last 24. The zero value is ready; it is safe for concurrent use.
type Tally struct {
	mu    sync.Mutex
	slots [hours]struct {
		hour   int64
		counts Counts
	}
}

// Add counts what has ended now.
func (t *Tally) Add(now time.Time, c Counts) {
	hour := now.Unix() / 3600
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &t.slots[hour%hours]
	if s.hour != hour {
		s.hour, s.counts = hour, Counts{}
	}
	s.counts = s.counts.plus(c)
}

// Last is what has ended in the last n hours, the one that runs included; n is 24 at most.
func (t *Tally) Last(now time.Time, n int) (sum Counts) {
	hour := now.Unix() / 3600
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.slots {
		if s.hour > hour-int64(n) && s.hour <= hour {
			sum = sum.plus(s.counts)
		}
	}
	return sum
}
