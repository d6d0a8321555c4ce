package channels

import (
	"github.com/cartage-dev/cartage/internal/wire"
)

// Spans are indices of blocks that a sender left out because the recipient said that it has them. Those that are Skipped were neither sent nor
// counted: if they are asked for later they count like any other (W-41, R-104). Those that are Claimed count already, because the recipient
// says that it got them of this channel: they do not count again, and are not handed out for nothing.
type Spans []span

// span is from..to, both included.
type span struct{ From, To uint64 }

// maxSpans bounds the record: what a recipient claims may not make it grow.
const maxSpans = 16

func (s Spans) has(i uint64) bool {
	for _, r := range s {
		if r.From <= i && i <= r.To {
			return true
		}
	}
	return false
}

// Counted tells whether the block at an index was handed out and counted.
func (h *Hot) Counted(index uint64) bool { return index <= h.QueuedTotal && !h.Withheld(index) }

// Withheld tells whether the block at an index was left out on the word of the recipient and not handed out since.
func (h *Hot) Withheld(index uint64) bool { return h.Skipped.has(index) || h.Claimed.has(index) }

// claimable tells whether a block that a recipient says it got of this channel has to be counted: nobody remembers to have handed it out, and it
// was not there before the channel was.
func (h *Hot) claimable(index uint64) bool {
	return index > 0 && !h.Withheld(index) && index > h.QueuedTotal
}

// unsent tells whether a block of this channel that the recipient has is not counted as sent: its connection broke before this side heard of it.
func (h *Hot) unsent(index uint64) bool {
	return index > h.SentTotal && (h.Counted(index) || h.Claimed.has(index))
}

// AllSent notes that the recipient has everything that was queued.
func (h *Hot) AllSent() { h.Sent, h.SentTotal = h.Queued, max(h.SentTotal, h.QueuedTotal) }

// handOut notes that block at goes out, with the recipient's claim to have the first has blocks, and tells whether it counts.
func (h *Hot) handOut(at, has uint64) (fresh bool) {
	claimed := h.Claimed.has(at)
	fresh = !claimed && (at > h.QueuedTotal || h.Skipped.has(at))
	if claimed {
		h.Claimed.remove(at, at)
	}
	if fresh || claimed {
		h.Skipped.sent(h.QueuedTotal, at, has)
	}
	return fresh
}

// sent notes that block at goes out, with the recipient's claim to have the first has blocks; highest is the highest index
// that went out before.
func (s *Spans) sent(highest, at, has uint64) {
	if at > highest {
		if to := min(at-1, has); to > highest {
			s.add(span{highest + 1, to})
		}
		s.remove(at, at)
		return
	}
	s.remove(min(at, has+1), at) // between the claim and this block lie only repeated ones, which never count
}

// remove takes from..to out of the spans around to.
func (s *Spans) remove(from, to uint64) {
	if !s.has(to) {
		return
	}
	var out Spans
	for _, r := range *s {
		if to < r.From || r.To < to {
			out = append(out, r)
			continue
		}
		if from > r.From {
			out = append(out, span{r.From, from - 1})
		}
		if to < r.To {
			out = append(out, span{to + 1, r.To})
		}
	}
	*s = out
	s.bound()
}

// add adds a span, to the last one if it follows it.
func (s *Spans) add(r span) {
	old := *s
	n := len(old)
	if n > 0 && old[n-1].From <= r.From && r.To <= old[n-1].To {
		return
	}
	if n > 0 && old[n-1].To+1 == r.From {
		r.From, old = old[n-1].From, old[:n-1]
	}
	*s = append(append(Spans(nil), old...), r) // snapshots share the old one
	s.bound()
}

// bound joins the first spans: what lies between them counts again if it is asked for again.
func (s *Spans) bound() {
	for len(*s) > maxSpans {
		joined := append(Spans{{(*s)[0].From, (*s)[1].To}}, (*s)[2:]...)
		*s = joined
	}
}

func spansField(name string, s *Spans) wire.Field {
	return wire.List(name, (*[]span)(s), func(r *span) wire.Field {
		return wire.Tuple("span", []wire.Field{wire.Uint("From", &r.From), wire.Uint("To", &r.To)})
	})
}
