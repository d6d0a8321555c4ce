package channels

import (
	"github.com/cartage-dev/cartage/internal/wire"
)

// Skipped are the indices of blocks that a sender left out because the recipient said that it has them. They were neither
// sent nor counted: if they are asked for later they count like any other (W-41, R-104).
type Skipped []span

// span is from..to, both included.
type span struct{ From, To uint64 }

// maxSpans bounds the record: what a recipient claims may not make it grow.
const maxSpans = 16

func (s Skipped) has(i uint64) bool {
	for _, r := range s {
		if r.From <= i && i <= r.To {
			return true
		}
	}
	return false
}

// Counted tells whether the block at an index was sent and counted.
func (h *Hot) Counted(index uint64) bool { return index <= h.QueuedTotal && !h.Skipped.has(index) }

// Withheld tells whether the block at an index was left out on the word of the recipient and not handed out since.
func (h *Hot) Withheld(index uint64) bool { return h.Skipped.has(index) }

// sent notes that block at goes out, with the recipient's claim to have the first has blocks; highest is the highest index
// that went out before.
func (s *Skipped) sent(highest, at, has uint64) {
	if at > highest {
		if to := min(at-1, has); to > highest {
			s.add(span{highest + 1, to})
		}
		return
	}
	var out Skipped
	for _, r := range *s {
		if at < r.From || r.To < at {
			out = append(out, r)
			continue
		}
		// Between the claim and this block lie only repeated ones, which never count.
		if to := min(at-1, has); to >= r.From && at > r.From {
			out = append(out, span{r.From, to})
		}
		if at < r.To {
			out = append(out, span{at + 1, r.To})
		}
	}
	*s = out
	s.bound()
}

func (s *Skipped) add(r span) {
	*s = append(append(Skipped(nil), *s...), r) // snapshots share the old one
	s.bound()
}

// bound joins the first spans: what lies between them counts again if it is asked for again.
func (s *Skipped) bound() {
	for len(*s) > maxSpans {
		joined := append(Skipped{{(*s)[0].From, (*s)[1].To}}, (*s)[2:]...)
		*s = joined
	}
}

func skippedField(name string, s *Skipped) wire.Field {
	return wire.List(name, (*[]span)(s), func(r *span) wire.Field {
		return wire.Tuple("span", []wire.Field{wire.Uint("From", &r.From), wire.Uint("To", &r.To)})
	})
}
